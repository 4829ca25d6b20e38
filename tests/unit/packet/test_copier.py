# SPDX-License-Identifier: Apache-2.0
"""The copying loop in machine code writes what Python writes, to the byte.

Rings in memory stand for those of the kernel: records that run over the end, lost-records in
between, samples that are none, several files, packets that need a finishing touch, CPUs whose
clocks cross, packets that are too young.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import subprocess
from mmap import PAGESIZE, PROT_READ, mmap
from pathlib import Path

import pytest

from kcap.codegen.native import NativeCode, NativeError
from kcap.codegen.objects import NativeObject
from kcap.errors import FileError
from kcap.functions import skb_record as layout
from kcap.kernel.errors import SyscallError
from kcap.kernel.perf import PerfRing
from kcap.packet import copier, copy_code, copy_loop, sink
from kcap.packet.files import OutputFile, Split
from kcap.packet.pcap import PcapWriter
from kcap.packet.record import Names, Site
from kcap.packet.rotation import RotatingFile, Rotation
from kcap.packet.sink import PacketSink
from unit.packet import skb_samples as made
from unit.packet.limits import size_limit

NAMES = Names({1: "fentry:ip_rcv", 2: "fentry:__dev_queue_xmit"})
START = 1_000_000_000
PAGES = 64
LIBC = ctypes.CDLL(None)


@pytest.fixture(scope="module")
def code() -> NativeCode:
    return NativeCode(NativeObject(copy_loop.module(), cached=False).wait())


class Kernel:
    """Writes perf records to a ring, as kernel/events/ring_buffer.c does."""

    def __init__(self, cpu: int) -> None:
        fd = os.memfd_create("ring")
        os.ftruncate(fd, (PAGES + 1) * PAGESIZE)
        self._memory = mmap(fd, 0)
        self.ring = PerfRing(fd, cpu, PAGES)
        self._size = PAGES * PAGESIZE
        # The kernel lets readers write to the control page only.
        assert LIBC.mprotect(ctypes.c_void_p(self.ring.address), self._size, PROT_READ) == 0

    def _record(self, kind: int, body: bytes) -> bool:
        head, tail = struct.unpack_from("<QQ", self._memory, 1024)
        record = struct.pack("<IHH", kind, 0, 8 + len(body)) + body
        assert len(record) % 8 == 0
        if head + len(record) - tail > self._size:
            return False
        at = head % self._size
        first = record[: self._size - at]
        self._memory[PAGESIZE + at : PAGESIZE + at + len(first)] = first
        self._memory[PAGESIZE : PAGESIZE + len(record) - len(first)] = record[len(first) :]
        struct.pack_into("<Q", self._memory, 1024, head + len(record))
        return True

    def sample(self, data: bytes) -> bool:
        """Append a sample; False when the ring is full."""
        return self._record(9, struct.pack("<I", len(data)) + data)

    def lost(self, count: int) -> bool:
        """Append a PERF_RECORD_LOST."""
        return self._record(2, struct.pack("<QQ", 0, count))


def packet(source: random.Random, mono: int, site: int, cpu: int) -> bytes:
    """A sample of some packet."""
    size = source.choice((60, 61, 62, 63, 700, 1514, source.randrange(60, 9000)))
    frame = source.randbytes(12) + b"\x08\x00" + source.randbytes(size - 14)
    build = source.choice((made.received, made.received, made.sent))
    skb = build(
        frame,
        vlan=(0x8100, 5) if source.random() < 0.2 else None,
        mark=source.choice((0, 0, 7)),
        address=0xFFFF888000000000 + source.randrange(1 << 20) * 64,
        dev=source.choice((made.Device(), made.Device("eth1", 3), None)),
    )
    return made.sample(
        skb, mono_ns=mono, site=site, probe=source.choice((1, 2)), cpu=cpu,
        pid=source.choice((0, 77)),
    )  # fmt: skip


def looks(seed: int, sites: int) -> list[list[list[bytes | int]]]:
    """What each CPU's ring gets before each look: samples, or counts of lost ones."""
    source = random.Random(seed)
    clock = [START] * 3
    made_: list[list[list[bytes | int]]] = []
    for _ in range(6):
        look: list[list[bytes | int]] = []
        for cpu in range(3):
            items: list[bytes | int] = []
            for _ in range(source.randrange(12)):
                clock[cpu] += source.randrange(400_000)
                if source.random() < 0.05:
                    items.append(3)
                elif source.random() < 0.05:
                    items.append(source.randbytes(source.choice((4, 100, 172))))
                else:
                    late = source.randrange(900_000) if source.random() < 0.2 else 0
                    items.append(
                        packet(source, clock[cpu] - late, source.randrange(sites + 1), cpu)
                    )
            look.append(items)
        made_.append(look)
    return made_


