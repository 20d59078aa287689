"""Whether there is enough to learn from: for the reward model, and for the policy."""

from feedback.store import PreferenceStore
from settings.trainer import TrainerSettings
from trainer import metrics, prompts
from trainer.checkpoint import Progress
from trainer.reward import RewardModel


class Readiness:
    def __init__(self, settings: TrainerSettings, store: PreferenceStore, reward: RewardModel) -> None:
        self._settings = settings
        self._store = store
        self._reward = reward

    def of_reward_model(self, progress: Progress) -> bool:
        """Whether its next update is due."""
        return self._new_judgements(progress) >= self._judgements_needed(progress)

    def why_not_ppo(self, progress: Progress) -> str:
        """What PPO still waits for, or ""; how many judgements that are is shown on the metrics port."""
        have, need = self._new_judgements(progress), self._judgements_needed(progress)
        lacking = self._lacking(progress)
        metrics.judgements_awaited.set(max(0, need - have) if lacking else 0)
        if lacking:
            return f"waiting for {lacking}: {have} of {need} judgements; rate answers with 'foldback chat'"
        if not prompts.recent(self._store, self._settings).training:
            return "waiting for prompts: nobody has asked anything yet; start with 'foldback chat'"
        return ""

    def _lacking(self, progress: Progress) -> str:
        """Which feedback there is too little of; "" where there is enough."""
        if not progress.judgement_position:
            return "feedback"
        if not self._reward.ready:
            return "feedback that tells answers apart"
        return "more feedback" if progress.budget < 1 else ""

    def _new_judgements(self, progress: Progress) -> int:
        return self._store.judgement_count(progress.judgement_position)

    def _judgements_needed(self, progress: Progress) -> int:
        settings = self._settings
        return settings.judgements_per_update if progress.judgement_position else settings.judgements_to_start
