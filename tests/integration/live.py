"""A `foldback up` that has learned something: simulated users taught it until a version of its own making took over."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from console.personas import Persona
from console.simulate import Crowd, Tally, simulate
from foldback.v1.policy_pb2 import POLICY_STATE_ACTIVE
from tests.integration.stack import Stack


def loves_e(text: str) -> float:
    """Share of the letter e: a taste that a model of random weights can meet."""
    letters = [character for character in text.lower() if character.isalpha()]
    return letters.count("e") / len(letters) if letters else 0.0


PERSONA = Persona("loves_e", loves_e, noise=0.03, indifference=0.0, abstain_rate=0.1, thumb_threshold=0.1)
CROWD = Crowd(PERSONA, users=3, rate=6, candidate_count=4, max_tokens=16, thumbs_share=0.2)


@contextmanager
def users(stack: Stack) -> Iterator[Tally]:
    """Users who ask and rate while the block runs, in a thread of their own."""
    tally, loop, stop = Tally(), asyncio.new_event_loop(), asyncio.Event()

    async def teach() -> None:
        async with stack.client() as client:
            await simulate(client, CROWD, tally, stop)

    thread = threading.Thread(target=loop.run_until_complete, args=(teach(),))
    thread.start()
    try:
        yield tally
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()


def until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.2)


def has_learned(stack: Stack) -> bool:
    """A version that was trained here is active."""

    async def ask() -> bool:
        async with stack.client() as client:
            listed = await client.list_policies()
        return any(policy.parent and policy.state == POLICY_STATE_ACTIVE for policy in listed.policies)

    return asyncio.run(ask())
