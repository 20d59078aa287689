"""Consumers that own every partition of their topics and keep their position themselves."""

from collections.abc import Iterable, Mapping

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from feedback.connection import client_options, require_brokers
from settings.feedback import FeedbackSettings


def open_consumer(
    settings: FeedbackSettings,
    topics: Iterable[str],
    positions: Mapping[tuple[str, int], int],
    *,
    group: str | None = None,
) -> KafkaConsumer:
    """Reads each partition from `positions[topic, partition]`, where there is none from its beginning.

    Partitions are assigned, not subscribed: no rebalance can take one away. Raises a KafkaError when no broker answers.
    """
    require_brokers(settings)
    consumer = KafkaConsumer(
        **client_options(settings)
        | {
            "group_id": group,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "fetch_max_wait_ms": settings.poll_interval_ms,
            "max_poll_records": settings.join_batch,
            "metrics_enabled": False,
        }
    )
    try:
        partitions = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in sorted(consumer.partitions_for_topic(topic) or ())
        ]
        consumer.assign(partitions)
        for partition in partitions:
            if (position := positions.get((partition.topic, partition.partition))) is not None:
                consumer.seek(partition, position)
            else:
                consumer.seek_to_beginning(partition)
    except KafkaError:
        consumer.close()
        raise
    return consumer
