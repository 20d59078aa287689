"""Sampling against a plain float64 reference and against the frequencies it must produce."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from server.engines.base import Sampling
from server.engines.sampling import draw, processed_logprobs


def reference(logits: list[float], sampling: Sampling) -> list[float]:
    """Straight from the definitions, one token at a time."""
    if sampling.temperature == 0:
        scaled, top_k, top_p = logits, 0, 1.0
    else:
        scaled, top_k, top_p = [x / sampling.temperature for x in logits], sampling.top_k, sampling.top_p
    order = sorted(range(len(scaled)), key=lambda i: -scaled[i])
    kept = order[:top_k] if top_k else order
    top = max(scaled)
    mass = sum(math.exp(scaled[i] - top) for i in kept)
    nucleus, reached = [], 0.0
    for i in kept:
        if top_p < 1 and reached >= top_p:
            break
        nucleus.append(i)
        reached += math.exp(scaled[i] - top) / mass
    total = math.log(sum(math.exp(scaled[i] - top) for i in nucleus)) + top
    return [scaled[i] - total if i in nucleus else -math.inf for i in range(len(scaled))]


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_p=st.sampled_from([0.11, 0.52, 0.93, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    max_tokens=st.just(1),
)
# Distinct by construction: between equal logits, which one top-k keeps is anyone's choice.
logits = st.lists(st.integers(-40, 40), min_size=4, max_size=12, unique=True).map(lambda xs: [x / 4 for x in xs])


@given(st.lists(samplings, min_size=1, max_size=4), logits)
def test_logprobs_equal_the_reference(rows: list[Sampling], values: list[float]) -> None:
    logits_BV = torch.tensor([values] * len(rows))
    expected = torch.tensor([reference(values, row) for row in rows])
    torch.testing.assert_close(processed_logprobs(logits_BV, rows), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits_BV, torch.tensor([values] * len(rows))), "the caller's logits were changed"


def test_draws_follow_the_distribution() -> None:
    logprobs_V = torch.tensor([0.5, 0.2, 0.0, 0.3]).log()
    grid = [(i + 0.5) / 10_000 for i in range(10_000)]
    one = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=1)
    ids = draw(logprobs_V.expand(len(grid), 4), [one] * len(grid), grid)
    counts = torch.bincount(ids, minlength=4).double() / len(grid)
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.2, 0.0, 0.3]).double(), atol=2e-4, rtol=0)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_draw_possible_tokens(uniform: float) -> None:
    logprobs_BV = torch.tensor([[-math.inf, 0.0, -math.inf]])
    one = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=1)
    assert draw(logprobs_BV, [one], [uniform]).tolist() == [1]
