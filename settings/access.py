"""`server.access:` who may call, how much, and over what transport."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from settings.section import Section


class ApiKey(Section):
    """A key, of which only the digest is known here. `python -m server.keys TENANT` makes one."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the key in hexadecimal. Keys are 256 random bits, which no one guesses from their digest."""
    tenant: str = Field(default="default", pattern=r"^[\w.-]{1,64}$")
    """Whom the key speaks for. Feedback tokens of one tenant are worthless to another."""
    calls_per_minute: int = Field(default=0, ge=0)
    """Calls that a replica takes with this key, as many at once after a pause; 0 is without limit."""
    max_in_flight: int = Field(default=0, ge=0)
    """Calls open at once with this key on a replica; 0 is without limit."""


class AccessSettings(Section):
    api_keys: tuple[ApiKey, ...] = ()
    """Who may call the public port, by `authorization: Bearer KEY`. Empty: everyone who reaches it."""
    admin_keys: tuple[ApiKey, ...] = ()
    """Who may call the admin port (operators, and the trainer for rollouts). Empty: everyone who reaches it."""
    api_keys_file: Path | None = None
    """The keys of `api_keys` in a YAML file of their own, read anew within a second of its change. One that cannot be
    used then leaves the keys before it in force, and the log says why."""
    admin_keys_file: Path | None = None
    """The same for `admin_keys`."""
    tls_certificate: Path | None = None
    """PEM chain that both ports show. None: no TLS."""
    tls_key: Path | None = None
    """PEM key of `tls_certificate`."""
    client_ca: Path | None = None
    """PEM authorities; the public port then asks every client for a certificate of theirs (mTLS)."""
    admin_client_ca: Path | None = None
    """The same for the admin port."""

    @property
    def api_keys_wanted(self) -> bool:
        """The public port asks callers for a key."""
        return bool(self.api_keys or self.api_keys_file)

    @property
    def admin_keys_wanted(self) -> bool:
        """The admin port does."""
        return bool(self.admin_keys or self.admin_keys_file)

    @model_validator(mode="after")
    def _keys_here_or_in_a_file(self) -> Self:
        for name in ("api_keys", "admin_keys"):
            if getattr(self, name) and (file := getattr(self, f"{name}_file")):
                raise ValueError(f"{name} and {name}_file={file}: keep the keys in one of them, and unset the other")
        return self

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: set both or neither")
        if (self.client_ca or self.admin_client_ca) and not self.tls_certificate:
            raise ValueError("client_ca and admin_client_ca ask for TLS: set tls_certificate and tls_key too")
        return self
