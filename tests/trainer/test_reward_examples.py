"""From judgements to features, on a real (random-weights) trunk."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from feedback.judgement import Answer, Judgement, Kind, Prompt
from settings.ppo import LoraSettings
from settings.reward import RewardSettings
from tests.trainer.reward_tastes import rankings, taste
from trainer.backbone import Backbone
from trainer.prompts import is_held_out
from trainer.reward import AnswerPool, Featuriser, feature_dim
from trainer.reward.crossvalidation import cross_validate
from trainer.reward.features import Standardiser
from trainer.reward.style import SIZE, style
from trainer.tokens import Sample


class Trunk:
    """The tiny model's features, counting what it is asked for."""

    def __init__(self, model: Path) -> None:
        self.backbone = Backbone(model, LoraSettings(), dtype=torch.float32)
        self.pool = AnswerPool.of(self.backbone)
        self.seen: list[Sample] = []

    def featurise(self, samples: list[Sample]) -> Tensor:
        self.seen += samples
        return self.backbone.features(samples, self.pool)

    def featuriser(self, cache_size: int = 100) -> Featuriser:
        return Featuriser(
            self.featurise,
            self.backbone.tokenizer,
            cache_size=cache_size,
            prompt_tokens=20,
            response_tokens=12,
            held_out_fraction=0.15,
        )


@pytest.fixture(scope="module")
def tiny_trunk(tiny_model: Path) -> Trunk:
    return Trunk(tiny_model)


@pytest.fixture
def trunk(tiny_trunk: Trunk) -> Trunk:
    tiny_trunk.seen.clear()
    return tiny_trunk


def judgement(kind: Kind, answers: list[Answer], **fields: Any) -> Judgement:
    defaults: dict[str, Any] = {
        "sequence": 1,
        "feedback_id": "f",
        "tenant": "acme",
        "rater_id": "ada",
        "source": 1,
        "conversation_id": "c",
        "response_id": "r",
        "policy_version": "p",
        "messages": (("user", "Hello?"),),
        "prompt_token_ids": (),
        "tiers": (),
        "rejected_all": False,
        "score": None,
        "text": "",
        "receive_time": 0.0,
    }
    return Judgement(kind=kind, answers=tuple(answers), **(defaults | fields))


def answer(text: str, token_ids: tuple[int, ...] = ()) -> Answer:
    return Answer(candidate_id=text, text=text, token_ids=token_ids)


def test_pool_is_means_over_the_response_its_end_its_tokens_its_style_and_its_length() -> None:
    style_VS = torch.rand(50_000, SIZE - 2, generator=torch.Generator().manual_seed(1))
    pool = AnswerPool(style_VS)
    generator = torch.Generator().manual_seed(0)
    states = tuple(torch.randn(3, 7, 4, generator=generator) for _ in pool.layers(5))
    mask_BT = torch.tensor([[0, 0, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1]]).bool()
    tokens_BT = torch.tensor([[7, 7, 3, 5, 3, 9, 9], [1, 7, 7, 7, 7, 7, 7], [9, 1, 2, 3, 3, 3, 49_000]])
    features_BF = pool(states, tokens_BT, mask_BT)
    assert features_BF.shape == (3, feature_dim(4))
    for row in range(3):
        where = mask_BT[row]
        words, meaning = states[0][row, where].mean(dim=0), states[1][row, where].mean(dim=0)
        closing = states[1][row, where][-1]
        torch.testing.assert_close(features_BF[row, :12], torch.cat([words, meaning, closing]))
        torch.testing.assert_close(features_BF[row, -1], where.sum().float().log())
        counts = Counter(tokens_BT[row, where].tolist())
        counted_F, style_F = features_BF[row, 12 : -SIZE - 1], features_BF[row, -SIZE - 1 : -1]
        sums_1S = style_VS[tokens_BT[row, where]].sum(dim=0, keepdim=True)
        torch.testing.assert_close(style_F, style(sums_1S, where.sum()[None, None])[0])
        torch.testing.assert_close(counted_F.sum(), torch.tensor([1.0 + n for n in counts.values()]).log().sum())
        assert counted_F.count_nonzero() == len(counts)


