"""The learning loop: feedback → reward model → rollouts → PPO → gate → a version that users are served.

Each turn does one thing and ends with a checkpoint: killed at any moment, the trainer does the turn it was in again.
Feedback is ingested meanwhile, by the joiner's thread.
"""

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from feedback.store import PreferenceStore
from registry import Registry
from settings.trainer import TrainerSettings
from trainer import metrics, prompts, publish
from trainer.checkpoint import Checkpoints, Progress
from trainer.evaluation import Evaluation
from trainer.gate import Gate, Report, Verdict
from trainer.learner import Learner, adapter_in
from trainer.ppo.update import StaleRollouts
from trainer.reward.features import pool as pool_features
from trainer.reward_step import RewardStep
from trainer.rollouts import RolloutSource, Stopped

log = logging.getLogger("trainer")

_QUIET_S = 15.0
"""Between two log lines that say what is waited for, while only its figures change."""


class Trainer:
    """Owns the learner and its progress; everything else is asked: store, registry, rollout source.

    Args:
        directory: checkpoints and drafts live here.
        keep_versions: ended versions that stay in the registry.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        learner: Learner,
        store: PreferenceStore,
        registry: Registry,
        rollouts: RolloutSource,
        directory: Path,
        *,
        keep_versions: int = 5,
    ) -> None:
        self._settings = settings
        self._learner = learner
        self._store = store
        self._registry = registry
        self._rollouts = rollouts
        self._keep_versions = keep_versions
        self._checkpoints = Checkpoints(directory / "checkpoints", keep=settings.checkpoints)
        self._scratch = directory / "scratch"
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._base_adapter = self._scratch / "base-adapter"
        learner.backbone.save_adapter(self._base_adapter)
        self._reward = RewardStep(settings, learner, store, self._base_adapter, self._scratch)
        self._gate = Gate(
            learner.backbone, settings.gate, self._scratch, temperature=settings.temperature, seed=settings.seed
        )
        self.progress = self._resume()

    def run(self, stop: threading.Event) -> None:
        """Turn after turn until `stop`; says what it waits for when there is nothing to do."""
        said, said_at = "", -math.inf
        while not stop.is_set():
            try:
                waiting = self.turn()
            except Stopped:
                return
            if not waiting:
                said = ""
                continue
            if waiting != said and (not said or time.monotonic() - said_at >= _QUIET_S):
                log.info("%s", waiting)
                said, said_at = waiting, time.monotonic()
            stop.wait(self._settings.poll_interval_s)

    def turn(self) -> str:
        """Do the next thing there is to do. Returns what has to happen first where there is none, else ""."""
        try:
            state = self._registry.state()
        except OSError as error:
            return f"waiting for the registry: {error}"
        if state.active is None:
            return "waiting for the server to register the base policy; start it with 'foldback serve'"
        if state.active != self.progress.version:
            self._adopt(state.active)
            return ""
        metrics.training_paused.set(state.training_state == "paused")
        if state.training_state == "paused":
            return "training is paused; an operator resumes it with SetTrainingState"
        if self._gate_is_due:
            self._pass_gate()
            return ""
        if self._new_judgements() >= self._judgements_needed:
            self._learn_reward()
            return ""
        return self._why_not_ppo() or self._improve_policy()

    # Feedback → reward model

    @property
    def _judgements_needed(self) -> int:
        settings = self._settings
        return settings.judgements_per_update if self.progress.judgement_position else settings.judgements_to_start

    def _new_judgements(self) -> int:
        return self._store.judgement_count(self.progress.judgement_position)

    def _learn_reward(self) -> None:
        """One update of the reward model on the judgements that came since the last."""
        with metrics.timed("reward"):
            advanced = self._reward.learn(self.progress)
        self._save(advanced)

    # Reward → policy

    def _why_not_ppo(self) -> str:
        """What PPO still waits for, or ""."""
        have, need = self._new_judgements(), self._judgements_needed
        remedy = f"{have} of {need} judgements; rate answers with 'foldback chat'"
        if not self.progress.judgement_position:
            return f"waiting for feedback: {remedy}"
        if not self._learner.reward.ready:
            return f"waiting for feedback that tells answers apart: {remedy}"
        if self.progress.budget < 1:
            return f"waiting for feedback: all of it is learned; {remedy}"
        if not prompts.recent(self._store, self._settings).training:
            return "waiting for prompts: nobody has asked anything yet; start with 'foldback chat'"
        return ""

    def _improve_policy(self) -> str:
        """One iteration of PPO on answers of the serving fleet."""
        progress, learner, settings = self.progress, self._learner, self._settings
        iteration = progress.iteration + 1
        seed = settings.seed * 1_000_003 + iteration
        chosen = prompts.for_rollouts(prompts.recent(self._store, self._settings), settings.prompts_per_iteration, seed)
        with metrics.timed("rollouts"):
            rollouts = self._rollouts.sample(chosen, seed=seed)
        metrics.show_staleness(rollouts, self._registry.state().history)
        with metrics.timed("reference"):
            frozen = learner.backbone.frozen(
                [rollout.sample for rollout in rollouts], temperature=settings.temperature, pool=pool_features
            )
            scores = learner.reward.reward(
                torch.stack([passed.features_F for passed in frozen if passed.features_F is not None])
            )
        try:
            with metrics.timed("ppo"):
                figures = learner.ppo.update(rollouts, frozen, scores.tolist())
        except StaleRollouts as error:
            return f"waiting for the serving fleet to take up {progress.version}: {error}"
        metrics.show_ppo(figures)
        log.info(
            "ppo %d: reward %.2f, KL %.1f nats, entropy %.2f nats, %d tokens an answer",
            iteration,
            figures.score,
            figures.kl,
            figures.entropy,
            round(figures.length),
        )
        advanced = replace(
            progress, iteration=iteration, budget=progress.budget - 1, unpublished=progress.unpublished + 1
        )
        if figures.kl > settings.gate.max_kl_nats:
            log.info("ppo %d: KL is over %g nats: back to %s", iteration, settings.gate.max_kl_nats, progress.version)
            self._return_to_active(replace(advanced, budget=0.0))
        else:
            self._save(advanced)
        return ""

    # Policy → version

    @property
    def _gate_is_due(self) -> bool:
        progress = self.progress
        return progress.unpublished >= self._settings.publish_every and progress.gated != progress.iteration

    def _pass_gate(self) -> None:
        """Judge the policy against the active version; publish it, go on training, or return to the active version."""
        progress, settings = self.progress, self._settings
        if not self._learner.finite:
            log.warning("gate: weights are not finite: back to %s", progress.version)
            return self._return_to_active(progress)
        chosen = prompts.for_gate(
            prompts.recent(self._store, settings), settings.gate.prompts, self._learner.backbone.tokenizer
        )
        with metrics.timed("gate"):
            report, evaluation = self._gate.examine(
                chosen,
                self._learner.reward.reward,
                active=progress.version,
                active_adapter=adapter_in(self._checkpoints.path(progress.anchor)),
            )
        metrics.show_gate(report)
        if report.verdict is Verdict.UNDECIDED and progress.unpublished <= settings.ppo.max_staleness:
            log.info("gate: undecided: %s: training on", report)
            return self._save(replace(progress, gated=progress.iteration))
        feedback_ids = self._unlearned()
        version = self._publish(report, evaluation, feedback_ids)
        if self._registry.state().active != progress.version:
            return publish.reject(self._registry, version, "another version was made active meanwhile", report.figures)
        if report.verdict is not Verdict.PASSED:
            log.info("gate %s: rejected: %s: back to %s", version, report, progress.version)
            publish.reject(self._registry, version, str(report), report.figures)
            return self._return_to_active(progress)
        log.info("gate %s: passed: %s", version, report)
        self._activate(version, report, feedback_ids)
        return self._gate.promoted(version, chosen, evaluation)

    def _publish(self, report: Report, evaluation: Evaluation, feedback_ids: Sequence[str]) -> str:
        with metrics.timed("publish"):
            manifest = publish.publish(
                self._registry,
                self._learner.backbone,
                parent=self.progress.version,
                figures={"iteration": float(self.progress.iteration), **report.figures},
                canary_samples=evaluation.samples[: self._settings.canary_prompts],
                feedback_ids=feedback_ids,
                scratch=self._scratch,
            )
        return manifest.version

    def _unlearned(self) -> list[str]:
        """Judgements that the reward model has taken in and no active version has learned from."""
        judgements = self._store.judgements(self.progress.learned_position)
        return [j.feedback_id for j in judgements if j.sequence <= self.progress.judgement_position]

    def _activate(self, version: str, report: Report, feedback_ids: Sequence[str]) -> None:
        publish.promote(self._registry, version, report.figures)
        # Killed from here on, the next start finds `version` active, sees that it holds the same policy, and goes on.
        self._store.mark_learned(feedback_ids, version)
        self._learner.ppo.mark_published(version)
        metrics.versions_published.inc()
        log.info("%s is active: it has learned from %d more judgements", version, len(feedback_ids))
        position = self.progress.judgement_position
        self._save(replace(self.progress, version=version, unpublished=0, learned_position=position), anchor=True)
        self._registry.collect(self._keep_versions)

    # Where to continue from

    def _resume(self) -> Progress:
        for version in publish.reject_unfinished(self._registry):
            log.info("%s was published and never judged: rejected", version)
        progress = self._checkpoints.latest()
        if progress is None:
            return Progress()
        self._learner.load(self._checkpoints.path(progress.serial))
        log.info("resumed from checkpoint %d: ppo %d, %s", progress.serial, progress.iteration, progress.version)
        return progress

    def _adopt(self, version: str) -> None:
        """Continue from a version that is active without this process's doing: at the first start, by an operator's
        word, or because the trainer was killed between promoting it and writing that down."""
        position = self.progress.learned_position
        adapter = self._base_adapter
        if self._registry.manifest(version).parent:
            directory = self._registry.fetch(version, self._scratch / "versions")
            learned = set(publish.learned_feedback(directory))
            self._store.mark_learned(learned, version)
            known = [j.sequence for j in self._store.judgements(position) if j.feedback_id in learned]
            position = max(known, default=position)
            adapter = directory / publish.ADAPTER
        if self._learner.backbone.holds(adapter):
            self._learner.ppo.mark_published(version)
        else:
            self._learner.continue_from(adapter, version)
        log.info("continuing from %s", version)
        self._save(replace(self.progress, version=version, unpublished=0, learned_position=position), anchor=True)

    def _return_to_active(self, progress: Progress) -> None:
        self._learner.go_back(self._checkpoints.path(progress.anchor))
        self._save(replace(progress, unpublished=0))

    def _save(self, progress: Progress, *, anchor: bool = False) -> None:
        with metrics.timed("checkpoint"):
            self.progress = self._checkpoints.save(progress, self._learner.save, anchor=anchor)
        metrics.checkpoint_timestamp.set_to_current_time()
        metrics.ppo_budget.set(progress.budget)
