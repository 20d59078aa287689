"""`feedback:` the event log."""

from typing import Literal

from pydantic import Field, SecretStr

from settings.section import Section


class FeedbackSettings(Section):
    bootstrap_servers: str = ""
    """Kafka brokers, `host:port,…`. Empty: `foldback up` starts an embedded broker."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to speak to the brokers."""
    ssl_cafile: str = ""
    """PEM file of the authorities that sign the brokers' certificates. Empty: the system's."""
    ssl_certfile: str = ""
    """PEM file of this client's certificate, where the brokers ask for one."""
    ssl_keyfile: str = ""
    """PEM file of the key of `ssl_certfile`."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """Used with SASL_PLAINTEXT and SASL_SSL."""
    sasl_username: str = ""
    """The brokers' user name."""
    sasl_password: SecretStr = SecretStr("")
    """The brokers' password; set it by FOLDBACK_FEEDBACK__SASL_PASSWORD rather than in the file."""

    partitions: int = Field(default=6, ge=1, le=1024)
    """Partitions of the responses and feedback topics when they are created."""
    replication_factor: int = Field(default=-1, ge=-1)
    """Copies of each partition when a topic is created; -1 takes the broker's default. In production: 3."""
    min_insync_replicas: int = Field(default=1, ge=1)
    """Copies that must hold an event before it is acknowledged. In production: 2."""

    ack_timeout_s: float = Field(default=2.0, ge=0.05)
    """An event the brokers have not acknowledged by then goes to the spool."""
    reconnect_interval_s: float = Field(default=0.5, gt=0)
    """How often unreachable brokers are tried again."""
    spool_max_bytes: int = Field(default=1 << 30, ge=1 << 16)
    """Events the spool may hold, in bytes; a full spool refuses feedback, it never drops any."""
    keep_until_read: Literal["auto", "always", "never"] = "auto"
    """Keep acknowledged events in the spool until the trainer has read them, and send them again to a broker
    that has forgotten them. auto: only for the embedded broker, which keeps nothing over a restart."""
    max_event_bytes: int = Field(default=1_000_000, ge=1024)
    """Largest event; not above the brokers' message.max.bytes."""

    token_lifetime_s: float = Field(default=7 * 86400.0, gt=0)
    """How long after a response was served it can be rated."""
    token_tolerance_s: float = Field(default=60.0, ge=0)
    """Grace past the lifetime, for clocks that differ."""
    max_text_chars: int = Field(default=32_768, ge=1)
    """Longest demonstration or comment."""
    rater_per_minute: float = Field(default=600.0, ge=0)
    """Feedback a replica takes from one rater, on average; more is answered RESOURCE_EXHAUSTED. 0: no limit."""
    rater_burst: int = Field(default=600, ge=1)
    """As many at once, after a pause."""

    poll_interval_ms: int = Field(default=50, ge=1, le=100)
    """Longest wait for new events before the joiner looks again."""
    join_batch: int = Field(default=2000, ge=1)
    """Events the joiner stores in one transaction."""
    response_horizon_s: float = Field(default=3600.0, gt=0)
    """Feedback whose response has not come by then is dead-lettered as RESPONSE_MISSING."""
    outcomes_capacity: int = Field(default=100_000, ge=1)
    """Feedback whose outcome a server remembers for GetFeedbackStatus; the oldest are forgotten first."""
