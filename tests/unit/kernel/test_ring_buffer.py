# SPDX-License-Identifier: Apache-2.0
"""Walking a BPF ring buffer's records."""

from __future__ import annotations

from mmap import PAGESIZE
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.kernel.ringbuf import BUSY, DISCARD, Pace, ring_size, walk

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
        (0, 0, 0.1),  # nothing comes
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
    pace = Pace(4_000, now=5.0)
    assert pace.wait(7.0, 1_000_000, 1_000_000, longest=0.1) <= 0.1
    position = 1_000_000 + written
    wait = pace.wait(7.1, position - pending, position, longest=0.1)
    assert wait == pytest.approx(seconds)
