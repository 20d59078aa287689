"""Whether the parts of one installation can call its server: seen before anything starts, not by waiting for health."""

from collections.abc import Iterator
from pathlib import Path

from console.errors import CommandError
from foldback.credentials import SYSTEM
from settings import Settings
from settings.client import ClientSettings


def check_credentials(settings: Settings) -> None:
    """Raises CommandError that names every setting which is missing."""
    server = settings.server.access
    callers = [
        ("console.access", settings.console.access, server.api_keys_wanted, bool(server.client_ca)),
        ("console.admin_access", settings.console.admin_access, server.admin_keys_wanted, bool(server.admin_client_ca)),
    ]
    if settings.trainer.rollouts_from == "fleet":
        trainer = settings.trainer.server_access
        callers.append(("trainer.server_access", trainer, server.admin_keys_wanted, bool(server.admin_client_ca)))
    missing = [
        problem
        for section, access, keyed, mutual in callers
        for problem in _missing(section, access, bool(server.tls_certificate), keyed, mutual)
    ]
    if missing:
        raise CommandError("the server would refuse its own clients:\n  " + "\n  ".join(missing))


def _missing(section: str, access: ClientSettings, tls: bool, keyed: bool, mutual: bool) -> Iterator[str]:
    if tls and not access.tls_ca:
        yield f"{section}.tls_ca: server.access.tls_certificate is set; name the PEM file of its authority"
    if access.tls_ca and not tls:
        yield f"{section}.tls_ca={access.tls_ca!r}: the server has no TLS; set server.access.tls_certificate too"
    if keyed and not access.api_key.get_secret_value():
        variable = f"FOLDBACK_{section.replace('.', '__').upper()}__API_KEY"
        yield f"{section}.api_key: its port asks for a key; set {variable} ('python -m server.keys TENANT' makes one)"
    if mutual and not access.tls_certificate:
        yield f"{section}.tls_certificate: its port asks clients for a certificate; name one and its tls_key"
    for field in ("tls_ca", "tls_certificate", "tls_key"):
        value = getattr(access, field)
        if value and value != SYSTEM and not Path(value).is_file():
            yield f"{section}.{field}={value!r}: no such file"
