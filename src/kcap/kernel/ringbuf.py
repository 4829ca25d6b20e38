# SPDX-License-Identifier: Apache-2.0
"""Reading a BPF_MAP_TYPE_RINGBUF (5.8 and later).

One ring for all CPUs. The first page holds the reader's position and is writable; the second
holds the writers' position, then come the data, mapped twice in a row so that no record is ever
cut. Each record has a header of 8 bytes whose first word is the length, with bit 31 set while the
program is still writing and bit 30 if it was discarded. See Documentation/bpf/ringbuf.rst.

A record that is submitted without flags wakes the reader if it begins just where the reader's
position is (bpf_ringbuf_commit in kernel/bpf/ringbuf.c). So it is for the reader to say whether it
wants to be woken: :meth:`RingReader.arm` puts the position where the next record will begin, and
:meth:`RingReader.release` a little before it. A burst costs one wake-up then, and what comes while
the reader is awake costs none.
"""

from __future__ import annotations

import errno
import select
import time
from mmap import MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE, mmap
from typing import TYPE_CHECKING

from kcap.closing import Closing
from kcap.kernel.barrier import barrier, fence
from kcap.kernel.errors import syscall_error

if TYPE_CHECKING:
    from kcap.kernel.maps import Map

#: A ring is looked at before this part of it is full, if records keep coming as they came.
PART = 1 / 4
#: Seconds from the record that woke the reader to the next look, which tells how fast they come;
#: and how many times longer the rest may be after each look that follows.
SHORTEST = 0.001
GROWTH = 4
#: A reader's position so far before the next record does not ask for a wake-up. Records are
#: multiples of it.
_ALIGNMENT = 8
BUSY = 1 << 31
DISCARD = 1 << 30
HEADER_SIZE = 8


def walk(words: memoryview, data: memoryview, start: int, end: int) -> tuple[list[memoryview], int]:
    """The finished records between two positions of a ring.

    :param words: the doubled data as 32-bit words.
    :param data: the same as bytes.
    :param start: the reader's position, growing for ever.
    :param end: the writers' position.
    :return: (records, the position behind the last of them).
    """
    mask = (len(data) >> 1) - 1
    records: list[memoryview] = []
    add = records.append
    while start < end:
        at = start & mask
        header = words[at >> 2]
        if header & BUSY:
            break
        length = header & ~DISCARD
        if header == length:
            add(data[at + HEADER_SIZE : at + HEADER_SIZE + length])
        start += length + HEADER_SIZE + 7 & ~7
    return records, start


class Pace:
    """When a ring is to be looked at again: the sooner, the faster it fills.

    :param size: of the ring, in bytes.
    :param now: a time in seconds, of the clock that :meth:`wait` is told, too.
    :param written: the writers' position.
    :ivar quiet: none came for as long as a rest may be: the next record is to wake the reader.
    """

    def __init__(self, size: int, now: float, written: int = 0) -> None:
        self._room = size * PART
        self._looked, self._grew = now, float("-inf")
        self._written, self._rest = written, SHORTEST
        self.quiet = True

    def wait(self, now: float, read: int, written: int, longest: float) -> float:
        """Seconds to wait before the next look, by what has been written since the last call.

        :param read: the reader's position.
        :param written: the writers' position.
        :param longest: at most.
        """
        rate = (written - self._written) / max(now - self._looked, 1e-6)
        woken = rate and self.quiet
        self._rest = SHORTEST if woken else min(self._rest * GROWTH, longest)
        self._looked, self._written = now, written
        if rate:
            self._grew = now
        self.quiet = now - self._grew >= longest
        if rate:
            return min(self._rest, max(self._room - (written - read), 0.0) / rate)
        return longest if self.quiet else self._rest


