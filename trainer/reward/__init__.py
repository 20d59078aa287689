"""What raters prefer: a few small heads on the frozen trunk's features, and how sure they are."""

from trainer.reward.examples import Featuriser, RewardExample
from trainer.reward.features import AnswerPool, feature_dim
from trainer.reward.model import RewardFigures, RewardModel

__all__ = ["AnswerPool", "Featuriser", "RewardExample", "RewardFigures", "RewardModel", "feature_dim"]
