"""What the reward model sees of an answer: the frozen trunk's states over it, its tokens, its style and its length."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from settings.reward import RewardSettings
from trainer.backbone import Backbone
from trainer.reward.style import SIZE, style, style_table

_BUCKETS = 2048
_HASH = 2654435761
"""Knuth's multiplicative hash (The Art of Computer Programming 3, section 6.4): 2³² over the golden ratio."""
_REACH = 5.0
_LENGTH_STD = 0.25
"""Least deviation of the log of the length."""


def feature_dim(hidden_size: int) -> int:
    """F of `AnswerPool` for a trunk of this width."""
    return 3 * hidden_size + _BUCKETS + SIZE + 1


class AnswerPool:
    """Features of responses, float32 [B, F].

    - Mean of the token embeddings: which words, whatever their order; EOS among them, so whether it was cut short.
    - Mean of the middle layer: what is said, and how.
    - Last token of the middle layer: the answer as a whole, seen from where it ends.
    - How often each token stands in it, as log(1 + count) by a hash of its id: one that is rare (a question mark, an
      exclamation) hardly moves a mean over forty words, and has a feature of its own here.
    - Style: letters a word, words a sentence, shares of punctuation, capitals and the like.
    - Log of the number of response tokens.
    """

    def __init__(self, style_VS: Tensor) -> None:
        """`style_VS`: of `style_table`."""
        self._style_VS = style_VS

    @classmethod
    def of(cls, backbone: Backbone) -> Self:
        return cls(style_table(backbone.tokenizer, backbone.vocabulary).to(backbone.device))

    def layers(self, depth: int) -> tuple[int, ...]:
        return 0, depth // 2

    def __call__(self, states_BTD: tuple[Tensor, ...], tokens_BT: Tensor, response_mask_BT: Tensor) -> Tensor:
        """Every row of `response_mask_BT` is true at a token, or more."""
        mask_BT = response_mask_BT.float()
        length_B1 = mask_BT.sum(dim=1, keepdim=True)
        means = [torch.einsum("btd,bt->bd", state_BTD.float(), mask_BT) / length_B1 for state_BTD in states_BTD]
        positions_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
        last_B = (mask_BT * positions_T).argmax(dim=1)
        closing_BD = states_BTD[-1][torch.arange(len(last_B), device=last_B.device), last_B].float()
        words_BK = _token_counts(tokens_BT, mask_BT).log1p()
        style_BS = style((self._style_VS[tokens_BT] * mask_BT[:, :, None]).sum(dim=1), length_B1)
        return torch.cat([*means, closing_BD, words_BK, style_BS, length_B1.log()], dim=1)

    def prefixes(self, states_TD: tuple[Tensor, ...], tokens_T: Tensor) -> Tensor:
        """The same of every prefix of one response, [T, F]: after its first token, its second, … and as a whole."""
        count_T1 = torch.arange(1, len(tokens_T) + 1, device=tokens_T.device)[:, None]
        means = [state_TD.float().cumsum(dim=0) / count_T1 for state_TD in states_TD]
        one_hot_TK = _token_counts(tokens_T[:, None], torch.ones_like(tokens_T[:, None], dtype=torch.float32))
        words_TK = one_hot_TK.cumsum(dim=0).log1p()
        style_TS = style(self._style_VS[tokens_T].cumsum(dim=0), count_T1)
        return torch.cat([*means, states_TD[-1].float(), words_TK, style_TS, count_T1.float().log()], dim=1)


def _token_counts(tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, _BUCKETS]."""
    bucket_BT = (tokens_BT * _HASH % 2**32) // (2**32 // _BUCKETS)
    return mask_BT.new_zeros(len(tokens_BT), _BUCKETS).scatter_add_(1, bucket_BT, mask_BT)


@dataclass(frozen=True, slots=True)
class Standardiser:
    """Features in units of what was judged: zero mean, deviation 1, and nothing beyond ±`_REACH`.

    The bound keeps the reward from promising more the further an answer leaves what people have seen: an unjudged
    extreme is worth no more than the edge. The edge moves on as answers beyond it are judged. For the length, which is
    one feature, easy to drive and liked by most raters, the edges are the shortest and the longest answer judged.
    """

    mean_F: Tensor
    std_F: Tensor
    length_range_2: Tensor
    """Least and greatest length feature that was judged."""

    @classmethod
    def of(cls, features_NF: Tensor) -> "Standardiser":
        std_F, mean_F = torch.std_mean(features_NF, dim=0, correction=0)
        # Where all answers ran into the token limit, a few tokens must not look like the difference of a lifetime.
        std_F[-1] = std_F[-1].clamp_min(_LENGTH_STD)
        return cls(mean_F, std_F, torch.stack(features_NF[:, -1].aminmax()))

    def __call__(self, features_BF: Tensor) -> Tensor:
        """[B, F]; 0 for a feature that never varied."""
        known_F = self.std_F > 1e-6
        length_B1 = features_BF[:, -1:].clamp(*self.length_range_2.unbind())
        z_BF = (torch.cat([features_BF[:, :-1], length_B1], dim=1) - self.mean_F) / self.std_F.clamp_min(1e-6)
        return torch.where(known_F, z_BF, 0.0).clamp(-_REACH, _REACH)


def prior_deviation(dimension: int, settings: RewardSettings) -> Tensor:
    """Deviation of every standardised feature's weight before anything is learned, [F], F of `AnswerPool`.

    A block of n features shares its block's variance, so that width does not decide how much it says.
    """
    hidden = (dimension - feature_dim(0)) // 3
    kinds_of_words, words, manner = settings.taste_scales[0]
    blocks = (
        (hidden, kinds_of_words),
        (hidden, settings.meaning_scale),
        (hidden, settings.closing_scale),
        (_BUCKETS, words),
        (SIZE, manner),
        (1, settings.length_scale),
    )
    return torch.cat([torch.full((size,), scale / size**0.5) for size, scale in blocks])
