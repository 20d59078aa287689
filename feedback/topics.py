"""The topics: their names, how long they keep what, and their set-up."""

from dataclasses import dataclass

from kafka import errors
from kafka.admin import KafkaAdminClient

from feedback.connection import admin_client
from settings.feedback import FeedbackSettings

RESPONSES = "foldback.responses.v1"
FEEDBACK = "foldback.feedback.v1"
DLQ = "foldback.feedback.dlq.v1"
POLICIES = "foldback.policies.v1"
ERASURES = "foldback.erasures.v1"
OUTCOMES = "foldback.outcomes.v1"

_DAY_MS = 86_400_000


def joiner_group(cluster_id: str) -> str:
    """The consumer group to which the joiner commits what the preference store holds.

    Kafka's tools read its lag there, the servers' spools their read receipts. Offsets belong to one cluster, so the
    group is named after it: what is committed late to a broker that was replaced says nothing about the new one.
    """
    return f"foldback.joiner.{cluster_id}"


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    partitions: int
    config: dict[str, str]


def all_topics(settings: FeedbackSettings) -> tuple[Topic, ...]:
    def kept(days: int) -> dict[str, str]:
        return _durable(settings) | {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS)}

    compacted = _durable(settings) | {"cleanup.policy": "compact"}
    return (
        Topic(RESPONSES, settings.partitions, kept(14)),
        Topic(FEEDBACK, settings.partitions, kept(28)),
        Topic(DLQ, 1, kept(28)),
        Topic(POLICIES, 1, compacted),
        Topic(ERASURES, 1, compacted),
        Topic(OUTCOMES, 1, kept(28)),
    )


def ensure_topics(settings: FeedbackSettings) -> list[str]:
    """Create the topics that are missing; returns their names. What exists is left as it is.

    Raises a KafkaError when no broker answers or creation is refused.
    """
    admin = admin_client(settings)
    try:
        return create_missing(admin, settings)
    finally:
        admin.close()


def create_missing(admin: KafkaAdminClient, settings: FeedbackSettings) -> list[str]:
    present = set(admin.list_topics())
    missing = [topic for topic in all_topics(settings) if topic.name not in present]
    if not missing:
        return []
    request = {
        topic.name: {
            "num_partitions": topic.partitions,
            "replication_factor": settings.replication_factor,
            "configs": topic.config,
        }
        for topic in missing
    }
    response = admin.create_topics(request, raise_errors=False)
    _raise_refusals(response)
    names = [topic.name for topic in missing]
    admin.wait_for_topics(names)
    return names


def _durable(settings: FeedbackSettings) -> dict[str, str]:
    return {
        "min.insync.replicas": str(settings.min_insync_replicas),
        "message.timestamp.type": "LogAppendTime",
    }


def _raise_refusals(response: dict[str, list[dict[str, object]]]) -> None:
    """Another replica may have created a topic between our look and our request: that is no error."""
    for topic in response["topics"]:
        kind = errors.for_code(topic["error_code"])
        if kind not in (errors.NoError, errors.TopicAlreadyExistsError):
            raise kind(f"topic {topic['name']}: {topic.get('error_message') or 'creation refused'}")
