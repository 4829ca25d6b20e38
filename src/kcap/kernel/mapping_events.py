# SPDX-License-Identifier: Apache-2.0
"""What processes map to execute, as the kernel tells it: PERF_RECORD_MMAP and its companions.

Short-lived processes have ended, and /proc knows nothing of them any more, when their addresses are
to be named. A perf event of the kind that counts nothing (PERF_COUNT_SW_DUMMY) reports every
executable mapping, fork and exec while they happen. See perf_event_mmap, perf_event_comm and
perf_event_fork in kernel/events/core.c.
"""

from __future__ import annotations

import errno
import os
from struct import Struct
from typing import NamedTuple

from kcap.closing import Closing
from kcap.kernel import cpus, perf_events, uapi
from kcap.kernel.errors import SyscallError, syscall_error
from kcap.kernel.perf import PerfRing

#: Pages of each CPU's ring: room for some thousand records between two looks.
PAGES = 32
# Bits of struct perf_event_attr.
_MMAP, _COMM, _TASK, _SAMPLE_ID_ALL, _COMM_EXEC = 1 << 8, 1 << 9, 1 << 13, 1 << 18, 1 << 24
_RECORD_MMAP, _RECORD_COMM, _RECORD_FORK = 1, 3, 7
_MISC_COMM_EXEC = 1 << 13
_HEADER = Struct("<IHH")  # type, misc, size
_MMAP_FIXED = Struct("<IIQQQ")  # pid, tid, address, length, offset in the file
_PAIR = Struct("<II")  # FORK: pid, pid of the parent; COMM: pid, tid
_TIME = Struct("<Q")


class Mapped(NamedTuple):
    """A process mapped a file to execute it."""

    pid: int
    start: int
    end: int
    offset: int
    path: str


class Forked(NamedTuple):
    """A process began as the copy of another one."""

    pid: int
    parent: int


class Executed(NamedTuple):
    """A process executes another program; what it had mapped is gone."""

    pid: int


Change = Mapped | Forked | Executed


class MappingEvents(Closing):
    """Reports of all processes, from its creation on.

    :raises SyscallError: the kernel refused.
    """

    def __init__(self) -> None:
        self._rings: list[PerfRing] = []
        attr = perf_events.attribute(
            uapi.PERF_TYPE_SOFTWARE,
            uapi.PERF_COUNT_SW_DUMMY,
            sample_type=uapi.PERF_SAMPLE_TIME,
            flags=_MMAP | _COMM | _TASK | _SAMPLE_ID_ALL | _COMM_EXEC | perf_events.WATERMARK,
            wakeup=PAGES * 2048,
        )
        try:
            for cpu in cpus.online():
                fd = perf_events.open_event(attr, -1, cpu)
                try:
                    self._rings.append(PerfRing(fd, cpu, PAGES))
                except BaseException:
                    os.close(fd)
                    raise
        except OSError as error:
            self.close()
            raise syscall_error("watch the mappings of processes", error) from error
        except BaseException:
            self.close()
            raise

    def read(self) -> list[Change]:
        """What happened since the last look, in order.

        :raises SyscallError: a ring is corrupt.
        """
        found: list[tuple[int, Change]] = []
        for ring in self._rings:
            _read_ring(ring, found)
        found.sort(key=lambda item: item[0])
        return [change for _, change in found]

    def close(self) -> None:
        """Stop; doing it twice is harmless."""
        while self._rings:
            self._rings.pop().close()


def _read_ring(ring: PerfRing, found: list[tuple[int, Change]]) -> None:
    """Add (time, change) for each record of one CPU."""
    tail, head = ring.pending()
    mask, data = ring.size - 1, ring.data
    while tail < head:
        at = tail & mask
        kind, misc, size = _HEADER.unpack_from(data, at)  # aligned to 8: never cut in two
        if not size:
            raise SyscallError(f"the perf ring of CPU {ring.cpu} is corrupt", errno.EIO)
        record = bytes(data[at : at + size])
        record += bytes(data[: size - len(record)])
        change = _change(kind, misc, record)
        if change is not None:
            found.append((_TIME.unpack_from(record, size - _TIME.size)[0], change))
        tail += size
    ring.release(tail)


def _change(kind: int, misc: int, record: bytes) -> Change | None:
    """What a record tells, if it matters."""
    if kind == _RECORD_MMAP:
        pid, _, start, length, offset = _MMAP_FIXED.unpack_from(record, _HEADER.size)
        name = record[_HEADER.size + _MMAP_FIXED.size : -_TIME.size].partition(b"\0")[0]
        return Mapped(pid, start, start + length, offset, os.fsdecode(name))
    if kind == _RECORD_FORK:
        pid, parent = _PAIR.unpack_from(record, _HEADER.size)
        return Forked(pid, parent) if pid != parent else None  # else a thread
    if kind == _RECORD_COMM and misc & _MISC_COMM_EXEC:
        return Executed(_PAIR.unpack_from(record, _HEADER.size)[0])
    return None
