# SPDX-License-Identifier: Apache-2.0
"""CPU time of a process, exactly, and how much of it in user space; what its BPF programs took.

How long threads have run is known to the nanosecond (schedstat). What times(2) says of user and
system time is counted in ticks of some milliseconds, too coarse for a process that seldom runs: the
share is sampled instead, every 50 µs that the process runs, by a perf event of its own.
"""

from __future__ import annotations

import os
import re
from mmap import MAP_SHARED, PAGESIZE, PROT_READ, mmap
from pathlib import Path
from typing import NamedTuple

from benchmarks.guest.tracers import running_time
from kcap.kernel import perf_events, uapi

_PERIOD_NS = 50_000
#: A sample is a header of 8 bytes and nothing else.
_PAGES = 64
_HEAD = 1024 // 8  # data_head in struct perf_event_mmap_page
_MISC_MASK, _MISC_KERNEL, _MISC_USER = 7, 1, 2


class Used(NamedTuple):
    """What a process took between two looks.

    :ivar user: seconds of CPU in user space.
    :ivar system: seconds of CPU in the kernel.
    :ivar bpf_ns: nanoseconds that its BPF programs took, wherever they ran.
    :ivar bpf_runs: how often they ran.
    """

    user: float
    system: float
    bpf_ns: int
    bpf_runs: int


class Meter:
    """Measures a process from here until :meth:`stop`.

    :param pid: the process; samples are taken of its first thread.
    :raises OSError: the kernel allows no perf event.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        attr = perf_events.attribute(
            uapi.PERF_TYPE_SOFTWARE, uapi.PERF_COUNT_SW_CPU_CLOCK, period=_PERIOD_NS
        )
        self._fd = perf_events.open_event(attr, pid, -1)
        # Read only: the kernel goes round without asking what has been read.
        self._ring = mmap(self._fd, (1 + _PAGES) * PAGESIZE, MAP_SHARED, PROT_READ)
        self._bpf = _bpf(pid)
        self._running = running_time(pid)

    def stop(self) -> Used:
        """What it took meanwhile."""
        running = running_time(self._pid) - self._running
        nanoseconds, runs = _bpf(self._pid)
        user, kernel = self._samples()
        os.close(self._fd)
        in_user = running * user / max(user + kernel, 1)
        return Used(
            in_user, running - in_user, nanoseconds - self._bpf[0], runs - self._bpf[1]
        )  # fmt: skip

    def _samples(self) -> tuple[int, int]:
        """How many were taken in user space and in the kernel."""
        words = memoryview(self._ring).cast("Q")
        taken = min(words[_HEAD] // 8, _PAGES * PAGESIZE // 8)
        first = PAGESIZE // 8
        where = [words[first + number] >> 32 & _MISC_MASK for number in range(taken)]
        words.release()
        self._ring.close()
        return where.count(_MISC_USER), where.count(_MISC_KERNEL)


def _bpf(pid: int) -> tuple[int, int]:
    """Nanoseconds and runs of a process's BPF programs."""
    nanoseconds = runs = 0
    seen = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        text = entry.read_text()
        program = re.search(r"prog_id:\s+(\d+)", text)
        time_ns = re.search(r"run_time_ns:\s+(\d+)", text)
        count = re.search(r"run_cnt:\s+(\d+)", text)
        if program and time_ns and count and program[1] not in seen:
            seen.add(program[1])
            nanoseconds += int(time_ns[1])
            runs += int(count[1])
    return nanoseconds, runs
