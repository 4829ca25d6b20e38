# SPDX-License-Identifier: Apache-2.0
"""Rings of a real kernel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from mmap import PAGESIZE
from struct import unpack

import pytest

from kcap.kernel import asm, links, uapi
from kcap.kernel.collection import Collection
from kcap.kernel.helpers import Helper
from kcap.kernel.perf import PerfReader
from kcap.kernel.ringbuf import RingReader
from kcap.kernel.spec import CollectionSpec, MapSpec, ProgramSpec, Relocation
from live.guest.kernel.handmade import TARGET, trigger
from support.cpus import pinned

RINGS = MapSpec("ring", uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 0)
RING = MapSpec("ring", uapi.BPF_MAP_TYPE_RINGBUF, 0, 0, PAGESIZE)
HERE_ONLY = 0xFFFFFFFF  # BPF_F_CURRENT_CPU
NO_WAKEUP = 1


@pytest.fixture(autouse=True)
def one_ring() -> Iterator[None]:
    """All samples go to one ring: what it lost is told by the next one in it only."""
    with pinned():
        yield


def time_and_pid() -> bytes:
    """Instructions that put the time and pid_tgid at R10-16 and R10-8."""
    return (
        asm.mov(asm.R6, asm.R1)
        + asm.call(Helper.ktime_get_ns)
        + asm.store(asm.R10, -16, asm.R0)
        + asm.call(Helper.get_current_pid_tgid)
        + asm.store(asm.R10, -8, asm.R0)
    )


def perf_program() -> ProgramSpec:
    code = time_and_pid() + (
        asm.mov(asm.R1, asm.R6)
        + asm.load_imm64(asm.R2, 0)
        + asm.load_imm64(asm.R3, HERE_ONLY)
        + asm.mov(asm.R4, asm.R10)
        + asm.add_imm(asm.R4, -16)
        + asm.mov_imm(asm.R5, 16)
        + asm.call(Helper.perf_event_output)
        + asm.mov_imm(asm.R0, 0)
        + asm.exit_()
    )
    relocations = (Relocation(6, "map", "ring"),)
    return ProgramSpec("sends", uapi.BPF_PROG_TYPE_KPROBE, code, relocations=relocations)


def ring_program(flags: int = 0) -> ProgramSpec:
    code = time_and_pid() + (
        asm.load_imm64(asm.R1, 0)
        + asm.mov(asm.R2, asm.R10)
        + asm.add_imm(asm.R2, -16)
        + asm.mov_imm(asm.R3, 16)
        + asm.mov_imm(asm.R4, flags)
        + asm.call(Helper.ringbuf_output)
        + asm.mov_imm(asm.R0, 0)
        + asm.exit_()
    )
    relocations = (Relocation(5, "map", "ring"),)
    return ProgramSpec("sends", uapi.BPF_PROG_TYPE_KPROBE, code, relocations=relocations)


def my_times(samples: list[memoryview]) -> list[int]:
    """Time stamps of this process' samples."""
    import os

    return [t for t, pid in (unpack("<QQ", s[:16]) for s in samples) if pid >> 32 == os.getpid()]


def test_samples_come_through_the_perf_ring_in_order() -> None:
    with (
        Collection.load(CollectionSpec((RINGS,), (perf_program(),))) as loaded,
        PerfReader(loaded.maps["ring"], 8) as reader,
    ):
        before = time.monotonic_ns()
        with links.attach_kprobe(loaded.programs["sends"].fileno(), TARGET):
            trigger(20)
        after = time.monotonic_ns()
        assert reader.poll(1)
        samples = []
        for ring in reader.rings:
            batch = ring.read()
            assert batch.lost == 0
            assert all(len(s) == 20 for s in batch.samples)  # 16, padded to 8n + 4
            samples += my_times(batch.samples)
            ring.release()
            assert ring.read().samples == []
        assert len(samples) == 20
        assert before < min(samples) <= max(samples) < after


def test_a_full_perf_ring_counts_what_it_lost_and_wraps() -> None:
    with (
        Collection.load(CollectionSpec((RINGS,), (perf_program(),))) as loaded,
        PerfReader(loaded.maps["ring"], 1, watermark=2048) as reader,
    ):
        with links.attach_kprobe(loaded.programs["sends"].fileno(), TARGET):
            received = lost = 0
            for _ in range(10):
                trigger(200)  # 32 bytes each: 128 fit
                for ring in reader.rings:
                    batch = ring.read()
                    received += len(batch.samples)
                    lost += batch.lost
                    ring.release()
            trigger(2)
            for ring in reader.rings:
                batch = ring.read()
                received += len(batch.samples)
                lost += batch.lost
                ring.release()
        assert received + lost >= 2002
        assert lost > 0


def test_a_watermark_delays_the_wake_up() -> None:
    with (
        Collection.load(CollectionSpec((RINGS,), (perf_program(),))) as loaded,
        PerfReader(loaded.maps["ring"], 2, watermark=4096) as reader,
        links.attach_kprobe(loaded.programs["sends"].fileno(), TARGET),
    ):
        trigger(3)
        assert reader.poll(0) == []
        trigger(250)
        assert len(reader.poll(1)) >= 1


def test_records_come_through_the_ring_buffer() -> None:
    with (
        Collection.load(CollectionSpec((RING,), (ring_program(),))) as loaded,
        RingReader(loaded.maps["ring"]) as reader,
    ):
        assert reader.poll(0) is False
        with links.attach_kprobe(loaded.programs["sends"].fileno(), TARGET):
            total = 0
            for _ in range(30):  # 24 bytes each, 4096 in the ring: it goes round
                trigger(20)
                assert reader.poll(1) is True
                records = reader.read()
                times = my_times(records)
                assert times == sorted(times)
                assert {len(r) for r in records} == {16}
                total += len(times)
                reader.release()
        assert total == 600


def test_records_without_wake_up_are_read_after_a_tick() -> None:
    with (
        Collection.load(CollectionSpec((RING,), (ring_program(NO_WAKEUP),))) as loaded,
        RingReader(loaded.maps["ring"]) as reader,
    ):
        with links.attach_kprobe(loaded.programs["sends"].fileno(), TARGET):
            trigger(5)
        assert len(my_times(reader.read())) == 5
        reader.release()
