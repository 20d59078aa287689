"""Whether the topics that a cluster has are the ones Foldback would have made."""

from dataclasses import dataclass

from feedback.connection import admin_client
from feedback.topic_alter import Described, describe
from settings.feedback import FeedbackSettings


@dataclass(frozen=True, slots=True)
class TopicCheck:
    name: str
    faults: tuple[str, ...]
    """It cannot be used: absent, or a partition without a leader."""
    differences: tuple[str, ...]
    """It works, set otherwise than the settings ask."""


def check_topics(settings: FeedbackSettings) -> list[TopicCheck]:
    """Raises a KafkaError when no broker answers."""
    admin = admin_client(settings)
    try:
        return [_check(each) for each in describe(admin, settings)]
    finally:
        admin.close()


def _check(found: Described) -> TopicCheck:
    if not found.partitions:
        return TopicCheck(found.topic.name, ("is missing",), ())
    leaderless = [str(one["partition_index"]) for one in found.partitions if one["error_code"] or one["leader_id"] < 0]
    faults = (f"partitions {', '.join(leaderless)} have no leader",) if leaderless else ()
    return TopicCheck(found.topic.name, faults, tuple(map(str, found.differences)))
