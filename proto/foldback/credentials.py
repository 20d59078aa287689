"""How a client shows the server who it is: TLS for the channel, an API key for each call."""

from pathlib import Path

import grpc

SYSTEM = "system"


def channel_credentials(tls_ca: str, tls_certificate: str = "", tls_key: str = "") -> grpc.ChannelCredentials | None:
    """For a secure channel; None where `tls_ca` is empty and the channel is a plain one.

    All are PEM files; `tls_ca` may be `system` for the authorities that the system trusts. Raises OSError.
    """
    if not tls_ca:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=None if tls_ca == SYSTEM else Path(tls_ca).read_bytes(),
        private_key=Path(tls_key).read_bytes() if tls_key else None,
        certificate_chain=Path(tls_certificate).read_bytes() if tls_certificate else None,
    )


def call_metadata(api_key: str) -> tuple[tuple[str, str], ...]:
    """To pass as `metadata=` with every call; empty without a key."""
    return (("authorization", f"Bearer {api_key}"),) if api_key else ()
