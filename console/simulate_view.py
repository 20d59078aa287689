"""`foldback simulate` as it is seen: one live line, and a summary."""

import asyncio
from contextlib import suppress

from rich.live import Live
from rich.text import Text

from console.client import Client
from console.errors import CommandError
from console.simulate import Crowd, Tally, simulate
from console.terminal import out
from settings import Settings

REFRESH_S = 0.5
PLAIN_REFRESH_S = 10.0


def run_simulation(settings: Settings, crowd: Crowd, conversations: int | None) -> None:
    """Raises CommandError if a request failed."""
    persona = crowd.persona
    out.print(f"[bold]{persona.name}[/] likes: {persona.likes}")
    out.print(f"[dim]{crowd.users} users, {crowd.rate:g} conversations/s, Ctrl-C ends it[/]")
    tally = Tally()
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(settings, crowd, tally, conversations))
    out.print(summary(tally))
    if tally.failures:
        raise CommandError(f"{tally.failures} requests failed; is the server well? 'foldback status' tells")


async def _run(settings: Settings, crowd: Crowd, tally: Tally, conversations: int | None) -> None:
    stop = asyncio.Event()
    async with Client.of(settings, attempts=1) as client:
        # A first health check gives one clear message where there is no server, rather than failures by the second.
        await client.health()
        shown = asyncio.create_task(show(tally, stop))
        try:
            await simulate(client, crowd, tally, stop, conversations)
        finally:
            stop.set()
            await shown


async def show(tally: Tally, stop: asyncio.Event) -> None:
    """The line, live on a terminal, now and then elsewhere."""
    if not out.is_terminal:
        while not await _passed(stop, PLAIN_REFRESH_S):
            out.print(summary(tally))
        return
    with Live(summary(tally), console=out, refresh_per_second=4, transient=True) as live:
        while not await _passed(stop, REFRESH_S):
            live.update(summary(tally))


def summary(tally: Tally) -> Text:
    utility = "–" if tally.mean_utility is None else f"{tally.mean_utility:.2f}"
    failed = ", ".join(f"{code} {count}" for code, count in tally.failed.items())
    return Text.assemble(
        f"served {tally.served} · rated {tally.rated} ({tally.rankings} rankings, {tally.thumbs} thumbs) · ",
        (f"failed {failed or 0}", "bold red" if failed else ""),
        " · mean utility ",
        (utility, "bold"),
        f" · {tally.versions[-1] if tally.versions else 'no version yet'}",
    )


async def _passed(stop: asyncio.Event, seconds: float) -> bool:
    """Wait; whether `stop` was set meanwhile."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True
