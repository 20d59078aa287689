"""The processes of one machine: broker, server, trainer, web page, as `foldback up` and `foldback demo` run them."""

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping

from console.client import Client
from console.credentials import check_credentials
from console.endpoints import endpoints, reachable
from console.errors import CommandError, is_rpc_error
from console.scrape import scrape
from console.supervisor import Service
from settings import Settings, load
from settings.client import ClientSettings
from settings.ports import PortPicker

PORTS = ("server.port", "server.admin_port", "server.metrics_port", "trainer.metrics_port", "console.web_port")
CONNECT_TIMEOUT_S = 1.0


def settle_ports(settings: Settings) -> Settings:
    """The settings with every port 0 replaced by a free one, here and for the children (by environment variable).

    Raises:
        CommandError: a port that is asked for is taken.
    """
    fields = [*PORTS, *(() if settings.feedback.bootstrap_servers else ("console.broker_port",))]
    with PortPicker() as picker:
        for name in fields:
            section, field = name.split(".")
            port = getattr(getattr(settings, section), field)
            host = settings.server.host
            if section == "console":
                host = settings.console.web_host if field == "web_port" else "127.0.0.1"
            variable = f"FOLDBACK_{section.upper()}__{field.upper()}"
            if port:
                refuse_taken(host, port, name, variable)
            else:
                os.environ[variable] = str(picker.pick(host))
    return load()


def refuse_taken(host: str, port: int, name: str, variable: str) -> None:
    """Raises CommandError if somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        if probe.connect_ex((reachable(host), port)) == 0:
            raise CommandError(
                f"{name}={port} is taken: is Foldback already up ('foldback status')? "
                f"Stop what holds the port, or start with {variable}=0 for a free one"
            )


def services(settings: Settings) -> list[Service]:
    """The children in the order they start; the broker only where none is configured.

    Raises:
        CommandError: the server would ask the others for credentials that they have not.
    """
    check_credentials(settings)
    place, host = endpoints(settings), reachable(settings.server.host)
    chat, admin = f"{host}:{settings.server.port}", f"{host}:{settings.server.admin_port}"
    brokers = settings.feedback.bootstrap_servers
    children = []
    if not brokers:
        brokers = f"127.0.0.1:{settings.console.broker_port}"
        children.append(
            Service(
                "broker",
                python("feedback", "broker", "--port", str(settings.console.broker_port)),
                accepts(brokers),
                f"Kafka {brokers}",
            )
        )
    events: Mapping[str, str] = {"FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS": brokers}
    children.append(
        Service(
            "server",
            python("server"),
            serving(chat, settings.console.access),
            f"chat {chat} · admin {admin} · metrics {place.server_metrics}",
            events,
        )
    )
    children.append(
        Service(
            "trainer",
            python("trainer"),
            measured(place.trainer_metrics),
            f"metrics {place.trainer_metrics}",
            {**events, "FOLDBACK_TRAINER__SERVER_ADMIN_ADDRESS": admin},
            returns=True,
        )
    )
    web = f"{reachable(settings.console.web_host)}:{settings.console.web_port}"
    children.append(Service("web", python("console.web"), accepts(web), f"page http://{web}", returns=True))
    return children


def python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def accepts(address: str) -> Callable[[], Awaitable[bool]]:
    """A health check: somebody listens at `host:port`."""
    host, _, port = address.rpartition(":")

    async def check() -> bool:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    return check


def measured(url: str) -> Callable[[], Awaitable[bool]]:
    """A health check: Foldback's metrics are at `url`, and not merely somebody."""

    async def check() -> bool:
        return any(name.startswith("foldback_") for name, _ in await scrape(url) or ())

    return check


def serving(chat: str, access: ClientSettings) -> Callable[[], Awaitable[bool]]:
    """A health check: ChatService at `chat` says SERVING."""

    async def check() -> bool:
        try:
            async with Client(chat, chat, timeout_s=CONNECT_TIMEOUT_S, attempts=1, access=access) as client:
                return await client.health()
        except Exception as error:
            if is_rpc_error(error):
                return False
            raise

    return check
