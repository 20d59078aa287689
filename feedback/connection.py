"""How every Kafka client of ours reaches the brokers."""

from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaConfigurationError

from settings.feedback import FeedbackSettings


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
    """Raises a KafkaError when no broker answers, or when no broker is set."""
    if not settings.bootstrap_servers:
        raise KafkaConfigurationError("feedback.bootstrap_servers is empty; name a broker, or run 'foldback up'")
    return KafkaAdminClient(**client_options(settings))
