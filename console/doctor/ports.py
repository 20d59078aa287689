"""The ports that `foldback up` would take on this machine: free, held by Foldback, or held by another program."""

from collections.abc import Mapping

from console.doctor.finding import Finding, failed, ok
from console.stack import accepts
from settings import Settings


def wanted(settings: Settings) -> dict[str, int]:
    """The setting of each port and its number; 0, which takes any free one, is left out."""
    server, console = settings.server, settings.console
    ports = {
        "server.port": server.port,
        "server.admin_port": server.admin_port,
        "server.metrics_port": server.metrics_port,
        "trainer.metrics_port": settings.trainer.metrics_port,
        "console.web_port": console.web_port,
    }
    if not settings.feedback.bootstrap_servers:
        ports["console.broker_port"] = console.broker_port
    return {name: port for name, port in ports.items() if port}


async def ports(settings: Settings, answered: Mapping[str, bool]) -> list[Finding]:
    """`answered`: behind which of these settings something of ours was met."""
    taken: list[Finding] = []
    free, held = [], []
    for name, port in wanted(settings).items():
        if answered.get(name):
            held.append(port)
        elif await accepts(f"127.0.0.1:{port}")():
            variable = f"FOLDBACK_{name.upper().replace('.', '__')}"
            taken.append(
                failed(
                    "ports",
                    f"{port} ({name}) is held by another program",
                    f"stop it, or set {variable}=0 for a free one",
                )
            )
        else:
            free.append(port)
    said = [f"{', '.join(map(str, some))} {what}" for some, what in ((held, "ours"), (free, "free")) if some]
    return taken or [ok("ports", "; ".join(said))]
