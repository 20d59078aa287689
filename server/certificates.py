"""The server's certificate, read anew when its files have changed: a renewal needs no restart."""

import logging
import ssl
from pathlib import Path

import grpc

from settings.access import AccessSettings

log = logging.getLogger(__name__)


def credentials(access: AccessSettings, client_ca: Path | None) -> grpc.ServerCredentials | None:
    """None without TLS. With `client_ca`, clients must show a certificate of one of its authorities.

    Raises OSError: a file cannot be read, or (ssl.SSLError) the key is not the certificate's.
    """
    if access.tls_certificate is None or access.tls_key is None:
        return None
    files = _Files(access.tls_certificate, access.tls_key, client_ca)
    # None from `renewed` means that nothing is new; the stubs do not know.
    return grpc.dynamic_ssl_server_credentials(files.read(), files.renewed, bool(client_ca))  # type: ignore[arg-type]


class _Files:
    """gRPC asks at every handshake, in threads of its own; connections that are open keep what they began with."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._seen: list[tuple[int, int, int]] = []

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Raises OSError."""
        self._seen = self._marks()
        # gRPC would take a pair that does not fit, and then fail every handshake.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
        return grpc.ssl_server_certificate_configuration(
            [(self._key.read_bytes(), self._certificate.read_bytes())],
            root_certificates=self._client_ca.read_bytes() if self._client_ca else None,
        )

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """None: use what there is; also while the new files do not fit together, as amid their renewal."""
        try:
            if self._marks() == self._seen:
                return None
            renewed = self.read()
        except OSError as error:
            log.error("server.access: the renewed certificate is not used, the last one still is: %s", error)
            return None
        log.info("server.access: the certificate was renewed")
        return renewed

    def _marks(self) -> list[tuple[int, int, int]]:
        files = [file for file in (self._certificate, self._key, self._client_ca) if file]
        return [(stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in (file.stat() for file in files)]
