"""`console:` the `foldback` command and the web page, clients of the API."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from settings.client import ClientSettings
from settings.section import Section

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class ConsoleSettings(Section):
    address: str = ""
    """ChatService and FeedbackService, `host:port`. Empty: this machine, `server.port`."""
    admin_address: str = ""
    """PolicyService, `host:port`. Empty: this machine, `server.admin_port`."""
    access: ClientSettings = Field(default_factory=ClientSettings)
    """Credentials for ChatService and FeedbackService."""
    admin_access: ClientSettings = Field(default_factory=ClientSettings)
    """Credentials for PolicyService."""
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
    web_host: str = "127.0.0.1"
    """Interface of the web page. Beyond this machine it asks for `web_token`."""
    web_port: int = Field(default=8080, ge=0, le=65535)
    """Port of the web page. 0 picks a free port."""
    web_token: SecretStr = SecretStr("")
    """What the web page asks its visitors for, once a browser. Empty: whoever is on this machine may use it."""
    min_free_bytes: int = Field(default=2 << 30, ge=0)
    """Free bytes on the disks of `data_dir` and of a local registry, below which `foldback doctor` asks for more."""
    start_timeout_s: float = Field(default=300, gt=0)
    """How long `foldback up` waits for each process to become healthy."""
    stop_timeout_s: float = Field(default=45, gt=0)
    """How long each process may take to stop before it is killed; longer than `server.drain_timeout_s`."""

    @model_validator(mode="after")
    def _strangers_need_a_token(self) -> Self:
        if self.web_host not in LOOPBACK and not self.web_token.get_secret_value():
            raise ValueError(
                f"web_host={self.web_host!r} lets other machines promote and roll back: "
                "set FOLDBACK_CONSOLE__WEB_TOKEN, or keep to 127.0.0.1"
            )
        return self