def test_standardised_features_are_bounded_and_dead_ones_zero() -> None:
    features_NF = torch.randn(50, feature_dim(4), generator=torch.Generator().manual_seed(0))
    features_NF[:, 2] = 7.0
    standardise = Standardiser.of(features_NF)
    z_NF = standardise(features_NF)
    torch.testing.assert_close(z_NF[:, :2].std(dim=0, correction=0), torch.ones(2))
    assert z_NF[:, 2].abs().max() == 0
    assert standardise(100 * features_NF).abs().max() <= 5


def test_no_length_beyond_those_judged_earns_more() -> None:
    features_NF = torch.randn(50, feature_dim(4), generator=torch.Generator().manual_seed(0))
    standardise = Standardiser.of(features_NF)
    extremes = torch.stack([features_NF[:, -1].argmax(), features_NF[:, -1].argmin()])
    beyond_BF = features_NF[extremes].clone()
    beyond_BF[:, -1] += torch.tensor([1.0, -1.0])
    torch.testing.assert_close(standardise(beyond_BF), standardise(features_NF[extremes]))


def test_a_demonstration_is_the_edit_over_the_original(trunk: Trunk) -> None:
    served = judgement("demonstration", [answer("the original")], text="the edit, longer")
    [example] = trunk.featuriser().examples([served])
    assert example.tiers == ((1,), (0,))
    assert example.lengths == (12, 16)
    assert example.features_AF.shape == (2, feature_dim(trunk.backbone.hidden_size))


def test_served_answers_keep_their_tokens_and_imported_ones_end(trunk: Trunk) -> None:
    thumbs = [
        judgement("thumbs", [answer("hi", (5, 6, 7))], score=1.0, prompt_token_ids=tuple(range(3, 40))),
        judgement("thumbs", [answer("")], score=0.0),
    ]
    trunk.featuriser().examples(thumbs)
    served, imported = trunk.seen
    assert served == Sample(tuple(range(20, 40)), (5, 6, 7))
    assert imported.response_ids == (trunk.backbone.tokenizer.eos_token_id,)
    assert 0 < len(imported.prompt_ids) <= 20


def test_a_judgement_is_held_out_where_its_prompt_judges_the_policy(trunk: Trunk) -> None:
    openings = [f"question {i}" for i in range(60)]
    thumbs = [
        judgement("thumbs", [answer("hi", (5, 6))], score=1.0, conversation_id=f"c{i}", messages=(("user", opening),))
        for i, opening in enumerate(openings)
    ]
    held_out = [example.held_out for example in trunk.featuriser().examples(thumbs)]
    prompts = [Prompt("elsewhere", (("user", o), ("assistant", "?"), ("user", "more")), (), 0.0) for o in openings]
    assert held_out == [is_held_out(prompt, 0.15) for prompt in prompts]
    assert 0 < sum(held_out) < 20


def test_comments_teach_nothing(trunk: Trunk) -> None:
    assert trunk.featuriser().examples([judgement("comment", [answer("hi")], text="nice")]) == []
    assert trunk.featuriser().examples([]) == []


def test_an_answer_is_featurised_once_while_the_cache_holds_it(trunk: Trunk) -> None:
    samples = [Sample((3, 4), (5, last)) for last in range(6, 10)]
    featuriser = trunk.featuriser(cache_size=3)
    first_BF = featuriser.features([*samples[:2], samples[0]])
    assert trunk.seen == samples[:2]
    torch.testing.assert_close(first_BF[0], first_BF[2])
    featuriser.features(samples[2:])  # samples[1], asked for longest ago, leaves
    trunk.seen.clear()
    torch.testing.assert_close(featuriser.features(samples[:2]), first_BF[:2])
    assert trunk.seen == samples[1:2]


@pytest.mark.slow
def test_cross_validation_scores_every_conversation_by_heads_that_did_not_see_it() -> None:
    learned = cross_validate(rankings(taste(0), 100, seed=0), RewardSettings(), folds=5)
    assert learned.pairs == 600
    assert learned.accuracy > 0.8
    chance = cross_validate(rankings(taste(0), 100, seed=0, noise=1.0), RewardSettings(), folds=5)
    assert abs(chance.accuracy - 0.5) < 4 * chance.accuracy_error
    with pytest.raises(ValueError, match="too few conversations"):
        cross_validate(rankings(taste(0), 1, seed=0), RewardSettings(), folds=5)
