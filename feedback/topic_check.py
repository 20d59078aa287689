"""Whether the topics that a cluster has are the ones Foldback would have made."""

from dataclasses import dataclass

from kafka.admin import ConfigResource

from feedback.connection import admin_client
from feedback.topic_alter import compare
from feedback.topics import Topic, all_topics
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
        wanted = all_topics(settings)
        described = {topic["name"]: topic for topic in admin.describe_topics([topic.name for topic in wanted])}
        present = [topic.name for topic in wanted if described.get(topic.name, {}).get("partitions")]
        resources = [ConfigResource("TOPIC", name) for name in present]
        configs = admin.describe_configs(resources, config_filter="all").get("topic", {}) if resources else {}
    finally:
        admin.close()
    return [_check(topic, described.get(topic.name, {}), configs.get(topic.name, {})) for topic in wanted]


def _check(topic: Topic, described: dict[str, list[dict[str, int]]], configs: dict[str, dict[str, str]]) -> TopicCheck:
    partitions = described.get("partitions", [])
    if not partitions:
        return TopicCheck(topic.name, ("is missing",), ())
    leaderless = [str(one["partition_index"]) for one in partitions if one["error_code"] or one["leader_id"] < 0]
    faults = (f"partitions {', '.join(leaderless)} have no leader",) if leaderless else ()
    return TopicCheck(topic.name, faults, tuple(map(str, compare(topic, len(partitions), configs))))
