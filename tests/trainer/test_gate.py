"""The gate over real policies: what it draws, what it remembers, and whom it looks at."""

from itertools import count
from pathlib import Path

import pytest
import torch

from feedback.judgement import Prompt
from settings.gate import GateSettings
from settings.rules import Constitution
from tests.trainer.policies import backbone
from tests.trainer.test_gate_report import first_feature
from trainer.backbone import Backbone
from trainer.evaluation import Evaluation
from trainer.gate import Gate
from trainer.gate_report import Report
from trainer.prompts import PromptPool
from trainer.reward import AnswerPool
from trainer.rules import Rules


class Counted(Gate):
    """How many answers were drawn."""

    drawn = 0

    def _answers(self):  # type: ignore[no-untyped-def]
        self.drawn += len(self._prompts)
        return super()._answers()


def pool(*openings: str) -> PromptPool:
    return PromptPool((), tuple(Prompt(name, (("user", name),), (5, 6, 7 + len(name)), 0.0) for name in openings))


def gate_over(policy: Backbone, tmp_path: Path, **settings: float) -> Counted:
    policy.save_adapter(tmp_path / "base")
    rules = Rules(Constitution(), policy.tokenizer)
    limits = GateSettings.model_validate({"prompts": 4, "max_new_tokens": 4, **settings})
    return Counted(policy, AnswerPool.of(policy), rules, limits, tmp_path / "base", tmp_path, temperature=1.0, seed=0)


def test_only_the_candidates_answers_are_drawn_while_prompts_and_active_version_stay(
    tiny_model: Path, tmp_path: Path
) -> None:
    policy = backbone(tiny_model)
    gate = gate_over(policy, tmp_path)
    base, asked = tmp_path / "base", pool("a", "bb", "ccc", "dddd")

    candidates = count(1)

    def examine(asked: PromptPool, active: str, adapter: Path) -> tuple[int, Report, Evaluation]:
        before = gate.drawn
        report, found = gate.examine(
            asked, first_feature, candidate=next(candidates), active=active, active_adapter=adapter
        )
        return gate.drawn - before, report, found

    drawn, report, _ = examine(asked, "p0", base)
    assert drawn == 2 * 4, "the base model's, which is the active version, and the candidate's"
    assert report.win_rate == 0.5, "the same policy from the same seed"
    assert {check.name: check.figure for check in report.checks}["base_perplexity"] == pytest.approx(1, abs=1e-4)

    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    policy.save_adapter(tmp_path / "moved")
    more = pool("a", "bb", "ccc", "dddd", "eeeee", "ffffff")
    drawn, report, candidate = examine(more, "p0", base)
    assert drawn == 4, "others were asked meanwhile, and the same prompts do"
    gate.promoted("p1")
    drawn, report, again = examine(more, "p1", tmp_path / "moved")
    assert drawn == 4
    assert again.samples == candidate.samples
    assert report.win_rate == 0.5
    assert examine(more, "p0", base)[0] == 4, "rolled back to the base, whose answers are known"
    assert examine(more, "p1", tmp_path / "moved")[0] == 8, "an operator's word"
    assert examine(pool("eeeee", "ffffff", "a", "bb"), "p1", tmp_path / "moved")[0] == 12, "a prompt was withdrawn"


def test_prompts_change_when_they_are_due(tiny_model: Path, tmp_path: Path) -> None:
    gate = gate_over(backbone(tiny_model), tmp_path, fresh_prompts_every=2)
    few, more = pool("a", "bb", "ccc", "dddd"), pool(*(letter * 3 + "x" * n for n, letter in enumerate("abcdefgh")))
    both = PromptPool((), few.held_out + more.held_out)
    drawn = []
    for candidate, asked in enumerate((few, few, both, both), start=1):
        before = gate.drawn
        gate.examine(asked, first_feature, candidate=candidate, active="p0", active_adapter=tmp_path / "base")
        drawn.append(gate.drawn - before)
    assert drawn == [8, 4, 8, 4]


