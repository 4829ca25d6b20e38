# SPDX-License-Identifier: Apache-2.0
"""Awaiting what a thread iterates over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from kcap.functions.events import Lost
from kcap.packet.decode import Packet
from kcap.records import replace
from kcap.session import awaited
from kcap.session.awaited import Awaited
from kcap.session.capture import CaptureRequest
from kcap.session.drops import Drops
from kcap.session.follow import Follow
from kcap.session.in_order import InOrder
from kcap.session.iteration import Iteration, Reading
from kcap.session.journey import Function, Tracker

PACKET = Packet(
    time_ns=1, mono_ns=1, site=0, path="", probe="", function="", link_type=1, data=bytes(60),
    original_length=60, interface="eth0", ifindex=2, netns=40, direction="in", protocol=0x800,
    vlan=None, mark=0, queue=0, skb=1, pid=7, tid=7, comm="nc", cpu=1, made_header=False,
    linear_only=False,
)  # fmt: skip


class Source:
    """Numbers, until it is stopped."""

    def __init__(self) -> None:
        self.made = 0
        self.finished = False
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def __iter__(self) -> Iterator[int]:
        while not self._stopped.is_set():
            self.made += 1
            yield self.made
        self.finished = True


def test_all_come_in_order_then_what_was_raised() -> None:
    def source() -> Iterator[int]:
        yield from range(1000)
        raise ValueError("no more")

    found: list[int] = []

    async def run() -> None:
        async for number in Awaited(source(), lambda: None):
            found.append(number)

    with pytest.raises(ValueError, match="no more"):
        asyncio.run(run())
    assert found == list(range(1000))


def test_other_tasks_have_their_turn_and_may_end_it() -> None:
    source = Source()

    async def stop_soon() -> None:
        await asyncio.sleep(0)
        source.stop()

    async def run() -> int:
        stopping = asyncio.create_task(stop_soon())
        count = 0
        async for _ in Awaited(source, source.stop):
            count += 1
        await stopping
        return count

    assert asyncio.run(run()) == source.made
    assert source.finished


def test_leaving_the_loop_early_ends_the_iteration_at_closing() -> None:
    source = Source()

    async def run() -> None:
        numbers = Awaited(source, source.stop)
        assert await anext(numbers) == 1
        numbers.close()

    asyncio.run(run())
    assert source.finished


def test_no_more_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaited, "MOST_WAITING", 10)
    source = Source()

    async def run() -> None:
        numbers = Awaited(source, source.stop)
        while source.made < 11:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert source.made == 11
        numbers.close()

    asyncio.run(run())


def test_an_iteration_is_for_both_kinds_of_loops() -> None:
    source, reading = Source(), Reading()

    async def run(numbers: Iteration[int]) -> list[int]:
        found = [await anext(aiter(numbers))]
        async for number in numbers:  # goes on where it was left
            found.append(number)
            if number == 5:
                break
        return found

    assert asyncio.run(run(Iteration(iter(source), source.stop, reading))) == [1, 2, 3, 4, 5]
    assert not source.finished
    reading.close()
    assert source.finished
    numbers = Iteration(iter(range(3)), lambda: None, Reading())
    assert [next(numbers), *numbers] == [0, 1, 2]


class Told(Drops):
    """Drops of a trace that is a list of events."""

    def __init__(self, trace: object) -> None:
        self._trace = trace  # type: ignore[assignment]
        self._messages, self._reading = [], Reading()


class Events:
    """In the place of a trace: two packets, and a loss."""

    tell_looks = False
    stopped = False

    def __iter__(self) -> Iterator[object]:
        for number in (1, 2):
            yield replace(PACKET, skb=number, mono_ns=number, reason=f"reason {number}")
        yield Lost(1, "packet", "")

    def stop(self) -> None:
        self.stopped = True


def test_dropped_packets_can_be_awaited() -> None:
    drops = Told(events := Events())

    async def run() -> list[str]:
        return [dropped.reason async for dropped in drops.packets()]

    assert asyncio.run(run()) == ["reason 1", "reason 2"]
    assert [type(each) for each in drops.messages] == [Lost]
    drops._reading.close()
    assert events.stopped


class Followed(Follow):
    """Ways in a trace that is a list of events."""

    def __init__(self) -> None:
        self.request = CaptureRequest(())
        self._trace = Events()  # type: ignore[assignment]
        self._messages, self._reading, self._waiting = [], Reading(), InOrder()
        self.tracker = Tracker(lambda address: (Function("f", ""), 0))

    def attach(self) -> None:
        pass


def test_journeys_can_be_awaited() -> None:
    follow = Followed()

    async def run() -> list[int]:
        return [journey.skb async for journey in follow.journeys()]

    assert asyncio.run(run()) == [1, 2]
    assert follow.losses == 1
