"""What differs between the topics there are and the ones that the settings want; what can be altered is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

from feedback.topics import Topic, all_topics
from settings.feedback import FeedbackSettings

PARTITIONS = "partitions"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing about one topic that is not as wanted."""

    topic: str
    name: str
    """`partitions`, or a topic configuration's name."""
    found: str
    wanted: str

    def __str__(self) -> str:
        if self.name == PARTITIONS:
            return f"it has {self.found} partitions, not {self.wanted}"
        return f"{self.name} is {self.found}, not {self.wanted}"


def compare(topic: Topic, partitions: int, configs: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
    """`configs`: as the brokers describe the topic; what they do not tell (an embedded one tells nothing) is passed
    over."""
    found = [
        Difference(topic.name, name, str(configs[name]["value"]), value)
        for name, value in sorted(topic.config.items())
        if name in configs and str(configs[name]["value"]) != value
    ]
    if partitions != topic.partitions:
        found.append(Difference(topic.name, PARTITIONS, str(partitions), str(topic.partitions)))
    return found


@dataclass(frozen=True, slots=True)
class Described:
    """A topic that the settings want, as the brokers tell of it."""

    topic: Topic
    partitions: Sequence[Mapping[str, int]]
    """None: it is missing."""
    configs: Mapping[str, Mapping[str, Any]]

    @property
    def differences(self) -> list[Difference]:
        return compare(self.topic, len(self.partitions), self.configs)


def describe(admin: KafkaAdminClient, settings: FeedbackSettings) -> list[Described]:
    """Raises KafkaError."""
    wanted = all_topics(settings)
    partitions = {topic["name"]: topic["partitions"] for topic in admin.describe_topics()}
    present = [topic.name for topic in wanted if partitions.get(topic.name)]
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in present]
    configs = admin.describe_configs(resources, config_filter="all").get("topic", {}) if resources else {}
    return [Described(topic, partitions.get(topic.name, ()), configs.get(topic.name, {})) for topic in wanted]


def find_differences(admin: KafkaAdminClient, settings: FeedbackSettings) -> list[Difference]:
    """Of the topics that exist. Raises KafkaError."""
    return [difference for each in describe(admin, settings) if each.partitions for difference in each.differences]


def alter(admin: KafkaAdminClient, differences: Sequence[Difference]) -> dict[Difference, str]:
    """Mend them; returns why not for each that stays. With more partitions a conversation may go on in another one
    than it began in, which the joiner does not mind."""
    refused: dict[Difference, str] = {}
    for difference in differences:
        if difference.name == PARTITIONS and int(difference.found) > int(difference.wanted):
            refused[difference] = "partitions cannot be taken away; set feedback.partitions to what there are"
            continue
        try:
            if difference.name == PARTITIONS:
                admin.create_partitions({difference.topic: int(difference.wanted)})
            else:
                change = {difference.name: difference.wanted}
                admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, difference.topic, configs=change)])
        except KafkaError as error:
            refused[difference] = f"the brokers refuse: {error}"
    return refused
