"""What the reward model sees of an answer: the frozen trunk's states, pooled over the response."""

import torch
from torch import Tensor


def feature_dim(hidden_size: int) -> int:
    """F of `pool` for a trunk of this width."""
    return 3 * hidden_size + 1


def pool(hidden_states_BTD: tuple[Tensor, ...], response_mask_BT: Tensor) -> Tensor:
    """Features of responses, float32 [B, F].

    - Mean of the token embeddings: which words, whatever their order.
    - Mean of the middle layer: what is said, and how.
    - Middle layer at the last response token: how it ends (the state of EOS has seen the whole answer).
    - Log of the number of response tokens.

    Args:
        hidden_states_BTD: the embeddings' output and every layer's, as transformers returns them.
        response_mask_BT: true where the input token belongs to the response; every row has one.
    """
    mask_BT = response_mask_BT.float()
    length_B = mask_BT.sum(dim=1)
    positions_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = (mask_BT * positions_T).argmax(dim=1)
    middle_BTD = hidden_states_BTD[len(hidden_states_BTD) // 2].float()
    return torch.cat(
        [
            _mean(hidden_states_BTD[0].float(), mask_BT),
            _mean(middle_BTD, mask_BT),
            middle_BTD[torch.arange(len(last_B), device=last_B.device), last_B],
            length_B.log().unsqueeze(1),
        ],
        dim=1,
    )


def _mean(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    return torch.einsum("btd,bt->bd", hidden_BTD, mask_BT) / mask_BT.sum(dim=1, keepdim=True)


def prior_deviation(dimension: int) -> Tensor:
    """Prior deviation of every standardised feature's weight, [F]: blocks count alike, and the squares sum to 1.

    `dimension` is F of `pool`.
    """
    hidden = (dimension - 1) // 3
    blocks = (hidden, hidden, hidden, 1)
    return torch.cat([torch.full((size,), (1 / len(blocks) / size) ** 0.5) for size in blocks])