def capture(
    monkeypatch: pytest.MonkeyPatch,
    directory: Path,
    traffic: list[list[list[bytes | int]]],
    names: tuple[str, ...],
    code: NativeCode | None,
    limit: int = 0,
) -> tuple[dict[str, bytes], list[str], dict[int, sink.SiteStats]]:
    """Write the traffic; the files, the summary and the figures."""
    monkeypatch.setattr("kcap.packet.pcapng.os.urandom", lambda count: b"\x5a" * count)
    monkeypatch.setattr("kcap.packet.sink.time.time_ns", lambda: 1_700_000_000_000_000_000)
    directory.mkdir()
    monkeypatch.chdir(directory)
    kernels = [Kernel(cpu) for cpu in range(3)]
    rings = [kernel.ring for kernel in kernels]
    sites = [Site(number, name) for number, name in enumerate(names)]
    with PacketSink(sites, NAMES, limit=limit) as out:
        out.start()
        if code is not None:
            out.use(code, rings)
        for number, look in enumerate(traffic):
            for kernel, items in zip(kernels, look, strict=True):
                for item in items:
                    full = kernel.sample(item) if isinstance(item, bytes) else kernel.lost(item)
                    assert full
            now = START + 2_400_000 * (number + 1)
            if code is not None:
                out.drain(now)
            else:
                samples = [one for ring in rings for one in ring.read().samples]
                out.consume(samples, now)
                del samples
                for ring in rings:
                    ring.release()
        if code is not None:
            out.drain()
    for ring in rings:
        ring.close()
    files = {name: (directory / name).read_bytes() for name in names}
    return files, out.summary(), out.stats


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("names", [("a.pcap",), ("a.pcapng",), ("a.pcap", "b.pcapng")])
def test_files_are_those_that_python_writes(
    code: NativeCode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    names: tuple[str, ...],
) -> None:
    traffic = looks(seed, len(names))
    slow = capture(monkeypatch, tmp_path / "python", traffic, names, None)
    fast = capture(monkeypatch, tmp_path / "native", traffic, names, code)
    assert fast[0] == slow[0]
    assert fast[1] == slow[1]
    assert fast[2] == slow[2]
    assert all(len(data) > 2000 for data in fast[0].values())


