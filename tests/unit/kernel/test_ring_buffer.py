# SPDX-License-Identifier: Apache-2.0
"""Walking a BPF ring buffer's records."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from mmap import PAGESIZE, mmap
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.kernel import uapi
from kcap.kernel.maps import Map
from kcap.kernel.ringbuf import BUSY, DISCARD, GROWTH, SHORTEST, Pace, RingReader, ring_size, walk
from kcap.kernel.spec import MapSpec

SIZE = 4096


class FakeRing:
    """Writes records as the kernel does, both mappings of the data at once."""

    def __init__(self, start: int = 0) -> None:
        self.buffer = bytearray(2 * SIZE)
        self.head = self.tail = start

    def write(self, data: bytes, flags: int = 0) -> None:
        record = pack("<II", len(data) | flags, 0) + data
        for i, byte in enumerate(record):
            at = (self.head + i) % SIZE
            self.buffer[at] = self.buffer[at + SIZE] = byte
        self.head += len(record) + 7 & ~7

    def read(self) -> list[bytes]:
        data = memoryview(self.buffer)
        records, self.tail = walk(data.cast("I"), data, self.tail, self.head)
        return [bytes(r) for r in records]


def test_records_have_their_true_length() -> None:
    ring = FakeRing()
    ring.write(b"a")
    ring.write(b"twelve bytes")
    assert ring.read() == [b"a", b"twelve bytes"]
    assert ring.tail == ring.head == 16 + 24


def test_reading_stops_at_a_record_that_is_being_written() -> None:
    ring = FakeRing()
    ring.write(b"done")
    ring.write(b"busy", BUSY)
    ring.write(b"done too")
    assert ring.read() == [b"done"]
    assert ring.tail == 16


def test_discarded_records_are_skipped() -> None:
    ring = FakeRing()
    ring.write(b"kept")
    ring.write(b"dropped", DISCARD)
    ring.write(b"kept too")
    assert ring.read() == [b"kept", b"kept too"]
    assert ring.tail == ring.head


def test_records_run_on_into_the_second_mapping() -> None:
    ring = FakeRing(SIZE - 8)
    ring.write(bytes(range(100)))
    assert ring.read() == [bytes(range(100))]


@given(
    st.integers(0, 100_000).map(lambda n: n * 8),
    st.lists(st.lists(st.binary(max_size=500), max_size=7), max_size=8),
)
def test_what_is_written_is_read_wherever_the_ring_stands(
    start: int, batches: list[list[bytes]]
) -> None:
    ring = FakeRing(start)
    for batch in batches:
        for item in batch:
            ring.write(item)
        assert ring.read() == batch


@pytest.mark.parametrize(
    ("wanted", "size"), [(1, PAGESIZE), (PAGESIZE, PAGESIZE), (PAGESIZE + 1, 2 * PAGESIZE)]
)
def test_a_ring_is_a_power_of_two_of_pages(wanted: int, size: int) -> None:
    assert ring_size(wanted) == size


def test_a_ring_of_more_than_a_gigabyte_is_refused() -> None:
    with pytest.raises(OverflowError):
        ring_size((1 << 30) + 1)


@pytest.mark.parametrize(
    ("written", "pending", "seconds"),
    [
        (1_000, 0, 0.1),  # 10,000 bytes a second
        (100_000, 0, 0.001),  # 1,000 bytes until it is a quarter full, at 1,000,000 a second
        (100_000, 500, 0.0005),  # half of them have come while the others were read
        (100_000, 1_500, 0.0),
        (0, 1_500, 0.1),  # a record that is still being written; nothing comes behind it
    ],
)
def test_a_ring_that_fills_faster_is_looked_at_sooner(
    written: int, pending: int, seconds: float
) -> None:
    pace, now = Pace(4_000, now=5.0), 5.0
    for position in range(1_000, 8_000, 1_000):  # it is no longer the start of a burst
        now += 0.1
        pace.wait(now, position, position, longest=0.1)
    position += written
    wait = pace.wait(now + 0.1, position - pending, position, longest=0.1)
    assert wait == pytest.approx(seconds)


def test_rests_grow_from_the_shortest_until_nothing_comes_for_the_longest() -> None:
    pace, now = Pace(1 << 30, now=5.0), 5.0
    assert (pace.wait(now, 0, 0, longest=0.1), pace.quiet) == (0.1, True)
    rests = []
    for written in (8, 16, 16, 24, 24):
        rests.append(pace.wait(now, written, written, longest=0.1))
        assert not pace.quiet
        now += rests[-1]
    assert rests == pytest.approx([SHORTEST * GROWTH**n for n in range(4)] + [0.1])
    assert (pace.wait(now, 24, 24, longest=0.1), pace.quiet) == (0.1, True)
    assert pace.wait(now + 1, 32, 32, longest=0.1) == SHORTEST


class RingFile:
    """A ring as the kernel lays it out, in a file, and the kernel's side of it."""

    def __init__(self, start: int) -> None:
        fd = os.memfd_create("ring")
        os.truncate(fd, 2 * PAGESIZE + 2 * SIZE)
        self._memory = mmap(fd, 2 * PAGESIZE + 2 * SIZE)
        positions = memoryview(self._memory).cast("Q")
        self._reader, self._writer = positions[:1], positions[PAGESIZE // 8 :][:1]
        self._reader[0] = self._writer[0] = start
        spec = MapSpec("ring", uapi.BPF_MAP_TYPE_RINGBUF, 0, 0, SIZE)
        self.map = Map(fd, spec)
        self.reader = RingReader(self.map)

    def submit(self, data: bytes) -> bool:
        """Write a record without flags; whether that wakes the reader (bpf_ringbuf_commit)."""
        position, length = self._writer[0], 8 + len(data) + 7 & ~7
        assert position + length - self._reader[0] < SIZE, "there is no room"
        for place in (position % SIZE, position % SIZE + SIZE):
            whole = pack("<II", len(data), 0) + data
            at = 2 * PAGESIZE + place
            part = whole[: len(self._memory) - at]
            self._memory[at : at + len(part)] = part
        self._writer[0] = position + length
        return self._reader[0] == position

    def read(self) -> list[bytes]:
        found = [bytes(record) for record in self.reader.read()]
        self.reader.release()
        return found


@pytest.fixture(params=[0, SIZE - 16, (1 << 32) + SIZE - 24])
def ring_file(request: pytest.FixtureRequest) -> Iterator[RingFile]:
    ring = RingFile(request.param)
    yield ring
    ring.reader.close()
    ring.map.close()


def test_only_the_first_record_after_a_pause_wakes_the_reader(
    ring_file: RingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert ring_file.reader.rest(0.1) == 0.1
    for burst in range(3):
        assert ring_file.submit(b"first")
        assert not ring_file.submit(b"second")
        now += 0.05
        assert ring_file.read() == [b"first", b"second"]
        assert ring_file.reader.rest(0.1) == SHORTEST, burst
        assert not ring_file.submit(b"while it is awake")
        assert ring_file.read() == [b"while it is awake"]
        now += 0.01
        assert ring_file.reader.rest(0.1) == SHORTEST * GROWTH
        now += 0.2
        assert ring_file.read() == []
        assert ring_file.reader.rest(0.1) == 0.1


def test_a_record_that_came_just_before_the_reader_wants_to_be_woken_is_not_left(
    ring_file: RingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ring_file.reader
    ring_file.submit(b"first")
    assert ring_file.read() == [b"first"]
    reader.rest(0.1)

    def meanwhile() -> float:
        assert not ring_file.submit(b"unseen")
        return 1e9

    monkeypatch.setattr(time, "monotonic", meanwhile)
    assert reader.rest(0.1) == SHORTEST
    assert ring_file.read() == [b"unseen"]


def test_a_ring_is_given_back_to_its_end_once_the_reader_waits(ring_file: RingFile) -> None:
    whole = bytes(SIZE - 24)
    for _ in range(3):
        ring_file.reader.arm()
        assert ring_file.submit(whole)
        assert ring_file.read() == [whole]
