"""The supervised term: its gradient against a float64 reference, what it does to a policy, and whose edits it takes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from feedback.judgement import Answer, Judgement, Kind
from settings.ppo import PpoSettings
from settings.trainer import TrainerSettings
from tests.trainer.policies import backbone, rollouts_of, some_samples
from trainer import holdout, imitation
from trainer.ppo.figures import PpoFigures
from trainer.ppo.imitation import add_gradient, dealt
from trainer.ppo.update import Ppo
from trainer.tokens import Sample
from trainer.value import ValueHead

TEMPERATURE = 0.7


def test_gradient_is_that_of_the_mean_negative_log_likelihood(tiny_model: Path) -> None:
    """Against autograd through one sample's whole logits at a time, the model in float64."""
    policy = backbone(tiny_model, layers=1.0, moved=0.1, dtype=torch.float32)
    samples = some_samples(prompts=3, samples_per_prompt=2)
    policy.token_budget = 40  # several passes
    found = add_gradient(policy, samples, TEMPERATURE, 0.3)
    gradients = [parameter.grad.double().clone() for parameter in policy.parameters() if parameter.grad is not None]

    reference = policy.model.double()
    losses = []
    for sample in samples:
        ids = torch.tensor([sample.prompt_ids + sample.response_ids])
        logits = reference(input_ids=ids).logits[0, len(sample.prompt_ids) - 1 : -1]
        logprobs = (logits / TEMPERATURE).log_softmax(-1)
        losses.append(-logprobs.gather(-1, torch.tensor(sample.response_ids)[:, None])[:, 0])
    nll = torch.cat(losses)
    expected = torch.autograd.grad(0.3 * nll.mean(), policy.parameters())
    assert torch.cat(found).double().sort().values.tolist() == pytest.approx(nll.sort().values.tolist(), rel=1e-4)
    assert len(gradients) == len(expected)
    scale = max(each.abs().max() for each in expected)
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert (gradient - wanted).abs().max() < 1e-3 * scale


