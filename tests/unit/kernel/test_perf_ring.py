# SPDX-License-Identifier: Apache-2.0
"""The perf ring's reader, on a file that holds what the kernel would have written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from mmap import PAGESIZE, mmap
from struct import pack, pack_into

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.kernel.errors import SyscallError
from kcap.kernel.perf import PerfRing


class FakeRing:
    """The kernel's side of a ring of one page."""

    def __init__(self, start: int = 0) -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate(2 * PAGESIZE)
            self.map = mmap(file.fileno(), 2 * PAGESIZE)
            self.head = start
            pack_into("<QQ", self.map, 1024, start, start)
            self.reader = PerfRing(os.dup(file.fileno()), 3, 1)

    def write(self, record: bytes) -> None:
        for i, byte in enumerate(record):
            self.map[PAGESIZE + (self.head + i) % PAGESIZE] = byte
        self.head += len(record)
        pack_into("<Q", self.map, 1024, self.head)

    def sample(self, data: bytes) -> None:
        padded = data + bytes(-(len(data) + 4) % 8)
        self.write(pack("<IHHI", 9, 0, 12 + len(padded), len(padded)) + padded)

    def lost(self, count: int) -> None:
        self.write(pack("<IHHQQ", 2, 0, 24, 77, count))


@pytest.fixture
def ring() -> Iterator[FakeRing]:
    fake = FakeRing()
    yield fake
    fake.reader.close()


def test_an_empty_ring_has_no_samples(ring: FakeRing) -> None:
    assert ring.reader.read() == ([], 0)


def test_samples_come_in_order_with_their_padding(ring: FakeRing) -> None:
    ring.sample(b"first")
    ring.sample(b"second sample")
    samples, lost = ring.reader.read()
    assert [bytes(s) for s in samples] == [b"first" + bytes(7), b"second sample" + bytes(7)]
    assert lost == 0


def test_lost_records_are_counted_and_others_are_skipped(ring: FakeRing) -> None:
    ring.lost(5)
    ring.write(pack("<IHHQ", 5, 0, 16, 0))
    ring.sample(b"abcd")
    ring.lost(2)
    samples, lost = ring.reader.read()
    assert [bytes(s) for s in samples] == [b"abcd"]
    assert lost == 7


def test_space_is_given_back_by_release_only(ring: FakeRing) -> None:
    ring.sample(b"abcd")
    assert ring.reader.read() == ring.reader.read()
    ring.reader.release()
    assert ring.reader.read() == ([], 0)
    assert ring.reader.pending() == (16, 16)


@pytest.mark.parametrize("start", range(PAGESIZE - 48, PAGESIZE, 8))
def test_records_continue_at_the_rings_beginning(start: int) -> None:
    fake = FakeRing(start)
    fake.sample(bytes(range(28)))
    fake.lost(9)
    fake.sample(b"behind")
    samples, lost = fake.reader.read()
    assert bytes(samples[0]) == bytes(range(28))
    assert bytes(samples[1][:6]) == b"behind"
    assert lost == 9
    fake.reader.close()


def test_a_record_without_size_is_corruption(ring: FakeRing) -> None:
    ring.write(pack("<IHH", 9, 0, 0))
    with pytest.raises(SyscallError, match="perf ring of CPU 3 is corrupt"):
        ring.reader.read()


def test_views_outlive_the_ring(ring: FakeRing) -> None:
    ring.sample(b"kept")
    samples, _ = ring.reader.read()
    ring.reader.close()
    ring.reader.close()
    assert bytes(samples[0]) == b"kept"


@given(
    st.integers(0, PAGESIZE // 8 - 1).map(lambda n: n * 8),
    st.lists(st.binary(min_size=1, max_size=900), max_size=30),
)
def test_what_is_written_is_read_wherever_the_ring_stands(start: int, data: list[bytes]) -> None:
    fake = FakeRing(start)
    for item in data:
        fake.sample(item)
        samples, lost = fake.reader.read()
        assert lost == 0
        assert [bytes(s)[: len(item)] for s in samples] == [item]
        assert len(samples[0]) % 8 == 4
        fake.reader.release()
    fake.reader.close()
