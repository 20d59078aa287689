"""Every formula of PPO against an independent float64 numpy reference, written from the papers with plain loops."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.gradients import gradient
from trainer.ppo.gae import gae
from trainer.ppo.kl_controller import KlController
from trainer.ppo.losses import importance_weights, policy_loss, value_loss
from trainer.ppo.rewards import penalise_missing_eos, token_rewards
from trainer.ppo.rloo import rloo
from trainer.ppo.whitening import whiten
from trainer.tokens import Rollout, Sample

B, T = 5, 9


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def lengths(rng: np.random.Generator) -> np.ndarray:
    lengths = rng.integers(1, T + 1, B)
    lengths[0], lengths[1] = 1, T
    return lengths


@pytest.fixture
def mask(lengths: np.ndarray) -> np.ndarray:
    return np.arange(T) < lengths[:, None]


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


@pytest.mark.parametrize(("discount", "gae_lambda"), [(1.0, 0.95), (0.9, 0.5), (1.0, 0.0), (1.0, 1.0)])
def test_gae_is_the_discounted_sum_of_td_errors(
    rng: np.random.Generator, lengths: np.ndarray, mask: np.ndarray, discount: float, gae_lambda: float
) -> None:
    # Garbage past the end must not reach the advantages: all of both arrays is random.
    rewards, values = rng.normal(size=(B, T)), rng.normal(size=(B, T))
    expected = np.zeros((B, T))
    for b, length in enumerate(lengths):
        following = [*values[b, 1:length], 0.0]
        deltas = [rewards[b, t] + discount * following[t] - values[b, t] for t in range(length)]
        for t in range(length):
            expected[b, t] = sum((discount * gae_lambda) ** k * deltas[t + k] for k in range(length - t))

    advantages, returns = gae(tensor(rewards), tensor(values), tensor(mask), discount, gae_lambda)

    np.testing.assert_allclose(advantages.numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(returns.numpy(), expected + values * mask, rtol=1e-12, atol=1e-12)


def test_with_lambda_one_the_return_is_the_reward_to_go(rng: np.random.Generator, mask: np.ndarray) -> None:
    rewards, values = rng.normal(size=(B, T)) * mask, rng.normal(size=(B, T))
    _, returns = gae(tensor(rewards), tensor(values), tensor(mask), 1.0, 1.0)
    np.testing.assert_allclose(returns.numpy(), rewards[:, ::-1].cumsum(1)[:, ::-1] * mask, atol=1e-12)


def test_rloo_compares_with_the_others_of_the_same_prompt(rng: np.random.Generator, mask: np.ndarray) -> None:
    rewards, groups = rng.normal(size=(B, T)), [3, 8, 3, 3, 5]
    totals = [rewards[b][mask[b]].sum() for b in range(B)]
    expected = np.zeros((B, T))
    for b in range(B):
        others = [totals[o] for o in range(B) if o != b and groups[o] == groups[b]]
        if others:
            expected[b, mask[b]] = totals[b] - np.mean(others)

    advantages = rloo(tensor(rewards), tensor(mask), groups)

    np.testing.assert_allclose(advantages.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert (advantages[[1, 4]] == 0).all(), "alone in its group: nothing to compare with"


def test_whitening_takes_its_moments_from_the_mask_alone(rng: np.random.Generator, mask: np.ndarray) -> None:
    values = rng.normal(3, 2, size=(B, T))
    values[~mask] = 1e6
    inside = values[mask]
    whitened = whiten(tensor(values), tensor(mask)).numpy()
    np.testing.assert_allclose(whitened[mask], (inside - inside.mean()) / inside.std(), rtol=1e-8)
    assert (whitened[~mask] == 0).all()


def test_whitening_of_equal_advantages_is_zero(mask: np.ndarray) -> None:
    assert (whiten(torch.full((B, T), 0.3, dtype=torch.float64), tensor(mask)).abs() < 1e-6).all()


def test_reward_is_minus_beta_kl_a_token_and_the_score_at_the_end(
    rng: np.random.Generator, lengths: np.ndarray, mask: np.ndarray
) -> None:
    logprobs, reference, scores = rng.normal(size=(B, T)), rng.normal(size=(B, T)), rng.normal(size=B)
    expected = np.zeros((B, T))
    for b, length in enumerate(lengths):
        for t in range(length):
            expected[b, t] = -0.07 * (logprobs[b, t] - reference[b, t])
        expected[b, length - 1] += scores[b]

    rewards = token_rewards(tensor(scores), tensor(logprobs), tensor(reference), tensor(mask), 0.07)

    np.testing.assert_allclose(rewards.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_potentials_spread_the_score_and_change_nothing_in_sum(
    rng: np.random.Generator, lengths: np.ndarray, mask: np.ndarray
) -> None:
    scores, potentials = rng.normal(size=B), rng.normal(size=(B, T))
    zeros = np.zeros((B, T))
    expected = np.zeros((B, T))
    for b, length in enumerate(lengths):
        known = [0.0, *potentials[b, : length - 1], scores[b]]
        expected[b, :length] = np.diff(known)

    rewards = token_rewards(tensor(scores), tensor(zeros), tensor(zeros), tensor(mask), 0.07, tensor(potentials))

    np.testing.assert_allclose(rewards.numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(rewards.sum(1).numpy(), scores, rtol=1e-12)


def test_missing_eos_costs_only_what_was_cut() -> None:
    def rollout(finish_reason: Literal["stop", "length"]) -> Rollout:
        return Rollout(Sample((1,), (2,)), "", (-1.0,), finish_reason, ("p",), 1.0, 0)

    scores = penalise_missing_eos([0.5, 0.5], [rollout("stop"), rollout("length")], 1.0)
    assert scores.tolist() == [0.5, -0.5]


@pytest.mark.parametrize("dual_clip", [None, 3.0])
def test_policy_loss_and_its_gradient(rng: np.random.Generator, dual_clip: float | None) -> None:
    size, clip = 400, 0.2
    new, old = rng.normal(-2, 1, size), rng.normal(-2, 1, size)
    advantages, weights = rng.normal(size=size), rng.uniform(0.1, 2, size)

    def reference(logprob: float, b: int) -> float:
        ratio, a = math.exp(logprob - old[b]), advantages[b]
        surrogate = min(ratio * a, min(max(ratio, 1 - clip), 1 + clip) * a)
        if dual_clip is not None and a < 0:
            surrogate = max(surrogate, dual_clip * a)
        return float(-weights[b] * surrogate)

    logprobs = tensor(new).requires_grad_()
    losses, clipped = policy_loss(logprobs, tensor(old), tensor(advantages), tensor(weights), clip, dual_clip)
    losses.sum().backward()

    np.testing.assert_allclose(losses.detach().numpy(), [reference(new[b], b) for b in range(size)], rtol=1e-10)
    step = 1e-6
    differences = [(reference(new[b] + step, b) - reference(new[b] - step, b)) / (2 * step) for b in range(size)]
    np.testing.assert_allclose(gradient(logprobs).numpy(), differences, rtol=1e-5, atol=1e-7)
    assert (clipped.numpy() == (np.array(differences) == 0)).all(), "clipped says where there is no gradient"
    assert 0 < clipped.sum() < size


def test_importance_weights_are_capped() -> None:
    proximal, behaviour = np.array([-1.0, -1.0, -3.0]), np.array([-1.0, -4.0, -1.0])
    weights = importance_weights(tensor(proximal), tensor(behaviour), 2.0)
    np.testing.assert_allclose(weights.numpy(), [1.0, 2.0, math.exp(-2.0)])


def test_value_loss_and_its_gradient(rng: np.random.Generator) -> None:
    size, clip = 400, 0.2
    values, old, returns = rng.normal(size=size), rng.normal(size=size), rng.normal(size=size)

    def reference(value: float, b: int) -> float:
        near = old[b] + min(max(value - old[b], -clip), clip)
        return float(0.5 * max((value - returns[b]) ** 2, (near - returns[b]) ** 2))

    prediction = tensor(values).requires_grad_()
    losses = value_loss(prediction, tensor(old), tensor(returns), clip)
    losses.sum().backward()

    np.testing.assert_allclose(losses.detach().numpy(), [reference(values[b], b) for b in range(size)], rtol=1e-12)
    step = 1e-6
    differences = [(reference(values[b] + step, b) - reference(values[b] - step, b)) / (2 * step) for b in range(size)]
    np.testing.assert_allclose(gradient(prediction).numpy(), differences, rtol=1e-5, atol=1e-7)


@given(st.floats(0, 1000), st.integers(1, 512), st.floats(1e-4, 1))
def test_kl_controller_steers_towards_its_target(kl: float, responses: int, coefficient: float) -> None:
    controller = KlController(coefficient, target=6.0, horizon=10_000)
    controller.update(kl, responses)
    error = np.clip(kl / 6.0 - 1, -0.2, 0.2)
    assert controller.coefficient == pytest.approx(coefficient * (1 + error * responses / 10_000), rel=1e-12)


def test_kl_controller_does_not_fall_asleep_on_the_way_to_its_target() -> None:
    controller = KlController(0.1, target=8.0, horizon=32, least=0.1)
    for kl in (0.1, 0.5, 2.0, 5.0):
        controller.update(kl, 32)
        assert controller.coefficient == 0.1
    controller.update(16.0, 32)
    assert controller.coefficient == pytest.approx(0.12)


def test_kl_controller_without_target_stands_still() -> None:
    controller = KlController(0.05, target=None, horizon=100)
    controller.update(1e3, 64)
    assert controller.coefficient == 0.05
