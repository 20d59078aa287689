"""The two ports: how they listen, over what transport, and how long a connection lasts."""

import ipaddress
import logging

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from server.health import Health
from settings.server import ServerSettings

log = logging.getLogger(__name__)
HEALTH = "grpc.health.v1.Health"
AGE_GRACE_S = 600
"""What streams still open get to finish when their connection has reached its age."""


def options(settings: ServerSettings) -> list[tuple[str, int]]:
    """Channel arguments: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html"""
    return [
        # Without this a second server on the same port takes half of the first one's calls, silently.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", 16 * 2**20),
        ("grpc.max_send_message_length", 64 * 2**20),
        # Clients may ping every minute to keep long streams open through middleboxes.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 60_000),
        # A client that vanished without a word (pulled cable) gives up its slot after both.
        ("grpc.keepalive_time_ms", int(1000 * settings.keepalive_time_s)),
        ("grpc.keepalive_timeout_ms", int(1000 * settings.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        # What gRPC 1.85 goes by: without it a ping is waited for for a minute, whatever stands above.
        ("grpc.http2.ping_timeout_ms", int(1000 * settings.keepalive_timeout_s)),
        # Clients come back through the load balancer, and so find replicas that are new.
        ("grpc.max_connection_age_ms", int(1000 * settings.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", 1000 * AGE_GRACE_S),
    ]


async def listen(
    server: grpc.aio.Server,
    health: Health,
    services: list[str],
    address: str,
    credentials: grpc.ServerCredentials | None,
) -> str:
    """Start serving `services`, health and reflection beside them; returns the address. Raises OSError."""
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    reflection.enable_server_reflection([*services, HEALTH, reflection.SERVICE_NAME], server)
    try:
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"{address} cannot be bound; stop what holds it or choose another port: {error}") from error
    await server.start()
    return f"{address.rpartition(':')[0]}:{bound}"


def warn_if_open(settings: ServerSettings) -> None:
    """Say loudly what strangers may do here."""
    if _is_loopback(settings.host):
        return
    access = settings.access
    for port, keyed, client_ca, what in (
        ("public", access.api_keys_wanted, access.client_ca, "chat and rate"),
        ("admin", access.admin_keys_wanted, access.admin_client_ca, "PROMOTE, ROLL BACK AND PAUSE LEARNING"),
    ):
        if not keyed and not client_ca:
            log.warning(
                "server.host=%s: whoever reaches the %s port may %s; set server.access.%s or keep to 127.0.0.1",
                settings.host,
                port,
                what,
                "admin_keys" if port == "admin" else "api_keys",
            )
    if (access.api_keys_wanted or access.admin_keys_wanted) and not access.tls_certificate:
        log.warning("server.host=%s: API keys travel in the clear; set server.access.tls_certificate", settings.host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
