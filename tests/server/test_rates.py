"""A rater's bucket: bounded in rate, in burst and in memory."""

import grpc
import pytest
from google.rpc import error_details_pb2

from server.rates import RaterRates
from server.status import Refused


def test_a_burst_then_the_rate_and_nobody_else_is_held_up() -> None:
    rates = RaterRates(per_minute=60, burst=3)
    for _ in range(3):
        rates.take("t", "flood", now=0.0)
    with pytest.raises(Refused) as refused:
        rates.take("t", "flood", now=0.25)
    assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in refused.value.status.details)
    assert retry.retry_delay.ToMilliseconds() == 750
    rates.take("t", "other", now=0.25)
    rates.take("u", "flood", now=0.25)
    rates.take("t", "flood", now=1.0)
    with pytest.raises(Refused):
        rates.take("t", "flood", now=1.5)


def test_refusals_cost_no_tokens_and_memory_is_bounded() -> None:
    rates = RaterRates(per_minute=60, burst=1, capacity=10)
    rates.take("t", "a", now=0.0)
    for _ in range(50):
        with pytest.raises(Refused):
            rates.take("t", "a", now=0.5)
    rates.take("t", "a", now=1.0)
    for number in range(100):
        rates.take("t", f"r{number}", now=1.0)
    assert len(rates) == 10


def test_zero_is_no_limit() -> None:
    rates = RaterRates(per_minute=0, burst=1)
    for _ in range(1000):
        rates.take("t", "a")
    assert len(rates) == 0
