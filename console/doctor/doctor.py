"""All checks, those of what runs at the same time."""

import asyncio

from console.client import Client
from console.doctor import services, stores
from console.doctor.finding import Finding, note, ok
from console.doctor.machine import machine
from console.doctor.ports import ports
from console.endpoints import endpoints, reachable
from settings import Settings

CALL_S = 5.0
WEB = "'foldback up' and 'foldback web' serve it, where one is wanted"


async def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order in which one would mend things."""
    place, console = endpoints(settings), settings.console
    page = f"http://{reachable(console.web_host)}:{console.web_port}/"
    # A call of a doctor is short and is not tried again: what is away is a finding.
    quick = settings.model_copy(update={"console": console.model_copy(update={"timeout_s": CALL_S})})
    async with Client.of(quick, attempts=1) as client, asyncio.TaskGroup() as group:
        broker = group.create_task(stores.broker(settings))
        registry = group.create_task(stores.registry(settings))
        chat = group.create_task(services.server(client, settings))
        admin = group.create_task(services.admin(client, settings))
        trainer = group.create_task(services.trainer(place))
        log = group.create_task(services.server_metrics(place))
        web = group.create_task(asyncio.to_thread(services.web_answers, page))
    answered = {
        "console.broker_port": broker.result()[1],
        "server.port": chat.result()[1],
        "server.admin_port": admin.result()[1],
        "server.metrics_port": log.result()[1],
        "trainer.metrics_port": trainer.result()[1],
        "console.web_port": web.result(),
    }
    shown = ok("web", f"{page} answers") if web.result() else note("web", f"nobody answers at {page}", WEB)
    running = [*broker.result()[0], *registry.result(), *chat.result()[0], *admin.result()[0], *trainer.result()[0]]
    return [*machine(settings), *await ports(settings, answered), *running, shown, *log.result()[0]]
