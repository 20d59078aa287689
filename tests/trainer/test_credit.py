"""A response's score, spread over its tokens: prefixes are scored as if they were all that was said."""

from pathlib import Path

import pytest
import torch

from settings.ppo import LoraSettings
from trainer.backbone import Backbone
from trainer.credit import of_prefixes, potentials
from trainer.reward.features import AnswerPool, feature_dim
from trainer.reward.style import SIZE
from trainer.tokens import Sample

D, T = 6, 9


def test_the_features_of_prefixes_are_those_of_the_responses_cut_there() -> None:
    generator = torch.Generator().manual_seed(0)
    pool = AnswerPool(torch.rand(50, SIZE - 2, generator=generator))
    states = tuple(torch.randn(T, D, generator=generator) for _ in range(2))
    tokens = torch.randint(0, 50, (T,), generator=generator)
    prefixes_TF = pool.prefixes(states, tokens)
    assert prefixes_TF.shape == (T, feature_dim(D))
    for length in range(1, T + 1):
        mask_1T = (torch.arange(T) < length)[None]
        (features_F,) = pool(tuple(state[None] for state in states), tokens[None], mask_1T)
        torch.testing.assert_close(prefixes_TF[length - 1], features_F)


def test_every_prefix_gets_the_reward_it_would_get_as_a_response(tiny_model: Path) -> None:
    backbone = Backbone(tiny_model, LoraSettings(rank=4), dtype=torch.float32)
    taste_F = torch.randn(feature_dim(backbone.hidden_size), generator=torch.Generator().manual_seed(1))

    def reward(features_BF: torch.Tensor) -> torch.Tensor:
        return (features_BF @ taste_F).tanh()

    prompt = tuple(range(5, 12))
    samples = [Sample(prompt, (40, 41, 42, 43, 2)), Sample(prompt, (50, 51)), Sample((9, 8), (60, 61, 62))]
    pool = AnswerPool.of(backbone)
    _, found = of_prefixes(backbone, samples, pool, reward, temperature=1.0)
    for sample, reward_T in zip(samples, found, strict=True):
        cut = [Sample(sample.prompt_ids, sample.response_ids[:n]) for n in range(1, len(sample.response_ids) + 1)]
        torch.testing.assert_close(reward_T, reward(backbone.features(cut, pool)), rtol=1e-3, atol=1e-3)


def test_a_prefix_is_believed_in_proportion_to_its_length() -> None:
    short, long = potentials([torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])])
    assert short.tolist() == [0.25, 1.0], "of four tokens, which is the mean"
    assert long.tolist() == pytest.approx([0.25, 1.0, 2.25, 4.0, 5.0, 6.0])
