# SPDX-License-Identifier: Apache-2.0
"""Awaiting what a thread iterates over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from kcap.session import awaited
from kcap.session.awaited import Awaited


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
