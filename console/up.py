"""`foldback up`: starts everything, says where, and stays until Ctrl-C or until what others need dies."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rich.markup import escape

from console.client import Client
from console.endpoints import reachable
from console.errors import is_rpc_error
from console.stack import services, settle_ports
from console.supervisor import ServiceFailed, Supervisor
from console.terminal import out
from foldback.v1 import policy_pb2
from settings import Settings

NEXT_STEPS = """
[bold]Next[/]: open [bold cyan]{page}[/], or in another terminal:
  [cyan]foldback chat[/]      talk to it; one key rates an answer
  [cyan]foldback simulate[/]  let simulated users teach it a taste
  [cyan]foldback status[/]    what it serves, what it has learned
  [cyan]foldback doctor[/]    whether all is well, and what to do if not
[dim]Ctrl-C stops everything.[/]
"""


def run_up(settings: Settings) -> None:
    settings = settle_ports(settings)
    run_until_stopped(_up(settings))


async def _up(settings: Settings) -> None:
    async with running(settings) as supervisor:
        console = settings.console
        out.print(NEXT_STEPS.format(page=f"http://{reachable(console.web_host)}:{console.web_port}"))
        swaps = asyncio.create_task(_announce_swaps(settings))
        try:
            await supervisor.keep(_tell)
        except ServiceFailed as failure:
            # At once: stopping the others may take as long as their last requests do.
            out.print(f"[bold red]✗[/] {escape(failure.how)}")
            raise
        finally:
            swaps.cancel()
            out.print("stopping web page, trainer, server and broker …", style="dim")


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Supervisor]:
    """All children healthy inside, stopped after; prints a line each as they come up.

    Raises:
        CommandError: a child did not become healthy, or ended.
    """
    log_dir = settings.data_dir / "logs"
    model = Path(settings.model.name).name
    out.print(f"[bold]Foldback[/] · {model} · data in {settings.data_dir} · logs in {log_dir}", soft_wrap=True)
    console = settings.console
    async with Supervisor(
        log_dir, start_timeout_s=console.start_timeout_s, stop_timeout_s=console.stop_timeout_s
    ) as supervisor:
        for service in services(settings):
            log = supervisor.log(service.name)
            with out.status(f"{service.name} is starting [dim](tail -f {log})[/]"):
                seconds = await supervisor.start(service)
            out.print(f" [green]✓[/] {service.name:8} {service.where} [dim]{seconds:.1f} s[/]", soft_wrap=True)
        yield supervisor


def _tell(news: str) -> None:
    out.print(f"[dim]{time.strftime('%H:%M:%S', time.gmtime())} UTC[/] {escape(news)}", soft_wrap=True)


async def _announce_swaps(settings: Settings) -> None:
    """A line whenever another version takes over from now on."""
    began = time.time_ns()
    try:
        async with Client.of(settings) as client:
            seen = set()
            async for transition in client.watch_policies():
                news = transition.time.ToNanoseconds() >= began and transition.sequence not in seen
                if transition.to == policy_pb2.POLICY_STATE_ACTIVE and news:
                    seen.add(transition.sequence)
                    when = transition.time.ToDatetime().strftime("%H:%M:%S")
                    out.print(f"[dim]{when} UTC[/] serving [bold]{transition.version}[/] [dim]{transition.reason}[/]")
    except Exception as error:
        if not is_rpc_error(error):
            raise


def run_until_stopped(main: Coroutine[Any, Any, None]) -> None:
    """Run `main`; Ctrl-C, SIGTERM and a closed terminal cancel it, so that its `finally` blocks stop the children."""
    try:
        asyncio.run(_with_signals(main))
    except (KeyboardInterrupt, asyncio.CancelledError):
        out.print("stopped", style="dim")


async def _with_signals(main: Coroutine[Any, Any, None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    await main


def scratch_environment(data_dir: Path) -> None:
    """Point this process and its children at `data_dir` and at free ports."""
    os.environ["FOLDBACK_DATA_DIR"] = str(data_dir)
    for field in ("SERVER__PORT", "SERVER__ADMIN_PORT", "SERVER__METRICS_PORT", "TRAINER__METRICS_PORT"):
        os.environ[f"FOLDBACK_{field}"] = "0"
    for field in ("BROKER_PORT", "WEB_PORT"):
        os.environ[f"FOLDBACK_CONSOLE__{field}"] = "0"
