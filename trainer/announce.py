"""What the trainer writes into the registry's log also goes onto the policies topic."""

import asyncio
import threading
from pathlib import Path

from feedback.eventlog import EventLog
from feedback.transition import transition_event
from registry import Registry, Transition
from registry.message import transition_message
from settings.feedback import FeedbackSettings


class Announcer:
    """An event log on a loop of its own, as the trainer's threads are not asynchronous. A context manager."""

    def __init__(self, settings: FeedbackSettings, spool_path: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._log = EventLog(settings, spool_path)
        self._thread = threading.Thread(target=self._loop.run_forever, name="announcer", daemon=True)

    def __enter__(self) -> "Announcer":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._log.start(), self._loop).result()
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._log.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def follow(self, registry: Registry) -> None:
        """Announce every move that this process writes from now on; the registry never waits for it."""

        def tell(transition: Transition) -> None:
            event = transition_event(transition_message(transition))
            self._loop.call_soon_threadsafe(self._log.emit_soon, [event])

        registry.listen(tell)