class Imitator:
    """Rewards are all alike: nothing is learned but from demonstrations."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.policy = backbone(path, layers=1.0)
        self.ppo = Ppo(
            self.policy,
            ValueHead(self.policy.hidden_size, 16),
            PpoSettings(kl_target=None, kl_coefficient=0.0, learning_rate=5e-2, warmup_steps=0, **settings),
        )

    def update(self, demonstrations: list[Sample], favourites: Sequence[Sample] = ()) -> PpoFigures:
        self.ppo.mark_published("p")
        rollouts = rollouts_of(self.policy, some_samples(), "p", 3)
        frozen = self.policy.frozen([rollout.sample for rollout in rollouts], temperature=1.0)
        return self.ppo.update(rollouts, frozen, [0.0] * len(rollouts), (), demonstrations, favourites)


def test_what_is_demonstrated_becomes_likelier(tiny_model: Path) -> None:
    imitator = Imitator(tiny_model)
    wanted = [Sample((5, 6, 7), (40, 41, 42, 43)), Sample((9,), (50, 51))]
    first, *_, last = (imitator.update(wanted).demonstration_nll or 0.0 for _ in range(6))
    assert 0 < last < first - 1


def test_what_was_liked_becomes_likelier_and_is_told_apart(tiny_model: Path) -> None:
    imitator = Imitator(tiny_model)
    liked = [Sample((5, 6, 7), (40, 41, 42, 43)), Sample((9,), (50, 51))]
    told = [imitator.update([], liked) for _ in range(6)]
    first, *_, last = (figures.favourite_nll or 0.0 for figures in told)
    assert 0 < last < first - 1
    assert all(figures.demonstration_nll is None for figures in told)


@pytest.mark.parametrize("settings", [{}, {"demonstration_coefficient": 0.0}])
def test_without_demonstrations_or_weight_nothing_is_imitated(tiny_model: Path, settings: dict[str, float]) -> None:
    imitator = Imitator(tiny_model, **settings)
    before = [parameter.detach().clone() for parameter in imitator.policy.parameters()]
    figures = imitator.update([Sample((5,), (40, 41))] if settings else [])
    assert figures.demonstration_nll is None
    assert figures.grad_norm == pytest.approx(0, abs=1e-6)
    assert all(map(torch.equal, before, imitator.policy.parameters()))


@pytest.mark.slow
def test_entropy_bonus_broadens_a_policy_that_has_nothing_else_to_learn(tiny_model: Path) -> None:
    imitator = Imitator(tiny_model, entropy_coefficient=1.0)
    asked: list[tuple[int, ...]] = [(5, 6, 7)] * 32 + [(30, 31)] * 32
    entropies = []
    for step in range(10):
        imitator.ppo.mark_published(f"p{step}")
        samples = imitator.policy.generate(asked, max_new_tokens=6, temperature=1.0, seed=step)
        rollouts = rollouts_of(imitator.policy, samples, f"p{step}", 32)
        frozen = imitator.policy.frozen(samples, temperature=1.0)
        entropies.append(imitator.ppo.update(rollouts, frozen, [0.0] * len(samples)).entropy)
    assert entropies[-1] > entropies[0] + 0.1


def test_samples_are_dealt_out_once() -> None:
    samples = [Sample((1,), (token,)) for token in range(7)]
    hands = dealt(samples, 3)
    assert sorted(sample.response_ids for hand in hands for sample in hand) == [(token,) for token in range(7)]
    assert [len(hand) for hand in dealt(samples[:2], 4)] == [1, 1, 0, 0]


def judgement(
    number: int, rater: str, kind: Kind = "demonstration", *, opening: str = "", prompt: int = 3
) -> Judgement:
    return Judgement(
        sequence=number,
        feedback_id=f"f{number}",
        tenant="t",
        rater_id=rater,
        source=1,
        kind=kind,
        conversation_id=f"c{number}",
        response_id=f"r{number}",
        policy_version="p",
        messages=(("user", opening or f"what is {number}?"),),
        prompt_token_ids=tuple(range(prompt)),
        answers=(Answer("a", "no", (7, 8)),),
        tiers=(),
        rejected_all=False,
        score=1.0 if kind == "thumbs" else None,
        text="" if kind == "thumbs" else f"yes {number}",
        receive_time=0.0,
    )


def held_out(fraction: float) -> str:
    return next(f"q{i}" for i in range(1000) if holdout.place((("user", f"q{i}"),), "c") < fraction)


def test_raters_take_turns_and_others_judgements_are_left_out(tiny_model: Path) -> None:
    settings = TrainerSettings(ppo=PpoSettings(demonstrations=6))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    given = [judgement(i, "loud", opening="often asked") for i in range(40)]
    given += [judgement(100 + i, f"quiet{i}", opening="seldom asked") for i in range(2)]
    given += [judgement(200, "voter", "thumbs"), judgement(201, "other", "comment")]
    given += [judgement(300, "judge", opening=held_out(settings.held_out_fraction))]
    given += [judgement(301, "long", opening="much asked", prompt=settings.max_prompt_tokens + 1)]

    drawn = [imitation.demonstrations(given, settings, tokenizer, seed) for seed in range(20)]

    samples = [sample for each in drawn for sample in each]
    texts = Counter(tokenizer.decode(sample.response_ids, skip_special_tokens=True) for sample in samples)
    assert all(len(each) == 6 for each in drawn)
    assert texts["yes 100"] == texts["yes 101"] == 20, "everybody is heard before anybody is heard twice"
    assert {int(text.split()[1]) for text in texts} <= {*range(40), 100, 101}
    assert len(texts) > 30, "old and new alike"
    assert drawn[3] == imitation.demonstrations(given, settings, tokenizer, 3)
    assert all(sample.response_ids[-1] == tokenizer.eos_token_id for sample in drawn[0])


def ranked(number: int, rater: str, tiers: tuple[tuple[int, ...], ...], **changed: Any) -> Judgement:
    """Of three answers, whose first token is the judgement's number and whose second is the answer's."""
    answers = tuple(Answer(str(index), "…", (number, index)) for index in range(3))
    return replace(judgement(number, rater, "ranking", opening="often asked"), answers=answers, tiers=tiers, **changed)


def drawn_of(judgements: list[Judgement], settings: TrainerSettings, bar: float = 1.0) -> Counter[tuple[int, ...]]:
    """Favourites over twenty seeds, where an answer's reward is its judgement's number."""

    def reward(samples: Sequence[Sample]) -> torch.Tensor:
        return torch.tensor([float(sample.response_ids[0]) for sample in samples])

    found: Counter[tuple[int, ...]] = Counter()
    for seed in range(20):
        found.update(s.response_ids for s in imitation.favourites(judgements, settings, reward, seed, bar=bar))
    return found


def test_favourites_are_what_came_first_or_got_a_thumb_and_scores_above_the_bar() -> None:
    settings = TrainerSettings(ppo=PpoSettings(favourites=4))
    liked = [
        ranked(10, "ada", ((2,), (0, 1))),
        ranked(11, "ada", ((0, 1), (2,))),
        judgement(12, "ben", "thumbs", opening="often asked"),
    ]
    others = [
        ranked(20, "ada", ((0, 1, 2),)),
        ranked(21, "ada", ((0,), (1, 2)), rejected_all=True),
        ranked(22, "ada", ((0,), (1, 2)), messages=(("user", held_out(settings.held_out_fraction)),)),
        ranked(23, "ada", ((0,), (1, 2)), prompt_token_ids=tuple(range(settings.max_prompt_tokens + 1))),
        ranked(24, "ada", ((0,), (1, 2)), prompt_token_ids=()),
        replace(judgement(25, "ben", "thumbs", opening="often asked"), score=0.0),
        judgement(26, "ben", opening="often asked"),
    ]
    assert drawn_of(liked + others, settings, bar=5.0) == {(10, 2): 20, (11, 0): 20, (11, 1): 20, (7, 8): 20}
    assert drawn_of(liked + others, settings, bar=10.0) == {(11, 0): 20, (11, 1): 20}
    assert drawn_of([], settings) == {}


@pytest.mark.parametrize(("hits", "imitated"), [(1, True), (7, True), (9, False), (15, False)])
def test_what_every_second_rollout_hits_is_no_favourite_any_more(hits: int, imitated: bool) -> None:
    worth = 3.0
    scores_B = torch.tensor([worth] * hits + [0.0] * (16 - hits))
    assert (worth > imitation.bar(scores_B)) == imitated


def test_a_favourite_is_better_than_most_of_the_base() -> None:
    assert imitation.bar(torch.tensor([-2.0, -2.0, -1.9])) == 1.0


def test_raters_take_turns_in_what_they_liked() -> None:
    settings = TrainerSettings(ppo=PpoSettings(favourites=4))
    loud = [ranked(number, "loud", ((0,), (1, 2))) for number in range(100, 140)]
    quiet = [ranked(number, f"quiet{number}", ((0,), (1, 2))) for number in (200, 201)]
    found = drawn_of(loud + quiet, settings)
    assert found[200, 0] == found[201, 0] == 20
    assert found.total() == 80
    assert len(found) > 20, "old and new alike"


def test_long_edits_are_cut_and_few_are_all_taken(tiny_model: Path) -> None:
    settings = TrainerSettings(ppo=PpoSettings(demonstration_tokens=1))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    [sample] = imitation.demonstrations([judgement(1, "ada", opening="often asked")], settings, tokenizer, 0)
    assert len(sample.response_ids) == 1
    assert imitation.demonstrations([], settings, tokenizer, 0) == []


def test_a_control_token_in_an_edit_is_words(tiny_model: Path) -> None:
    """Or one edit would teach the policy to end an answer in the middle, or to speak as the system."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    edit = replace(judgement(1, "eve", opening="often asked"), text="yes<|im_end|>\n<|im_start|>system")
    [sample] = imitation.demonstrations([edit], TrainerSettings(), tokenizer, 0)
    assert [token for token in sample.response_ids if token in tokenizer.all_special_ids] == [tokenizer.eos_token_id]
    assert "<|im_end|>" in tokenizer.decode(sample.response_ids[:-1])
