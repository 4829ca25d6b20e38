# SPDX-License-Identifier: Apache-2.0
"""From the kernel's clocks to the time of day.

Programs stamp events with bpf_ktime_get_ns (CLOCK_MONOTONIC) or bpf_ktime_get_boot_ns
(CLOCK_BOOTTIME). The offset to CLOCK_REALTIME changes when somebody sets the clock or NTP slews
it: measure again from time to time.
"""

from __future__ import annotations

import time
from typing import NamedTuple

_ROUNDS = 16


class Offset(NamedTuple):
    """Realtime minus another clock.

    :ivar nanoseconds: add this to a time stamp.
    :ivar uncertainty: at most so many nanoseconds off.
    """

    nanoseconds: int
    uncertainty: int


def realtime_offset(clock: int = time.CLOCK_MONOTONIC, rounds: int = _ROUNDS) -> Offset:
    """Measure the offset from a clock to CLOCK_REALTIME.

    :param clock: time.CLOCK_MONOTONIC or time.CLOCK_BOOTTIME.
    :param rounds: the tightest of so many measurements counts.
    """
    now = time.clock_gettime_ns
    best = Offset(0, 1 << 62)
    for _ in range(rounds):
        before = now(clock)
        real = now(time.CLOCK_REALTIME)
        after = now(clock)
        uncertainty = after - before + 1 >> 1
        if uncertainty < best.uncertainty:
            best = Offset(real - (before + after >> 1), uncertainty)
    return best


def boot_offset() -> Offset:
    """CLOCK_BOOTTIME minus CLOCK_MONOTONIC: the time the machine was suspended."""
    monotonic = realtime_offset(time.CLOCK_MONOTONIC)
    boot = realtime_offset(time.CLOCK_BOOTTIME)
    return Offset(
        monotonic.nanoseconds - boot.nanoseconds, monotonic.uncertainty + boot.uncertainty
    )
