"""The learning loop: feedback → reward model → rollouts → PPO → gate → a version that users are served.

Each turn does one thing and ends with a checkpoint: killed at any moment, the trainer does the turn it was in again.
Feedback is ingested meanwhile, by the joiner's thread.
"""

import logging
import math
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from feedback.store import PreferenceStore
from registry import ArtifactError, Registry, RegistryState
from settings.trainer import TrainerSettings
from trainer import metrics, publish
from trainer.canary_monitor import CanaryMonitor
from trainer.checkpoint import Checkpoints, Progress
from trainer.gate_step import GateStep, Outcome
from trainer.learner import Learner, adapter_in
from trainer.policy_step import PolicyStep
from trainer.ppo.update import StaleRollouts
from trainer.readiness import Readiness
from trainer.reward_step import RewardStep
from trainer.rollouts import RolloutSource, Stopped

log = logging.getLogger("trainer")

_NEEDED = (f"{publish.ADAPTER}/", publish.LEARNED)
"""Of a version's files: the merged weights are for servers."""
_LONGEST_PAUSE_S = 30.0
"""Between two looks for a registry that is away: each waits twice as long as the one before."""
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
        self._keep_versions = keep_versions
        self._checkpoints = Checkpoints(directory / "checkpoints", keep=settings.checkpoints)
        self._scratch = directory / "scratch"
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._base_adapter = self._scratch / "base-adapter"
        learner.backbone.save_adapter(self._base_adapter)
        self._readiness = Readiness(settings, store, learner.reward)
        self._policy = PolicyStep(settings, learner, store, registry, rollouts)
        self._reward = RewardStep(settings, learner, store, self._base_adapter, self._scratch)
        self._gate = GateStep(settings, learner, store, registry, self._base_adapter, self._scratch)
        self.canary = CanaryMonitor(settings.canary, store, registry, lambda: learner.reward.since)
        self._cut_off = False
        """The registry was lost in the middle of a turn: the learner holds half of it."""
        self.progress = self._resume()

    def run(self, stop: threading.Event) -> None:
        """Turn after turn until `stop`; says what it waits for when there is nothing to do."""
        deciding = threading.Thread(target=self.canary.run, args=(stop,), name="canary", daemon=True)
        deciding.start()
        said, said_at, pause_s = "", -math.inf, self._settings.poll_interval_s
        while not stop.is_set():
            try:
                waiting = self.turn()
            except Stopped:
                break
            if not waiting:
                said, pause_s = "", self._settings.poll_interval_s
                continue
            if waiting != said and (not said or time.monotonic() - said_at >= _QUIET_S):
                log.info("%s", waiting)
                said, said_at = waiting, time.monotonic()
            away = self._cut_off or not self._registry.reachable
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S) if away else self._settings.poll_interval_s
            stop.wait(pause_s)
        deciding.join()

    def turn(self) -> str:
        """Do the next thing there is to do. Returns what has to happen first where there is none, else "".

        Where the registry is lost meanwhile, the turn is done again from the last checkpoint once it is back.
        """
        try:
            if self._cut_off:
                self.progress = self._resume()
                self._cut_off = False
            self.canary.check()
            state = self._registry.state()
        except OSError as error:
            return f"waiting for the registry: {error}"
        try:
            return self._do_next(state)
        except (OSError, ArtifactError) as error:
            if isinstance(error, ArtifactError) and self._registry_answers():
                raise
            self._cut_off = True
            return f"cut off in mid-turn, which is done again when registry and disk allow: {error}"

    def _registry_answers(self) -> bool:
        with suppress(OSError):
            self._registry.state()
        return self._registry.reachable

    def _do_next(self, state: RegistryState) -> str:
        if state.active is None:
            return "waiting for the server to register the base policy; start it with 'foldback serve'"
        if self._follow(state):
            return ""
        metrics.training_paused.set(state.training_state == "paused")
        if state.training_state == "paused":
            return "training is paused; an operator resumes it with SetTrainingState"
        undecided = ""
        if self._gate_is_due:
            if not self.progress.canary:
                self._pass_gate()
                return ""
            undecided = self.canary.check(next_is_ready=True)
            if not undecided or self._examine():
                return ""  # the next turn follows
        held_up = undecided or self._readiness.why_not_ppo(self.progress)
        # In turns where both could go on: however much people say, the policy improves.
        its_turn = held_up or self.progress.heard != self.progress.iteration
        if its_turn and self._readiness.of_reward_model(self.progress):
            if not held_up:
                self._policy.look_ahead(self.progress)
            self._learn_reward()
            return ""
        if held_up and (calibrated := self._reward.calibrate_ahead(self.progress)):
            self._save(calibrated)
            return ""
        return held_up or self._improve_policy()

    # Feedback → reward model

    def _learn_reward(self) -> None:
        """One update of the reward model on the judgements that came since the last."""
        with metrics.timed("reward"):
            advanced = self._reward.learn(self.progress)
        self._save(replace(advanced, heard=advanced.iteration))

    # Reward → policy

    def _improve_policy(self) -> str:
        """One iteration of PPO on answers of the serving fleet."""
        progress, settings = self.progress, self._settings
        try:
            another = progress.unpublished + 1 < settings.publish_every and progress.budget >= 2
            figures = self._policy.improve(progress, another=another)
        except StaleRollouts as error:
            return f"waiting for the serving fleet to take up {progress.continues_from}: {error}"
        iteration = progress.iteration + 1
        advanced = replace(
            progress, iteration=iteration, budget=progress.budget - 1, unpublished=progress.unpublished + 1
        )
        if figures.kl > settings.ppo.max_kl_nats:
            bound, back = settings.ppo.max_kl_nats, progress.continues_from
            log.info("ppo %d: KL is over %g nats: back to %s", iteration, bound, back)
            self._go_back(replace(advanced, budget=0.0))
        else:
            self._save(advanced)
        return ""

    # Policy → version

    @property
    def _gate_is_due(self) -> bool:
        progress = self.progress
        return progress.unpublished >= self._settings.publish_every and progress.gated != progress.iteration

    @property
    def _anchored_adapter(self) -> Path:
        """Of the version that training continues from."""
        return adapter_in(self._checkpoints.path(self.progress.anchor))

    def _examine(self) -> bool:
        """Have the gate look at the next candidate. False: it has."""
        examined = self._gate.examine(self.progress, self._anchored_adapter)
        if examined is not None:
            self._save(examined)
        return examined is not None

    def _pass_gate(self) -> None:
        self._examine()
        progress = self.progress
        match self._gate.judge(progress, self._anchored_adapter):
            case Outcome.GO_BACK:
                self._go_back(progress)
            case Outcome.TRAIN_ON:
                self._save(replace(progress, gated=progress.iteration))
            case Outcome.START_FROM_HERE:
                self._learner.ppo.restore_stride()
                self._save(replace(progress, unpublished=0))
            case Outcome.SERVED:
                # Killed before this, the next start does it: it finds the version and that it holds the same policy.
                if not self._follow(self._registry.state()):  # taken down already
                    self._go_back(progress)

    # Where to continue from

    def _resume(self) -> Progress:
        for version in publish.reject_unfinished(self._registry):
            log.info("%s was published and never judged: rejected", version)
        progress = self._checkpoints.latest()
        self._gate.remember(progress or Progress())
        if progress is None:
            return Progress()
        directory = self._checkpoints.path(progress.serial)
        try:
            self._learner.load(directory)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise SystemExit(
                f"{directory}: cannot resume a checkpoint of another Foldback, or of other settings ({error!r}); run it"
                f" as it was then, or remove {directory.parent} to learn afresh from the judgements in the store"
            ) from error
        log.info("resumed from checkpoint %d: ppo %d, %s", progress.serial, progress.iteration, progress.version)
        return progress

    def _follow(self, state: RegistryState) -> bool:
        """Come to where the registry is, whoever moved it: this trainer, the canary's monitor, an operator, a server;
        now, or before the trainer was killed. False: it is there already."""
        progress = self.progress
        if progress.canary and state.active == progress.canary:
            position = self._mark_learned(state.active, self._files(state.active))
            self._save(replace(progress, version=state.active, canary="", fallback=0, learned_position=position))
            self._registry.collect(self._keep_versions)
        elif progress.canary and state.canary != progress.canary:
            why = state.reasons.get(progress.canary, "gone from the registry")
            log.info("canary %s: %s: back to %s", progress.canary, why, progress.version)
            self._go_back(replace(progress, canary="", anchor=progress.fallback, fallback=0))
        elif state.active and state.active != progress.version:
            files = self._files(state.active)
            self._take(state.active, files)
            position = self._mark_learned(state.active, files)
            self._save(replace(progress, version=state.active, unpublished=0, learned_position=position), anchor=True)
            self._registry.collect(self._keep_versions)
        elif state.canary and not progress.canary:
            self._take(state.canary, self._files(state.canary))
            self._save(replace(progress, canary=state.canary, unpublished=0, fallback=progress.anchor), anchor=True)
        else:
            return False
        return True

    def _files(self, version: str) -> Path | None:
        """Where those that training needs are, hashes checked. None: it is the base policy and has none."""
        if not self._registry.manifest(version).parent:
            return None
        return self._registry.fetch(version, self._scratch / "versions", only=_NEEDED)

    def _mark_learned(self, version: str, files: Path | None) -> int:
        """What `version` learned from says so. Returns the sequence of the last judgement that was learned."""
        position = self.progress.learned_position
        if files is None:
            return position
        learned = set(publish.learned_feedback(files))
        self._store.mark_learned(learned, version)
        known = [j.sequence for j in self._store.judgements(position) if j.feedback_id in learned]
        log.info("%s is active: it has learned from %d judgements more than the one before", version, len(learned))
        return max(known, default=position)

    def _take(self, version: str, files: Path | None) -> None:
        """Continue from the policy of `version`; the learner may hold it already."""
        adapter = files / publish.ADAPTER if files else self._base_adapter
        if self._learner.backbone.holds(adapter):
            self._learner.ppo.mark_published(version)
        else:
            self._learner.continue_from(adapter, version)
        log.info("continuing from %s", version)

    def _go_back(self, progress: Progress) -> None:
        """The policy as it was at the anchor."""
        stride = self._learner.go_back(self._checkpoints.path(progress.anchor))
        log.info("next attempt: by steps of %g of the learning rate", stride)
        self._save(replace(progress, unpublished=0))

    def _save(self, progress: Progress, *, anchor: bool = False) -> None:
        with metrics.timed("checkpoint"):
            self.progress = self._checkpoints.save(progress, self._learner.save, anchor=anchor)
        metrics.checkpoint_timestamp.set_to_current_time()
        metrics.ppo_budget.set(progress.budget)
