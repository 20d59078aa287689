"""`python -m harness.feedback_server logged|cut BROKER MODEL`: a server for bench/event_log.py; prints its address.

Both are the whole server over an engine that answers at once. `cut` says BROKER to each feedback and logs nothing.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import server.app
from feedback.eventlog import Durability, EventLog
from harness.fake_engine import FakeEngine
from harness.processes import bench_settings
from server.app import running


class CutLog(EventLog):
    async def emit(self, *_: Any, **__: Any) -> Durability:
        return Durability.BROKER


async def serve(kind: str, broker: str, model: str) -> None:
    if kind == "cut":
        server.app.EventLog = CutLog  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        settings = bench_settings(Path(folder), model, broker)
        # As before brokers that keep what they have acknowledged; and no rater is told to slow down.
        changes = {"keep_until_read": "never", "rater_per_minute": 0.0}
        changed = settings.model_copy(update={"feedback": settings.feedback.model_copy(update=changes)})
        async with running(changed, FakeEngine()) as started:
            print(started.announce(), flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
