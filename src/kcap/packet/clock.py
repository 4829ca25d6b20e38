# SPDX-License-Identifier: Apache-2.0
"""The difference between CLOCK_REALTIME and CLOCK_MONOTONIC, which BPF programs add to their time.

NTP slews both clocks alike (kernel/time/timekeeping.c), so the difference is constant but for
steps: somebody sets the clock, a leap second, a suspend (CLOCK_MONOTONIC stands still). Measuring
it takes three clock reads and is off by some tens of nanoseconds; taking every measurement would
make that jitter visible in captures, so a new value replaces the old one only when it differs by
more than a measurement can be off.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: A change smaller than this is taken for an error of measurement, nanoseconds.
STEP_NS: Final = 20_000


def measure_offset(
    *,
    monotonic: Callable[[], int] = time.monotonic_ns,
    realtime: Callable[[], int] = time.time_ns,
    rounds: int = 16,
) -> tuple[int, int]:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, nanoseconds, and how far off it can be.

    :param rounds: how often to read; the round with the shortest bracket counts.
    """
    best = (0, 1 << 62)
    for _ in range(rounds):
        before = monotonic()
        now = realtime()
        after = monotonic()
        if after - before < best[1]:
            best = (now - (before + after) // 2, after - before)
    return best[0], (best[1] + 1) // 2


class RealtimeOffset:
    """Keeps the offset right during a trace.

    :param store: puts a new value where the BPF programs read it (``realtime_offset`` in
        ``skb_record``'s algorithm); called once at once, then after every step of the clock.
    """

    def __init__(self, store: Callable[[int], None]) -> None:
        self._store = store
        self.value, _ = measure_offset(rounds=64)
        store(self.value)

    def refresh(self) -> bool:
        """Look again; to be called on every tick (100 ms). True when the clock was stepped."""
        value, error = measure_offset(rounds=2)
        if abs(value - self.value) <= max(STEP_NS, 2 * error):
            return False
        self.value, _ = measure_offset()
        self._store(self.value)
        return True
