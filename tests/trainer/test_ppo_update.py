"""Whole updates: what is learned, from which logprobs, and that a resumed run is the same run."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from settings.ppo import PpoSettings
from tests.trainer.policies import backbone, rollouts_of, some_samples
from trainer.backbone import Backbone
from trainer.ppo.figures import PpoFigures
from trainer.ppo.update import Ppo, StaleRollouts
from trainer.tokens import IN_TRAINING, Rollout, Sample
from trainer.value import ValueHead

FIXED_KL = {"kl_target": None, "kl_coefficient": 0.01}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order: figures are then the same to the bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Trainee:
    """A policy, its critic and PPO over them; `scores` prefers tokens below 128."""

    def __init__(self, path: Path, *, moved: float = 0.0, seed: int = 0, **settings: object) -> None:
        self.policy: Backbone = backbone(path, layers=1.0, moved=moved)
        self.value = ValueHead(self.policy.hidden_size, 32)
        self.ppo = Ppo(self.policy, self.value, PpoSettings(**{**FIXED_KL, **settings}), seed=seed)

    def rollouts(self, version: str, *, seed: int = 0, samples_per_prompt: int = 16) -> list[Rollout]:
        prompts = [(5, 6, 7), (30, 31), (50,), (9, 8, 7, 6)]
        asked = [prompt for prompt in prompts for _ in range(samples_per_prompt)]
        samples = self.policy.generate(asked, max_new_tokens=8, temperature=1.0, seed=seed)
        return rollouts_of(self.policy, samples, version, samples_per_prompt)

    def update(self, rollouts: list[Rollout]) -> PpoFigures:
        frozen = self.policy.frozen([rollout.sample for rollout in rollouts], temperature=1.0)
        return self.ppo.update(rollouts, frozen, [score(rollout.sample) for rollout in rollouts])

    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in (*self.policy.parameters(), *self.value.parameters())]


def score(sample: Sample) -> float:
    ids = sample.response_ids
    return 6 * (sum(token < 128 for token in ids) / len(ids) - 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["gae", "rloo"])
def test_the_policy_comes_to_do_what_is_rewarded(tiny_model: Path, estimator: str) -> None:
    trainee = Trainee(tiny_model, estimator=estimator, learning_rate=1e-2, epochs=1, minibatches=2)
    scores, kls = [], []
    for iteration in range(10):
        trainee.ppo.mark_published(f"p{iteration}")
        figures = trainee.update(trainee.rollouts(f"p{iteration}", seed=iteration))
        scores.append(figures.score)
        kls.append(figures.kl)
    assert np.mean(scores[-3:]) > np.mean(scores[:3]) + 1, "scores have deviation 1 at first"
    assert kls[0] == pytest.approx(0, abs=1e-3)
    assert kls[-1] > 1


def test_first_step_follows_the_gradient_of_the_textbook(tiny_model: Path) -> None:
    """grad_norm against autograd through the whole logits, with advantages computed in numpy."""
    trainee = Trainee(tiny_model, moved=0.1, epochs=1, minibatches=1, kl_coefficient=0.1, gae_lambda=0.9)
    rollouts = rollouts_of(trainee.policy, some_samples(), "p", 3)
    trainee.ppo.mark_published("p")

    model, losses, returns, tokens = trainee.policy.model, [], [], 0
    log_ratios, chosen = [], []
    for rollout in rollouts:
        prompt, response = rollout.sample.prompt_ids, torch.tensor(rollout.sample.response_ids)
        logits = model(input_ids=torch.tensor([prompt + rollout.sample.response_ids])).logits[0, len(prompt) - 1 : -1]
        logprobs = torch.log_softmax(logits, -1).gather(-1, response[:, None]).squeeze(-1)
        with torch.no_grad(), model.disable_adapter():
            base = model(input_ids=torch.tensor([prompt + rollout.sample.response_ids])).logits[0, len(prompt) - 1 : -1]
        reference = torch.log_softmax(base, -1).gather(-1, response[:, None]).squeeze(-1)
        log_ratio = (logprobs - reference).detach().double().numpy()
        rewards = -0.1 * log_ratio
        rewards[-1] += score(rollout.sample)
        discounts = 0.9 ** np.arange(len(rewards))  # the critic starts at zero, so δ = r
        returns.append([(rewards[t:] * discounts[: len(rewards) - t]).sum() for t in range(len(rewards))])
        chosen.append(logprobs)
        log_ratios.append(log_ratio.sum())
        tokens += len(rewards)
    flat = np.concatenate(returns)
    for logprobs, advantage in zip(chosen, returns, strict=True):
        whitened = torch.tensor((np.array(advantage) - flat.mean()) / flat.std()).float()
        losses.append(-(logprobs * whitened).sum() / tokens)
    gradient = torch.autograd.grad(torch.stack(losses).sum(), trainee.policy.parameters())

    figures = trainee.update(rollouts)

    assert figures.grad_norm == pytest.approx(torch.cat([g.flatten() for g in gradient]).norm().item(), rel=1e-3)
    assert figures.kl == pytest.approx(np.mean(log_ratios), rel=1e-3)
    assert figures.policy_loss == pytest.approx(0, abs=1e-5), "whitened, and the ratio is 1"
    assert figures.length == pytest.approx(tokens / len(rollouts))


def test_a_resumed_run_is_the_same_to_the_bit(tiny_model: Path, tmp_path: Path) -> None:
    straight = Trainee(tiny_model, kl_target=2.0, kl_coefficient=0.1)
    straight.update(straight.rollouts("p", seed=0))
    straight.ppo.next_stride()
    straight.policy.save_adapter(tmp_path)
    value, ppo = copy.deepcopy(straight.value.state_dict()), copy.deepcopy(straight.ppo.state_dict())

    resumed = Trainee(tiny_model, moved=0.3, seed=99, kl_target=2.0, kl_coefficient=0.7)
    resumed.policy.load_adapter(tmp_path)
    resumed.value.load_state_dict(value)
    resumed.ppo.load_state_dict(ppo)

    figures = [trainee.update(trainee.rollouts("q", seed=1)) for trainee in (straight, resumed)]
    assert figures[0] == figures[1]
    assert all(torch.equal(a, b) for a, b in zip(straight.weights(), resumed.weights(), strict=True))
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            straight.ppo.state_dict()["policy_optimizer"]["state"][0].values(),
            resumed.ppo.state_dict()["policy_optimizer"]["state"][0].values(),
            strict=True,
        )
    )


def test_after_a_refusal_steps_are_half_as_long_until_a_version_is_served(tiny_model: Path) -> None:
    """Adam's first step is of the learning rate, whatever the gradient, where that is not about 0."""

    def flat(trainee: Trainee) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in trainee.policy.parameters()])

    def moved(refusals: int, served: bool = False) -> torch.Tensor:
        trainee = Trainee(tiny_model, epochs=1, minibatches=1, warmup_steps=0)
        for _ in range(refusals):
            trainee.ppo.next_stride()
        if served:
            trainee.ppo.mark_published("p")
        before = flat(trainee)
        trainee.update(trainee.rollouts("p"))
        return flat(trainee) - before

    whole = moved(0)
    assert whole.abs().max() == pytest.approx(PpoSettings().learning_rate, rel=0.01)
    for refusals, share in ((1, 1 / 2), (2, 1 / 4), (3, 1 / 8), (4, 1), (5, 1 / 2)):
        torch.testing.assert_close(moved(refusals), share * whole, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(moved(2, served=True), whole)


def shifted(rollout: Rollout, nats: float) -> Rollout:
    """As if the sampler had found its tokens less likely."""
    return replace(rollout, behaviour_logprobs=tuple(logprob - nats for logprob in rollout.behaviour_logprobs))


def test_tokens_of_the_current_version_stand_on_the_engines_logprobs(tiny_model: Path) -> None:
    trainee = Trainee(tiny_model, epochs=1, minibatches=1)
    trainee.ppo.mark_published("p0")
    figures = trainee.update([shifted(rollout, 0.1) for rollout in trainee.rollouts("p0")])
    assert figures.importance_mean == 1
    assert figures.stale == 0
    assert figures.ratio_mean == pytest.approx(np.exp(0.1), rel=1e-3)
    assert figures.sampler_gap == pytest.approx(0.1, rel=1e-3)
    assert figures.kl == pytest.approx(-0.1 * figures.length, rel=1e-2)


def test_what_the_trainee_draws_itself_is_current_after_any_number_of_updates(tiny_model: Path) -> None:
    trainee = Trainee(tiny_model, max_staleness=0, epochs=1, minibatches=1)
    trainee.ppo.mark_published("p0")
    for seed in range(3):
        figures = trainee.update([shifted(rollout, 0.1) for rollout in trainee.rollouts(IN_TRAINING, seed=seed)])
        assert (figures.stale, figures.importance_mean, figures.dropped) == (0, 1, 0)
        assert figures.sampler_gap == pytest.approx(0.1, rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(("nats", "weight"), [(0.1, np.exp(0.1)), (-0.1, np.exp(-0.1)), (1.5, 2.0)])
def test_other_tokens_are_recomputed_and_weighted(tiny_model: Path, nats: float, weight: float) -> None:
    trainee = Trainee(tiny_model, epochs=1, minibatches=1, importance_cap=2.0)
    trainee.ppo.mark_published("p1")
    figures = trainee.update([shifted(rollout, nats) for rollout in trainee.rollouts("p0")])
    assert figures.stale == 1
    assert figures.importance_mean == pytest.approx(weight, rel=1e-3)
    assert figures.ratio_mean == pytest.approx(1, rel=1e-4), "against the proximal policy, not the sampler"
    assert figures.kl == pytest.approx(0, abs=1e-3)


def test_a_swap_in_mid_response_is_corrected_from_there_on(tiny_model: Path) -> None:
    trainee = Trainee(tiny_model, epochs=1, minibatches=1)
    trainee.ppo.mark_published("new")
    rollouts = []
    for rollout in trainee.rollouts("new"):
        third = len(rollout.policy_version) // 3
        versions = ("old",) * third + ("new",) * (len(rollout.policy_version) - third)
        rollouts.append(replace(shifted(rollout, 0.1), policy_version=versions))
    figures = trainee.update(rollouts)
    assert 0.2 < figures.stale < 0.34
    expected = figures.stale * np.exp(0.1) + (1 - figures.stale)
    assert figures.importance_mean == pytest.approx(expected, rel=1e-3)


def test_the_staleness_bound(tiny_model: Path) -> None:
    trainee = Trainee(tiny_model, max_staleness=1, epochs=1, minibatches=1)
    trainee.ppo.mark_published("p0")
    old = trainee.rollouts("p0", samples_per_prompt=2)
    assert trainee.update(old).dropped == 0
    assert trainee.update(old).dropped == 0
    trainee.ppo.mark_published("p2")
    with pytest.raises(StaleRollouts, match="all 8 rollouts are over max_staleness=1"):
        trainee.update(old)
    fresh = trainee.rollouts("p2", samples_per_prompt=2)
    assert trainee.update(old + fresh).dropped == 8


def test_missing_eos_penalty_and_adaptive_kl_reach_the_update(tiny_model: Path) -> None:
    trainee = Trainee(tiny_model, moved=0.2, kl_target=0.5, kl_coefficient=0.1, kl_horizon=64.0)
    rollouts = trainee.rollouts("p")
    figures = trainee.update(rollouts)
    assert figures.kl > 0.6
    assert figures.kl_coefficient == pytest.approx(0.1)
    assert trainee.ppo.state_dict()["kl_coefficient"] == pytest.approx(0.1 * 1.2)
    assert figures.stopped == sum(rollout.finish_reason == "stop" for rollout in rollouts) / len(rollouts)


@pytest.mark.parametrize("case", ["none", "temperatures"])
def test_unusable_rollouts_are_refused(tiny_model: Path, case: str) -> None:
    trainee = Trainee(tiny_model)
    rollouts = trainee.rollouts("p", samples_per_prompt=1) if case == "temperatures" else []
    if rollouts:
        rollouts[0] = replace(rollouts[0], temperature=0.5)
    with pytest.raises(ValueError, match="temperatures" if rollouts else "no rollouts"):
        trainee.update(rollouts)


def test_a_rollout_has_one_logprob_and_version_a_token() -> None:
    with pytest.raises(ValueError, match="behaviour_logprobs has 1 entries for 2 response tokens"):
        Rollout(Sample((1,), (2, 3)), "", (-1.0,), "stop", ("p", "p"), 1.0, 0)
