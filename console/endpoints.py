"""Where this installation listens, as seen from this machine."""

from dataclasses import dataclass

from settings import Settings


@dataclass(frozen=True, slots=True)
class Endpoints:
    chat: str
    admin: str
    server_metrics: str
    trainer_metrics: str


def endpoints(settings: Settings) -> Endpoints:
    """What `console:` names, else the ports of `server:` and `trainer:` on this machine."""
    console, server, trainer = settings.console, settings.server, settings.trainer
    host = reachable(server.host)
    return Endpoints(
        chat=console.address or f"{host}:{server.port}",
        admin=console.admin_address or f"{host}:{server.admin_port}",
        server_metrics=console.server_metrics_url or f"http://{host}:{server.metrics_port}/metrics",
        trainer_metrics=console.trainer_metrics_url
        or f"http://{reachable(trainer.metrics_host)}:{trainer.metrics_port}/metrics",
    )


def reachable(bind_host: str) -> str:
    """The address to dial for a server that binds `bind_host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(bind_host, bind_host)
