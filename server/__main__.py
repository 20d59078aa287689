"""`python -m server`: serves until SIGTERM or Ctrl-C, then drains."""

import asyncio
import gc
import logging
import os
import signal
import sys

# Read when torch is first imported. Threads that spin while they wait take the cores from whoever else needs them:
# beside a trainer, on 2 cores, a token costs many times as much.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from server.app import running
from server.engines.base import EngineDead
from settings import Settings, SettingsError, load


async def serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with running(settings) as server:
        leave_alone_what_is_loaded()
        print(server.announce(), flush=True)
        await stop.wait()
        print("draining", flush=True)


def leave_alone_what_is_loaded() -> None:
    """Half a million objects of libraries stay for good: a full garbage collection that goes over them takes a third of
    a second, in which no stream gets its next token."""
    gc.collect()
    gc.freeze()


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kafka").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(load()))
    except (SettingsError, EngineDead, OSError) as error:
        print(f"server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
