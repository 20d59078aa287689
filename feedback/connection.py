"""How every Kafka client of ours reaches the brokers."""

import logging
import socket
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaConfigurationError, KafkaConnectionError

from settings.feedback import FeedbackSettings

_PROBE_TIMEOUT_S = 1.0

# kafka-python reports every attempt of every reconnection as an error; ours say once what matters.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


def require_brokers(settings: FeedbackSettings) -> None:
    """Ask before a client is made: one of kafka-python whose constructor fails leaves a thread behind.

    Raises KafkaConfigurationError when no broker is set, KafkaConnectionError when none accepts connections.
    """
    if not settings.bootstrap_servers:
        raise KafkaConfigurationError("feedback.bootstrap_servers is empty; name a broker, or run 'foldback up'")
    for server in settings.bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PROBE_TIMEOUT_S).close()
            return
        except OSError:
            continue
        except ValueError:
            raise KafkaConfigurationError(
                f"feedback.bootstrap_servers={settings.bootstrap_servers!r}: {server!r} is not host:port"
            ) from None
    raise KafkaConnectionError(f"no broker at {settings.bootstrap_servers}")


def client_options(settings: FeedbackSettings) -> dict[str, Any]:
    """The options that producers, consumers and admin clients share."""
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",")],
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
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value(),
        }
    return options


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
