"""`console:` the `foldback` command, a client of the API."""

from pydantic import Field

from settings.section import Section


class ConsoleSettings(Section):
    address: str = ""
    """ChatService and FeedbackService, `host:port`. Empty: this machine, `server.port`."""
    admin_address: str = ""
    """PolicyService, `host:port`. Empty: this machine, `server.admin_port`."""
    trainer_metrics_url: str = ""
    """Where the trainer's Prometheus text is read. Empty: this machine, `trainer.metrics_port`."""
    server_metrics_url: str = ""
    """Where the server's Prometheus text is read. Empty: this machine, `server.metrics_port`."""
    rater_id: str = Field(default="console", min_length=1)
    """The pseudonym under which `foldback chat` and `foldback rank` rate."""
    timeout_s: float = Field(default=60, gt=0)
    """Deadline of a call, and of one attempt when it is retried."""
    attempts: int = Field(default=4, ge=1)
    """Tries of a call that meets UNAVAILABLE, the first included; RetryInfo says how long to wait between them."""
    broker_port: int = Field(default=9092, ge=0, le=65535)
    """Port of the broker that `foldback up` embeds. 0 picks a free port."""
    start_timeout_s: float = Field(default=300, gt=0)
    """How long `foldback up` waits for each process to become healthy."""
    stop_timeout_s: float = Field(default=45, gt=0)
    """How long each process may take to stop before it is killed; longer than `server.drain_timeout_s`."""
