"""An event of a key goes where every other Kafka client would send it."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer
from kafka.partitioner.default import DefaultPartitioner
from kafka.partitioner.default import murmur2 as of_kafka_python

from feedback.partitioner import ByKey, murmur2
from feedback.producer import producer_options
from feedback.topics import FEEDBACK, OUTCOMES, ensure_topics
from settings.feedback import FeedbackSettings


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_java_s(data: bytes, expected: int) -> None:
    """The values of Apache Kafka's own test (UtilsTest.testMurmur2); there an int has a sign."""
    assert murmur2(data) == expected % 2**32


@given(st.binary(max_size=100))
def test_the_hash_is_kafka_python_s(data: bytes) -> None:
    assert murmur2(data) == of_kafka_python(data)


def test_the_partition_is_kafka_python_s(broker: str) -> None:
    """By what a real broker says of its topics: one of many partitions, one of a single one."""
    settings = FeedbackSettings(bootstrap_servers=broker)
    ensure_topics(settings)
    producer = KafkaProducer(**producer_options(settings))
    for topic, partitions in ((FEEDBACK, settings.partitions), (OUTCOMES, 1)):
        producer.partitions_for(topic)
        keys = [b"", *(str(uuid.uuid4()).encode() for _ in range(200))]
        ours, theirs = (
            [each.partition(topic, key, key, b"", b"", producer._metadata) for key in keys]
            for each in (ByKey(), DefaultPartitioner())
        )
        assert ours == theirs
        assert set(ours) == set(range(partitions))
    producer.close()