class RingReader(Closing):
    """Reads one ring buffer.

    :param ring: the map; it must stay open.
    :raises SyscallError: the kernel can't map it.
    """

    def __init__(self, ring: Map) -> None:
        self.size = ring.spec.max_entries
        fd = ring.fileno()
        try:
            self._consumer_map = mmap(fd, PAGESIZE, MAP_SHARED, PROT_READ | PROT_WRITE)
            self._producer_map = mmap(
                fd, PAGESIZE + 2 * self.size, MAP_SHARED, PROT_READ, offset=PAGESIZE
            )
        except OSError as error:
            raise syscall_error(f'map the ring "{ring.spec.name}"', error) from error
        self._consumer = memoryview(self._consumer_map).cast("Q")
        producer = memoryview(self._producer_map)
        self._producer = producer[:PAGESIZE].cast("Q")
        self.data = producer[PAGESIZE:]
        self.words = self.data.cast("I")
        self._views = (self.words, self.data, self._producer, producer, self._consumer)
        self._next = self._position = self._consumer[0]
        self._pace = Pace(self.size, time.monotonic(), self._position)
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def fileno(self) -> int:
        """The ring's descriptor, to be polled for edges (EPOLLET): while no wake-up is wanted, it
        is always readable, for the kernel takes the reader to be behind."""
        return self._fd

    def poll(self, timeout: float) -> bool:
        """Wait for a record; False if ``timeout`` (seconds) passes first.

        Programs may submit without waking (BPF_RB_NO_WAKEUP): read after a time-out too.
        """
        self.arm()
        return bool(self._poll.poll(1000 * timeout))

    def arm(self) -> int:
        """Let the next record wake the reader, if all before it are released.

        :return: the writers' position: what stands before it may have woken nobody.
        """
        self._consumer[0] = self._position
        fence()
        return self._producer[0]

    def rest(self, longest: float) -> float:
        """Seconds until the next look, in which the ring will not get too full, if records keep
        coming as they came since the last call; ``longest`` at most. If none came for so long, the
        next one wakes the reader."""
        read, written = self.pending()
        seconds = self._pace.wait(time.monotonic(), read, written, longest)
        if self._pace.quiet and self.arm() != written:
            return SHORTEST
        return seconds

    def pending(self) -> tuple[int, int]:
        """(reader's, writers' position) in bytes, growing for ever; modulo ``size`` they are
        places in ``data``. For those who walk the records themselves."""
        end = self._producer[0]
        barrier()
        return self._position, end

    def read(self) -> list[memoryview]:
        """The data of all finished records, as views valid until ``release``."""
        start, end = self.pending()
        records, self._next = self.walk(start, end)
        return records

    def walk(self, start: int, end: int) -> tuple[list[memoryview], int]:
        """The finished records from one position on, and the position behind the last of them.

        :param end: records that begin here or later are left out.
        """
        return walk(self.words, self.data, start, end)

    def release(self, position: int | None = None) -> None:
        """Give the space of the records read back, but for a few bytes; records that come wake
        nobody until :meth:`arm`.

        :param position: up to here; by default all that the last ``read`` returned.
        """
        barrier()
        self._position = self._next if position is None else position
        self._consumer[0] = max(self._position - _ALIGNMENT, self._consumer[0])

    def close(self) -> None:
        """Unmap; doing it twice is harmless.

        Memory stays mapped as long as somebody holds a view of a record.
        """
        try:
            for view in self._views:
                view.release()
            self._producer_map.close()
            self._consumer_map.close()
        except BufferError:  # a record is still in use: the last view frees the memory
            pass


def ring_size(wanted: int) -> int:
    """The smallest size that a ring buffer can have and that is not below ``wanted`` bytes.

    :raises OverflowError: more than a ring buffer can hold (2 GiB less a page in the kernel).
    """
    size = PAGESIZE
    while size < wanted:
        size <<= 1
    if size > 1 << 30:
        raise OverflowError(errno.E2BIG, f"{wanted} bytes are more than a ring buffer can hold")
    return size
