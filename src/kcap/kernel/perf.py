# SPDX-License-Identifier: Apache-2.0
"""Reading what programs send through a BPF_MAP_TYPE_PERF_EVENT_ARRAY.

Each CPU has a ring of its own: one page of control (``struct perf_event_mmap_page``), then a power
of two of pages with records. The kernel moves ``data_head``, the reader ``data_tail``; a record
that would run over the ring's end continues at its beginning. See
include/uapi/linux/perf_event.h and kernel/events/ring_buffer.c.
"""

from __future__ import annotations

import errno
import os
import select
from mmap import MAP_POPULATE, MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE, mmap
from struct import pack
from typing import TYPE_CHECKING, NamedTuple

from kcap.closing import Closing
from kcap.kernel import cpus, perf_events, uapi
from kcap.kernel.barrier import barrier
from kcap.kernel.errors import SyscallError, syscall_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kcap.kernel.maps import Map
    from kcap.kernel.syscall import Buffer

# Index of data_head and data_tail in the control page, in units of 8 bytes (offset 1024, 1032).
_HEAD, _TAIL = 128, 129


class Batch(NamedTuple):
    """What a ring held.

    :ivar samples: the raw data of each sample: what the program passed, padded with zeros so
        that 4 bytes more are a multiple of 8. Views into the ring (copies where a record runs
        over its end), valid until ``release``.
    :ivar lost: samples the kernel dropped because the ring was full, as far as it has said so:
        it says so with the next sample that fits.
    """

    samples: list[memoryview]
    lost: int


class PerfRing:
    """One CPU's ring.

    :param fd: the perf event, which this object then owns.
    :param cpu: its CPU.
    :param pages: data pages, a power of two.
    :raises OSError: the kernel can't map the ring (EPERM: perf_event_mlock_kb).
    """

    def __init__(self, fd: int, cpu: int, pages: int) -> None:
        self.cpu = cpu
        self.size = pages * PAGESIZE
        self._fd = fd
        # Populated: to find a page when the first record in it is read takes longer than reading.
        self._map = mmap(
            fd, self.size + PAGESIZE, MAP_SHARED | MAP_POPULATE, PROT_READ | PROT_WRITE
        )
        whole = memoryview(self._map)
        self._control = whole[:PAGESIZE].cast("Q")
        self.data = whole[PAGESIZE:].toreadonly()
        self._headers = self.data.cast("Q")
        self._whole = whole
        self._next = self._control[_TAIL]

    @property
    def address(self) -> int:
        """Where ``data`` is in memory, for those who walk the records in machine code."""
        from ctypes import addressof, c_char

        return addressof(c_char.from_buffer(self._map, PAGESIZE))

    def fileno(self) -> int:
        """The perf event's file descriptor, readable when the ring has reached its watermark."""
        return self._fd

    def pending(self) -> tuple[int, int]:
        """(tail, head): positions of unread records in bytes, growing for ever; modulo ``size``
        they are places in ``data``. For those who walk the records themselves."""
        head = self._control[_HEAD]
        barrier()
        return self._control[_TAIL], head

    def read(self) -> Batch:
        """All complete records; call ``release`` when done with them."""
        tail, head = self.pending()
        mask, data, headers = self.size - 1, self.data, self._headers
        samples: list[memoryview] = []
        add, lost = samples.append, 0
        while tail < head:
            at = tail & mask
            header = headers[at >> 3]  # records are aligned to 8: type u32, misc u16, size u16
            size = header >> 48
            if header & 0xFFFFFFFF == uapi.PERF_RECORD_SAMPLE:
                # u32 size of the raw data, then the data
                start = at + 12
                end = start + (headers[(at + 8 & mask) >> 3] & 0xFFFFFFFF)
                add(data[start:end] if end <= mask + 1 else self._join(start, end))
            elif header & 0xFFFFFFFF == uapi.PERF_RECORD_LOST:  # u64 id, u64 lost
                lost += headers[(at + 16 & mask) >> 3]
            if not size:  # can't be, and would never end
                raise SyscallError(f"the perf ring of CPU {self.cpu} is corrupt", errno.EIO)
            tail += size
        self._next = tail
        return Batch(samples, lost)

    def _join(self, start: int, end: int) -> memoryview:
        if start >= self.size:
            return self.data[start - self.size : end - self.size]
        return memoryview(bytes(self.data[start:]) + bytes(self.data[: end - self.size]))

    def release(self, tail: int | None = None) -> None:
        """Give the space of the records read back to the kernel.

        :param tail: up to this position; by default what the last ``read`` returned.
        """
        barrier()
        self._control[_TAIL] = self._next if tail is None else tail

    def close(self) -> None:
        """Close the ring; doing it twice is harmless.

        Memory stays mapped as long as somebody holds a view of a record.
        """
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        os.close(fd)
        try:
            for view in (self._headers, self._control, self.data, self._whole):
                view.release()
            self._map.close()
        except BufferError:  # a record is still in use: the last view frees the memory
            pass


class PerfReader(Closing):
    """The rings of all online CPUs.

    :param array: the map, whose entry of each CPU is set.
    :param pages: data pages a CPU, a power of two.
    :param watermark: wake up when so many bytes are unread; 0: for every sample.
    :raises SyscallError: the kernel refused.
    """

    def __init__(self, array: Map, pages: int, watermark: int = 0) -> None:
        if pages < 1 or pages & pages - 1:
            raise ValueError(f"{pages} pages: a perf ring has a power of two of them")
        self.rings: list[PerfRing] = []
        self._poll = select.epoll()
        attr = perf_events.attribute(
            uapi.PERF_TYPE_SOFTWARE,
            uapi.PERF_COUNT_SW_BPF_OUTPUT,
            period=1,
            sample_type=uapi.PERF_SAMPLE_RAW,
            flags=perf_events.WATERMARK if watermark else 0,
            wakeup=watermark or 1,
        )
        try:
            for cpu in cpus.online():
                self._open(attr, cpu, pages)
            for ring in self.rings:
                array.update(pack("<I", ring.cpu), pack("<I", ring.fileno()))
        except OSError as error:
            self.close()
            hint = None
            if error.errno in (errno.EPERM, errno.ENOMEM):
                hint = "ask for a smaller ring, or raise kernel.perf_event_mlock_kb"
            raise syscall_error("open a perf ring", error, hint=hint) from error
        except BaseException:
            self.close()
            raise

    def _open(self, attr: Buffer, cpu: int, pages: int) -> None:
        try:
            fd = perf_events.open_event(attr, -1, cpu)
        except OSError as error:
            if error.errno == errno.ENODEV:  # went offline since the list was read
                return
            raise
        try:
            ring = PerfRing(fd, cpu, pages)
        except BaseException:
            os.close(fd)
            raise
        self.rings.append(ring)
        self._poll.register(fd, select.EPOLLIN)

    def fileno(self) -> int:
        """A descriptor that is readable when one of the rings is."""
        return self._poll.fileno()

    def poll(self, timeout: float) -> Sequence[PerfRing]:
        """Wait until rings have reached their watermark.

        :param timeout: seconds.
        :return: those that have; none after the time is over (they may hold records all the same).
        """
        ready = {fd for fd, _ in self._poll.poll(timeout)}
        return [ring for ring in self.rings if ring.fileno() in ready]

    def close(self) -> None:
        """Close all rings; doing it twice is harmless."""
        self._poll.close()
        for ring in self.rings:
            ring.close()
