"""`feedback:` the event log."""

from pydantic import Field

from settings.section import Section


class FeedbackSettings(Section):
    bootstrap_servers: str = ""
    """Kafka brokers, `host:port,…`. Empty: `foldback up` starts an embedded broker."""
