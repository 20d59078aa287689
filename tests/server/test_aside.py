"""Work on weights gives way to what serves, and only it does."""

import os
import sys
import threading

import pytest

from server.engines.aside import aside


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own there")
async def test_it_runs_in_a_thread_that_gives_way_while_ours_does_not() -> None:
    before = niceness()
    assert await aside(niceness) == min(before + 10, 19)
    assert niceness() == before


async def test_what_it_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await aside(divmod, 1, 0)
