"""Whether there is enough to learn from: for the reward model, and for the policy."""

from feedback.store import PreferenceStore
from settings.trainer import TrainerSettings
from trainer import prompts
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
        """What PPO still waits for, or ""."""
        have, need = self._new_judgements(progress), self._judgements_needed(progress)
        remedy = f"{have} of {need} judgements; rate answers with 'foldback chat'"
        if not progress.judgement_position:
            return f"waiting for feedback: {remedy}"
        if not self._reward.ready:
            return f"waiting for feedback that tells answers apart: {remedy}"
        if progress.budget < 1:
            return f"waiting for feedback: all of it is learned; {remedy}"
        if not prompts.recent(self._store, self._settings).training:
            return "waiting for prompts: nobody has asked anything yet; start with 'foldback chat'"
        return ""

    def _new_judgements(self, progress: Progress) -> int:
        return self._store.judgement_count(progress.judgement_position)

    def _judgements_needed(self, progress: Progress) -> int:
        settings = self._settings
        return settings.judgements_per_update if progress.judgement_position else settings.judgements_to_start