def test_after_a_restart_the_same_is_asked(tiny_model: Path, tmp_path: Path) -> None:
    few = pool("a", "bb", "ccc", "dddd")
    more = PromptPool((), pool("eeeee", "ffffff", "ggggggg", "hhhhhhhh").held_out + few.held_out)

    def asked(gate: Counted, asked: PromptPool, candidate: int) -> tuple[str, ...]:
        gate.examine(asked, first_feature, candidate=candidate, active="p0", active_adapter=tmp_path / "base")
        return gate.asked

    gate = gate_over(backbone(tiny_model), tmp_path, fresh_prompts_every=2)
    first = asked(gate, few, 1)
    again = gate_over(backbone(tiny_model), tmp_path, fresh_prompts_every=2)
    again.remember(last=gate.last, gates=gate.gates, asked=gate.asked)
    assert asked(again, more, 1) == first, "the same candidate, whose answers were lost"
    assert asked(again, more, 2) == first
    assert asked(again, more, 3) != first, "due to change"
    forgetful = gate_over(backbone(tiny_model), tmp_path, fresh_prompts_every=2)
    assert asked(forgetful, more, 1) != first


def test_a_candidate_examined_ahead_is_judged_by_the_reward_model_of_later(tiny_model: Path, tmp_path: Path) -> None:
    policy = backbone(tiny_model)
    gate = gate_over(policy, tmp_path, fresh_prompts_every=1)
    asked, base = pool("a", "bb", "ccc", "dddd"), tmp_path / "base"
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    assert not gate.knows(7)
    ahead, found = gate.examine(asked, first_feature, candidate=7, active="p0", active_adapter=base)
    assert gate.knows(7)
    drawn = gate.drawn
    later, again = gate.examine(
        asked, lambda answers: -first_feature(answers), candidate=7, active="p0", active_adapter=base
    )
    assert gate.drawn == drawn
    assert again is found
    assert later.win_rate == pytest.approx(1 - ahead.win_rate)
    withdrawn = pool("bb", "ccc", "dddd", "eeeee")
    _, fresh = gate.examine(withdrawn, first_feature, candidate=7, active="p0", active_adapter=base)
    assert gate.drawn == drawn + 8, "nothing of a prompt that was withdrawn meanwhile is kept"
    assert fresh.samples != found.samples


def test_the_active_version_itself_may_have_drifted_too_far(tiny_model: Path, tmp_path: Path) -> None:
    """Each bound on its own, as it answers what is asked now; what was seen of it as a candidate is remembered."""
    asked, base = pool("a", "bb", "ccc", "dddd"), tmp_path / "base"
    far = backbone(tiny_model, moved=0.2)
    far.save_adapter(tmp_path / "far")

    def beyond(active: Path, **bounds: float) -> bool:
        gate = gate_over(backbone(tiny_model), tmp_path, max_new_tokens=16, **bounds)
        gate.examine(asked, first_feature, candidate=1, active="p1", active_adapter=active)
        return gate.active_is_beyond

    assert not beyond(tmp_path / "far", max_kl_nats=1e3, max_base_perplexity=1e9, min_reference_distinct_2=0.0)
    assert beyond(tmp_path / "far", max_kl_nats=0.5, max_base_perplexity=1e9, min_reference_distinct_2=0.0)
    assert beyond(tmp_path / "far", max_kl_nats=1e3, max_base_perplexity=1.01, min_reference_distinct_2=0.0)
    assert not beyond(base, max_kl_nats=0.5, max_base_perplexity=1.01)

    gate = gate_over(policy := backbone(tiny_model), tmp_path, max_new_tokens=16, max_base_perplexity=1.05)
    policy.load_adapter(tmp_path / "far")
    gate.examine(asked, first_feature, candidate=1, active="p0", active_adapter=base)
    gate.promoted("p1")
    gate.examine(asked, first_feature, candidate=2, active="p1", active_adapter=tmp_path / "unread")
    assert not gate.active_is_beyond, "it was led back"
