"""A worker's requests are limited per host."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from app.outbound import NotThere, OutboundError
from worker.host_limiter import HostLimiter


@asynccontextmanager
async def in_flight(hosts: HostLimiter, name: str, times: int) -> AsyncIterator[int]:
    """Up to `times` requests to the host, as many as are allowed, while the block runs."""
    async with AsyncExitStack() as stack:
        sent = 0
        while sent < times and not hosts.wait(name):
            await stack.enter_async_context(hosts.request(name))
            sent += 1
        yield sent


async def fail(hosts: HostLimiter, name: str) -> None:
    with pytest.raises(OutboundError):
        async with hosts.request(name):
            raise OutboundError("no answer")


async def test_a_host_has_its_share_and_no_more() -> None:
    hosts = HostLimiter(100, each=10)
    async with in_flight(hosts, "one", 50) as sent:
        assert sent == 10
        assert hosts.wait("other") == 0
    assert hosts.wait("one") == 0


async def test_the_more_are_slow_the_less_each_takes_and_some_is_always_left() -> None:
    hosts = HostLimiter(20, each=10)
    async with in_flight(hosts, "one", 50) as one, in_flight(hosts, "two", 50) as two:
        assert (one, two) == (10, 5)
        async with in_flight(hosts, "three", 50) as three:
            assert three == 3
            assert hosts.wait("four") == 0


async def test_whoever_gave_no_answer_is_tried_by_one_request_until_it_does() -> None:
    hosts = HostLimiter(100, each=10)
    await fail(hosts, "one")
    async with in_flight(hosts, "one", 50) as sent:
        assert sent == 1
    async with in_flight(hosts, "one", 50) as sent:
        assert sent == 10


async def test_whoever_answers_with_a_refusal_is_not_silent() -> None:
    hosts = HostLimiter(100, each=10)
    with pytest.raises(NotThere):
        async with hosts.request("one"):
            raise NotThere("404")
    assert hosts.unresponsive_seconds("one") == 0


async def test_all_that_gave_no_answer_together_take_half() -> None:
    hosts = HostLimiter(10, each=10)
    for n in range(20):
        await fail(hosts, f"silent {n}")
    async with AsyncExitStack() as stack:
        sent = [await stack.enter_async_context(in_flight(hosts, f"silent {n}", 10)) for n in range(20)]
        assert sum(sent) == 5
        assert hosts.wait("another") == 0


async def test_whoever_waits_comes_back_one_after_another() -> None:
    hosts = HostLimiter(100, each=10)
    async with in_flight(hosts, "one", 10):
        waits = [hosts.wait("one") for _ in range(1000)]
    assert min(waits) > 0
    assert sum(waits[:100]) < sum(waits[100:200]) < sum(waits[200:300])
    assert waits[-1] < 1000 * 0.05 * 1.2 + 1


async def test_those_who_wait_for_the_silent_stand_in_one_line() -> None:
    """So they cost no more if more hosts are silent."""
    hosts = HostLimiter(100, each=10)
    for n in range(100):
        await fail(hosts, f"silent {n}")
    async with AsyncExitStack() as stack:
        for n in range(100):
            await stack.enter_async_context(in_flight(hosts, f"silent {n}", 1))
        waits = [hosts.wait(f"silent {n}") for n in range(100) for _ in range(10)]
        assert hosts.wait("another") == 0
    assert waits[-1] > 1000 * 0.05 - 1, "twenty a second"
    assert waits == pytest.approx(sorted(waits), rel=0.25)
