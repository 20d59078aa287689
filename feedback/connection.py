"""How every Kafka client of ours reaches the brokers."""

import logging
import socket
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaConfigurationError, KafkaConnectionError, KafkaError

from feedback.handshake import NotAdmitted, shake_hands
from settings.feedback import FeedbackSettings

_PROBE_TIMEOUT_S = 1.0

# kafka-python reports every attempt of every reconnection as an error, and prints passwords at DEBUG; ours say once
# what matters.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


def require_brokers(settings: FeedbackSettings) -> None:
    """Ask before a client is made: its own errors come late, and say little.

    Raises KafkaConfigurationError when a setting is missing or malformed, KafkaConnectionError when no broker accepts
    connections, NotAdmitted when one does and then refuses us.
    """
    _require_settings(settings)
    refusal: KafkaError = KafkaConnectionError(f"no broker at {settings.bootstrap_servers}")
    for server in _servers(settings):
        host, _, port = server.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PROBE_TIMEOUT_S).close()
            shake_hands(server, settings, client_options(settings))
            return
        except OSError:
            continue
        except NotAdmitted as error:
            refusal = error
        except ValueError:
            raise KafkaConfigurationError(
                f"feedback.bootstrap_servers={settings.bootstrap_servers!r}: {server!r} is not host:port"
            ) from None
    raise refusal


def _require_settings(settings: FeedbackSettings) -> None:
    """kafka-python takes an empty name or password, and lets the broker find out."""
    if not settings.bootstrap_servers:
        raise KafkaConfigurationError("feedback.bootstrap_servers is empty; name a broker, or run 'foldback up'")
    if settings.security_protocol.startswith("SASL"):
        for field, value in (
            ("sasl_username", settings.sasl_username),
            ("sasl_password", settings.sasl_password.get_secret_value()),
        ):
            if not value:
                raise KafkaConfigurationError(
                    f"feedback.{field} is empty and feedback.security_protocol={settings.security_protocol};"
                    f" set FOLDBACK_FEEDBACK__{field.upper()}"
                )


def _servers(settings: FeedbackSettings) -> list[str]:
    return [server.strip() for server in settings.bootstrap_servers.split(",")]


def client_options(settings: FeedbackSettings) -> dict[str, Any]:
    """The options that producers, consumers and admin clients share."""
    options: dict[str, Any] = {
        "bootstrap_servers": _servers(settings),
        "security_protocol": settings.security_protocol,
        "bootstrap_timeout_ms": 3000,
        "request_timeout_ms": 10_000,
        "reconnect_backoff_max_ms": 1000,
    }
    if "SSL" in settings.security_protocol:
        options |= {
            "ssl_cafile": settings.ssl_cafile or None,
            "ssl_certfile": settings.ssl_certfile or None,
            "ssl_keyfile": settings.ssl_keyfile or None,
        }
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": _sasl_name(settings),
            "sasl_plain_password": settings.sasl_password.get_secret_value(),
        }
    return options


def _sasl_name(settings: FeedbackSettings) -> str:
    """SCRAM separates its fields by commas (RFC 5802, section 5.1); kafka-python 3.0.12 sends a name as it is."""
    if settings.sasl_mechanism == "PLAIN":
        return settings.sasl_username
    return settings.sasl_username.replace("=", "=3D").replace(",", "=2C")


def admin_client(settings: FeedbackSettings) -> KafkaAdminClient:
    """Raises a KafkaError when no broker is set or answers."""
    require_brokers(settings)
    return KafkaAdminClient(**client_options(settings))


def read_cluster_id(admin: KafkaAdminClient) -> str:
    """Which cluster answers now. Raises a KafkaError.

    By a metadata request, as `describe_cluster` does itself with old brokers: of kafka-python 3.0.12 it fails with
    KeyError('endpoint_type') on any broker that speaks DescribeCluster v0 (Apache Kafka 2.8 to 3.6).
    """
    metadata = admin._manager.run(admin._get_cluster_metadata, [])
    return str(metadata["cluster_id"])
