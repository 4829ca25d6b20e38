# SPDX-License-Identifier: Apache-2.0
"""Events that come through rings of their own, in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Generic, TypeVar

Event = TypeVar("Event")

#: A record is in its ring at most so long after its time was taken, in nanoseconds.
SETTLED_NS = 2_000_000


class InOrder(Generic[Event]):
    """Holds events back until all that happened before them must be there, too."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Event]] = []
        self._order = count()

    def add(self, mono_ns: int, event: Event) -> None:
        """Hold an event back; ``mono_ns`` is its time, CLOCK_MONOTONIC."""
        heapq.heappush(self._waiting, (mono_ns, next(self._order), event))

    def settled(self, looked_ns: int) -> Iterator[Event]:
        """Take what is complete after a look at all rings (:class:`kcap.functions.events.Looked`).

        :param looked_ns: when that began, CLOCK_MONOTONIC.
        """
        return self._until(looked_ns - SETTLED_NS)

    def rest(self) -> Iterator[Event]:
        """Take all: nothing more will come."""
        return self._until(1 << 63)

    def _until(self, mono_ns: int) -> Iterator[Event]:
        while self._waiting and self._waiting[0][0] < mono_ns:
            yield heapq.heappop(self._waiting)[2]
