"""`…access:` the credentials with which a client calls a port of the server."""

from typing import Self

from pydantic import SecretStr, model_validator

from settings.section import Section


class ClientSettings(Section):
    api_key: SecretStr = SecretStr("")
    """Sent as `authorization: Bearer KEY`; set it by a FOLDBACK_ variable rather than in the file. Empty: none."""
    tls_ca: str = ""
    """PEM file of the authorities that sign the server's certificate, or `system`. Empty: no TLS."""
    tls_certificate: str = ""
    """PEM file of this client's certificate, where the server asks for one."""
    tls_key: str = ""
    """PEM file of the key of `tls_certificate`."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key go together: set both or neither")
        if self.tls_certificate and not self.tls_ca:
            raise ValueError("tls_certificate asks for TLS: set tls_ca too, `system` for the system's authorities")
        return self
