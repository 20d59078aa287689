"""Work on weights that decoding must not wait for."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_NICENESS = 10
"""Added to the process's: a tenth of its share where all cores are taken. Not less: it can hold the interpreter."""


def _step_back() -> None:
    # Linux knows a niceness for each thread; elsewhere the number would be a process that is not there.
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS, 19))


_aside = ThreadPoolExecutor(1, "weights-aside", initializer=_step_back)


async def aside(work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """`asyncio.to_thread`, but in a thread that gives way: reading, hashing and comparing hundreds of megabytes takes a
    core for a second, and streams would be heard to stutter."""
    return await asyncio.get_running_loop().run_in_executor(_aside, lambda: work(*arguments, **named))
