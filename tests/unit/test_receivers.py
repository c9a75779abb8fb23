"""How a worker's requests are shared among receivers of callbacks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.outbound import OutboundError
from worker.receivers import Receivers


@asynccontextmanager
async def under_way(receivers: Receivers, name: str, times: int) -> AsyncIterator[int]:
    """As many requests to it as are let through, but `times` at most, for as long as the block lasts."""
    free = asyncio.Event()
    sent: list[asyncio.Task[bool]] = []
    while len(sent) < times and not receivers.wait(name):
        sent.append(asyncio.create_task(receivers.send(name, free.wait)))
        await asyncio.sleep(0)
    yield len(sent)
    free.set()
    await asyncio.gather(*sent)


async def fail(receivers: Receivers, name: str) -> None:
    async def nobody() -> None:
        raise OutboundError("no answer")

    with pytest.raises(OutboundError):
        await receivers.send(name, nobody)


async def succeed(receivers: Receivers, name: str) -> None:
    await receivers.send(name, lambda: asyncio.sleep(0))


async def test_a_receiver_has_its_share_and_no_more() -> None:
    receivers = Receivers(100, each=10)
    async with under_way(receivers, "one", 50) as sent:
        assert sent == 10
        assert receivers.wait("other") == 0
    assert receivers.wait("one") == 0


async def test_the_more_are_slow_the_less_each_takes_and_some_is_always_left() -> None:
    receivers = Receivers(20, each=10)
    async with under_way(receivers, "one", 50) as one, under_way(receivers, "two", 50) as two:
        assert (one, two) == (10, 5)
        async with under_way(receivers, "three", 50) as three:
            assert three == 3
            assert receivers.wait("four") == 0


async def test_whoever_gave_no_answer_is_tried_by_one_request_until_it_does() -> None:
    receivers = Receivers(100, each=10)
    await fail(receivers, "one")
    async with under_way(receivers, "one", 50) as sent:
        assert sent == 1
    async with under_way(receivers, "one", 50) as sent:
        assert sent == 10


async def test_all_that_gave_no_answer_together_take_half() -> None:
    receivers = Receivers(10, each=10)
    for n in range(20):
        await fail(receivers, f"silent {n}")
    waiting = asyncio.Event()
    sent = 0
    tasks = []
    for n in range(20):
        if not receivers.wait(f"silent {n}"):
            tasks.append(asyncio.create_task(receivers.send(f"silent {n}", waiting.wait)))
            await asyncio.sleep(0)
            sent += 1
    assert sent == 5
    assert receivers.wait("another") == 0
    waiting.set()
    await asyncio.gather(*tasks)


async def test_whoever_waits_is_spread_over_time_but_not_over_too_much() -> None:
    receivers = Receivers(100, each=10)
    async with under_way(receivers, "one", 10):
        waits = [receivers.wait("one") for _ in range(1000)]
    assert min(waits) > 0
    assert sum(waits[:100]) < sum(waits[100:200]) < sum(waits[200:300])
    assert max(waits) <= 30


async def test_when_it_is_back_nobody_is_sent_away_for_long() -> None:
    receivers = Receivers(100, each=10)
    await fail(receivers, "one")
    async with under_way(receivers, "one", 1):
        for _ in range(1000):
            receivers.wait("one")
    await succeed(receivers, "one")
    async with under_way(receivers, "one", 10):
        assert receivers.wait("one") < 1
