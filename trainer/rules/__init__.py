"""Rules that every answer is held against: scores in [0, 1], a term of the reward, and a veto at the gate."""

from trainer.rules.constitution import Rules, RuleScores

__all__ = ["RuleScores", "Rules"]
