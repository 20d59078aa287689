"""Policy → version: judged at the gate, and published if users may see it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path

from torch import Tensor

from feedback.store import PreferenceStore
from registry import ActiveChanged, Registry
from settings.trainer import TrainerSettings
from trainer import metrics, prompts, publish
from trainer.checkpoint import Progress
from trainer.evaluation import Evaluation
from trainer.gate import Gate
from trainer.gate_report import Report, Verdict
from trainer.learner import Learner

log = logging.getLogger("trainer")


class Outcome(Enum):
    SERVED = auto()
    """The registry holds the policy as a new version, on trial or active: the loop follows it there."""
    TRAIN_ON = auto()
    """Nothing shown yet, and the rollouts are still fresh."""
    GO_BACK = auto()
    """Refused: back to the anchor."""
    START_FROM_HERE = auto()
    """Refused, and the next attempt starts from where the policy is now. The anchor is further out than a candidate may
    be, so from there each would be led back to where it pleases less, again and again; or it pleases less than the base
    policy, which the learner holds now: the way from another taste is longer than from none."""


class GateStep:
    """Judges the learner's policy against the active version.

    Args:
        base_adapter: of the policy before any learning.
        scratch: for drafts and for the policy that steps aside meanwhile.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        learner: Learner,
        store: PreferenceStore,
        registry: Registry,
        base_adapter: Path,
        scratch: Path,
    ) -> None:
        self._settings = settings
        self._learner = learner
        self._store = store
        self._registry = registry
        self._base_adapter = base_adapter
        self._scratch = scratch
        self._gate = Gate(
            learner.backbone,
            learner.pool,
            learner.rules,
            settings.gate,
            base_adapter,
            scratch,
            temperature=settings.temperature,
            seed=settings.seed,
        )

    def remember(self, progress: Progress) -> None:
        """Go on as the trainer that saved `progress`, whose policy is the learner's."""
        self._gate.remember(last=progress.examined, gates=progress.gates, asked=progress.asked)

    def examine(self, progress: Progress, rival_adapter: Path) -> Progress | None:
        """Look at the present policy, and lead it back if it has drifted too far. `judge` then has only to decide, by
        the reward model of that time: the canary, whose place it would take, may be on trial until then.

        Args:
            rival_adapter: of the version that training continues from.

        Returns:
            With what to remember, and to save, before anything of this policy is published: it may be another now.
            None: it has been looked at, or nothing is to be seen.
        """
        if progress.examined == progress.iteration or not self._learner.finite:
            return None
        self._examine(progress, rival_adapter)
        gate = self._gate
        return replace(progress, examined=gate.last, gates=gate.gates, asked=gate.asked)

    def judge(self, progress: Progress, active_adapter: Path) -> Outcome:
        """Judge the present policy, which was examined, and publish it unless that is put off.

        Args:
            active_adapter: of `progress.version`.
        """
        if not self._learner.finite:
            log.warning("gate: weights are not finite: back to %s", progress.version)
            return Outcome.GO_BACK
        report, evaluation = self._examine(progress, active_adapter)
        over = self._rollouts_stay_fresh and self._gate.base_pleases_most(self._score)
        verdict = Verdict.FAILED if over else report.verdict
        metrics.show_gate(report, verdict)
        if verdict is Verdict.UNDECIDED and progress.unpublished < self._patience:
            log.info("gate: undecided: %s: training on", report)
            return Outcome.TRAIN_ON
        version = self._publish(progress, report, evaluation)
        if verdict is Verdict.PASSED:
            return self._promote(version, report, progress.version)
        return self._refuse(version, report, progress.version, over=over)

    def _refuse(self, version: str, report: Report, active: str, *, over: bool) -> Outcome:
        """Reject `version`, and say where the next attempt starts: with `over`, even where it passed, from the base
        policy, from where the next soon pleases more."""
        why, outcome, then = str(report), Outcome.GO_BACK, f"back to {active}"
        if over:
            why += f": the base policy pleases more than this, and than {active}"
            outcome, then = Outcome.START_FROM_HERE, "over again from there"
        elif self._rollouts_stay_fresh and report.only_pleases_less and self._gate.active_is_beyond:
            outcome, then = Outcome.START_FROM_HERE, f"on from here: {active} has drifted too far"
        publish.reject(self._registry, version, why, report.figures)
        log.info("gate %s: rejected: %s: %s", version, why, then)
        if over:
            self._learner.start_over(self._base_adapter)
        return outcome

    def _promote(self, version: str, report: Report, active: str) -> Outcome:
        """Put on trial, or right into the place of version `active`, unless another has taken that meanwhile."""
        on_trial = self._settings.canary.enabled
        log.info("gate %s: passed: %s", version, report)
        try:
            publish.promote(self._registry, version, report.figures, on_trial=on_trial, expected_active=active)
        except ActiveChanged as error:
            log.info("gate %s: %s", version, error)
            publish.reject(self._registry, version, str(error), report.figures)
            return Outcome.GO_BACK
        if not on_trial:
            metrics.versions_published.inc()
        self._gate.promoted(version)
        return Outcome.SERVED

    def _score(self, answers: Evaluation) -> Tensor:
        return self._learner.reward.reward(answers.features_PF)

    @property
    def _patience(self) -> int:
        """Iterations after which a candidate that is still undecided is refused."""
        settings = self._settings
        return 2 * settings.publish_every if self._rollouts_stay_fresh else settings.ppo.max_staleness + 1

    @property
    def _rollouts_stay_fresh(self) -> bool:
        """However far the learner's policy gets from the version that is served, whose answers the fleet's are."""
        return self._settings.rollouts_from == "trainer"

    def _examine(self, progress: Progress, rival_adapter: Path) -> tuple[Report, Evaluation]:
        with metrics.timed("gate"):
            return self._gate.examine(
                prompts.recent(self._store, self._settings),
                self._score,
                candidate=progress.iteration,
                active=progress.continues_from,
                active_adapter=rival_adapter,
            )

    def _publish(self, progress: Progress, report: Report, evaluation: Evaluation) -> str:
        with metrics.timed("publish"):
            manifest = publish.publish(
                self._registry,
                self._learner.backbone,
                parent=progress.version,
                figures={"iteration": float(progress.iteration), **report.figures},
                canary_samples=evaluation.samples[: self._settings.canary_prompts],
                feedback_ids=self._unlearned(progress),
                scratch=self._scratch,
            )
        return manifest.version

    def _unlearned(self, progress: Progress) -> Sequence[str]:
        """Judgements that the reward model has taken in and no active version has learned from."""
        judgements = self._store.judgements(progress.learned_position)
        return [j.feedback_id for j in judgements if j.sequence <= progress.judgement_position]
