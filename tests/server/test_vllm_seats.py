"""Seats need no vLLM."""

import asyncio

import pytest

from server.engines.vllm_seats import Seats


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_those_who_wait_are_seated_in_order_of_asking() -> None:
    seats = Seats(4)
    assert await seats.take(3) == 3
    large = asyncio.create_task(seats.take(3))
    await settled()
    small = asyncio.create_task(seats.take(1))
    await settled()
    assert not large.done()
    assert not small.done(), "one seat is free, but the larger party came first"
    seats.give_back(3)
    await settled()
    assert (large.result(), small.result()) == (3, 1)


async def test_more_than_there_are_means_all() -> None:
    seats = Seats(2)
    assert await seats.take(8) == 2
    seats.give_back(2)
    assert await seats.take(2) == 2


async def test_who_leaves_the_line_holds_nothing() -> None:
    seats = Seats(3)
    assert await seats.take(2) == 2
    waiting = asyncio.create_task(seats.take(3))
    await settled()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.wait_for(seats.take(1), 1) == 1