@pytest.mark.parametrize("limit", [1, 7, 40])
def test_a_limit_ends_both_at_the_same_packet(
    code: NativeCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    names = ("a.pcap", "b.pcapng")
    slow = capture(monkeypatch, tmp_path / "python", looks(3, 2), names, None, limit)
    fast = capture(monkeypatch, tmp_path / "native", looks(3, 2), names, code, limit)
    assert fast[0] == slow[0]
    assert sum(one.written for one in fast[2].values()) == limit


def test_records_that_run_over_the_rings_end_are_whole(
    code: NativeCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random.Random(1)
    # 60 packets of up to 9 kB a look go round a ring of 256 kB several times.
    traffic: list[list[list[bytes | int]]] = [
        [[packet(source, START + 9000 * n, 0, 0) for n in range(60 * k, 60 * k + 60)], [], []]
        for k in range(12)
    ]
    slow = capture(monkeypatch, tmp_path / "python", traffic, ("a.pcap",), None)
    fast = capture(monkeypatch, tmp_path / "native", traffic, ("a.pcap",), code)
    assert fast[0] == slow[0]
    assert len(fast[0]["a.pcap"]) > 2 * PAGES * PAGESIZE


def test_more_kinds_of_packets_than_templates(
    code: NativeCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = bytes(12) + b"\x08\x00" + bytes(50)
    order = random.Random(5).sample(range(3 * copy_code.TEMPLATES), 1500) * 2
    traffic: list[list[list[bytes | int]]] = [
        [
            [
                made.sample(made.received(frame), site=0, mono_ns=START + n, pid=order[n])
                for n in range(500 * k, 500 * k + 500)
            ],
            [],
            [],
        ]
        for k in range(6)
    ]
    slow = capture(monkeypatch, tmp_path / "python", traffic, ("a.pcapng",), None)
    fast = capture(monkeypatch, tmp_path / "native", traffic, ("a.pcapng",), code)
    assert fast[0] == slow[0]


def test_python_is_left_only_what_needs_it(
    code: NativeCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    whole = sink.PacketSink._odd

    def odd(self: PacketSink, sample: bytes) -> None:
        left.append(len(sample))
        whole(self, sample)

    monkeypatch.setattr(sink.PacketSink, "_odd", odd)
    frame = bytes(12) + b"\x08\x00" + bytes(50)
    samples: list[bytes | int] = [
        made.sample(made.received(frame), site=site, mono_ns=START + n)
        for n in range(300)
        for site in (0, 1)
    ]
    capture(monkeypatch, tmp_path / "x", [[samples, [], []]], ("a.pcap", "b.pcapng"), code)
    assert len(left) == 1  # the first packet of the pcapng file


@pytest.mark.parametrize("name", ["a.pcap", "a.pcapng"])
def test_a_file_that_is_full_ends_with_a_whole_packet(
    code: NativeCode, tmp_path: Path, name: str
) -> None:
    frame = bytes(12) + b"\x08\x00" + bytes(986)
    kernel = Kernel(0)
    for n in range(150):
        assert kernel.sample(made.sample(made.received(frame), site=0, mono_ns=START + n))
    path = tmp_path / name
    out = PacketSink([Site(0, str(path))], NAMES)
    out.start()
    out.use(code, [kernel.ring])
    with size_limit(50_000), pytest.raises(FileError, match="are complete in it"):
        out.drain()
    written = out.stats[0].written
    assert written == 150
    out.close()
    data = memoryview(path.read_bytes())
    writer = out._targets[0].writer
    if isinstance(writer, PcapWriter):
        records = list(writer.split(data[24:]))
        assert len(records) == 49
        assert len(records[-1]) == 16 + 1000
        assert out.summary() == [f"{path}: 49 packets written, 101 that the file could not take"]
    else:
        blocks = list(writer.split(data))
        assert bytes(blocks[-1][:4]) in (b"\x05\0\0\0", b"\x06\0\0\0")
        assert int.from_bytes(blocks[-1][-4:], "little") == len(blocks[-1])
    assert kernel.ring.pending()[0] == kernel.ring.pending()[1]


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_files_that_rotate_each_stand_alone(code: NativeCode, tmp_path: Path, suffix: str) -> None:
    frame = bytes(12) + b"\x08\x00" + bytes(986)
    kernel = Kernel(0)
    path = str(tmp_path / f"a.{suffix}")
    file = RotatingFile(path, Rotation(size=20_000), pcapng=suffix == "pcapng")
    with PacketSink([Site(0, path)], NAMES, files={path: file}) as out:
        out.use(code, [kernel.ring])
        for look in range(4):
            for n in range(25):
                dev = made.Device(f"eth{look}", look + 1)
                skb = made.received(frame, dev=dev)
                assert kernel.sample(made.sample(skb, site=0, mono_ns=START + 25 * look + n))
            out.drain()
    files = sorted(tmp_path.iterdir())
    assert len(files) >= 5
    names = []
    for each in files:
        done = subprocess.run(
            ["tshark", "-n", "-r", str(each), "-T", "fields", "-e", "frame.interface_name"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        names += done.stdout.split("\n")[:-1]
    assert len(names) == 100
    if suffix == "pcapng":
        assert names == [f"eth{number // 25}" for number in range(100)]


def test_young_packets_stay_in_the_ring(code: NativeCode, tmp_path: Path) -> None:
    frame = bytes(12) + b"\x08\x00" + bytes(50)
    kernel = Kernel(0)
    for n in (0, 10, 5):
        kernel.sample(made.sample(made.received(frame), site=0, mono_ns=START + n * 1_000_000))
    with PacketSink([Site(0, str(tmp_path / "a.pcap"))], NAMES) as out:
        out.use(code, [kernel.ring])
        assert out.drain(START + 8_000_000) == 2
        tail, head = kernel.ring.pending()
        assert 0 < tail < head
        assert out.drain(START + 8_000_000) == 0
        assert out.drain() == 1
    assert out.late == 0
    assert out.stats[0].written == 3


def test_packets_from_after_the_end_are_not_written(code: NativeCode, tmp_path: Path) -> None:
    frame = bytes(12) + b"\x08\x00" + bytes(50)
    kernel = Kernel(0)
    for n in (0, 5, 6):
        kernel.sample(made.sample(made.received(frame), site=0, mono_ns=START + n))
    with PacketSink([Site(0, str(tmp_path / "a.pcap"))], NAMES) as out:
        out.use(code, [kernel.ring])
        out.end_ns = START + 5
        assert out.drain() == 2


def test_the_rings_are_empty_before_a_file_is_waited_for(
    code: NativeCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = bytes(12) + b"\x08\x00" + bytes(986)
    kernel = Kernel(0)
    while kernel.sample(made.sample(made.received(frame), site=0)):
        pass
    assert kernel.ring.pending()[1] > 200_000
    unread: list[int] = []
    write = OutputFile.write_joined

    def slow(self: OutputFile, data: memoryview, count: int, split: Split) -> None:
        tail, head = kernel.ring.pending()
        unread.append(head - tail)
        write(self, data, count, split)

    monkeypatch.setattr(OutputFile, "write_joined", slow)
    with PacketSink([Site(0, str(tmp_path / "a.pcap"))], NAMES) as out:
        out.use(code, [kernel.ring])
        assert out.drain() > 200
    assert unread == [0]


def test_each_of_many_packets_behind_a_younger_one_is_written_once(
    code: NativeCode, tmp_path: Path
) -> None:
    frame = bytes(12) + b"\x08\x00" + bytes(50)
    behind = copy_code.TAKEN_MOST + 40
    kernel = Kernel(0)
    for n in (10_000_000, *range(behind)):
        kernel.sample(made.sample(made.received(frame), site=0, mono_ns=START + n))
    with PacketSink([Site(0, str(tmp_path / "a.pcap"))], NAMES) as out:
        out.use(code, [kernel.ring])
        assert out.drain(START + 8_000_000) == copy_code.TAKEN_MOST
        assert out.drain(START + 8_000_000) == 0
        assert out.drain() == 1 + behind - copy_code.TAKEN_MOST
        # The list of what was taken is free again.
        for n in (30_000_000, 20_000_000):
            kernel.sample(made.sample(made.received(frame), site=0, mono_ns=START + n))
        assert out.drain(START + 27_000_000) == 1
        assert out.drain() == 1
    assert out.late == 0


def test_a_corrupt_ring_is_an_error_and_no_endless_loop(code: NativeCode, tmp_path: Path) -> None:
    kernel = Kernel(0)
    kernel.sample(b"x" * 172)
    kernel._memory[PAGESIZE + 6 : PAGESIZE + 8] = b"\0\0"
    with PacketSink([Site(0, str(tmp_path / "a.pcap"))], NAMES) as out:
        out.use(code, [kernel.ring])
        with pytest.raises(SyscallError, match="corrupt"):
            out.drain()


def test_the_hash_is_the_same_in_python() -> None:
    sample = made.sample(made.received(bytes(64)))
    key = copier._key(sample)
    assert len(key) == len(copy_code.KEY_WORDS) + 1
    assert 0 <= copier._slot(key) < copy_code.TEMPLATES
    assert key[-1] & 0xFFFF == int.from_bytes(sample[layout.FIELDS["flags"].offset :][:2], "little")


def test_code_that_needs_a_linker_is_refused() -> None:
    text = "declare i64 @other()\ndefine i64 @f() { %a = call i64 @other()\n ret i64 %a }"
    with pytest.raises(NativeError, match="outside of it"):
        NativeCode(NativeObject(text, cached=False).wait())


def test_damaged_code_is_refused() -> None:
    with pytest.raises(NativeError, match="damaged"):
        NativeCode(b"\x7fELF")
