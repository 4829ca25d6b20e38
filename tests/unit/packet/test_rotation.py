# SPDX-License-Identifier: Apache-2.0
"""-C, -G and -W mean what they mean to tcpdump; every file can be read alone."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from kcap.errors import UsageError
from kcap.packet.pcapng import Loss
from kcap.packet.record import Names, Site
from kcap.packet.rotation import LastFileError, RotatingFile, Rotation, parse_size
from kcap.packet.sink import PacketSink
from support import pcapng, tshark
from unit.packet import readers
from unit.packet import skb_samples as s
from unit.packet.situations import LO

NAMES = Names({1: "fentry:ip_rcv"})


def frame(number: int) -> bytes:
    return bytes(12) + b"\x88\xb5" + number.to_bytes(4) + bytes(82)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


def write(
    path: Path, rotation: Rotation, count: int, step: Callable[[], None] = lambda: None
) -> RotatingFile:
    """Write numbered packets of 100 bytes, each by itself."""
    clock = Clock()
    file = RotatingFile(str(path), rotation, pcapng=path.suffix == ".pcapng", now=clock)
    with PacketSink([Site(1, str(path))], NAMES, files={str(path): file}) as sink:
        for number in range(count):
            sample = s.sample(s.received(frame(number)), mono_ns=number)
            sink.consume([sample], 1 << 62)
            clock.time += 1
    return file


def numbers(path: Path) -> list[int]:
    if ".pcapng" in path.name:
        read = [packet for packet, _ in readers.scapy_pcapng(path)]
    else:
        read = readers.scapy_pcap(path)[1]
    return [int.from_bytes(packet.data[14:18]) for packet in read]


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_next_file_begins_once_one_is_larger(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    write(path, Rotation(size=600), 20)
    files = [path, *(tmp_path / f"out.{suffix}{n}" for n in range(1, 20))]
    files = [each for each in files if each.exists()]
    assert len(files) > 2
    assert [n for each in files for n in numbers(each)] == list(range(20))
    assert all(each.stat().st_size > 600 for each in files[:-1])


def test_files_are_a_ring_with_a_count(tmp_path: Path) -> None:
    path = tmp_path / "ring.pcap"
    # 24 bytes of header and 116 a packet: a third packet makes a file larger than 300
    write(path, Rotation(size=300, count=3), 20)
    found = sorted(each.name for each in tmp_path.iterdir())
    assert found == ["ring.pcap0", "ring.pcap1", "ring.pcap2"]
    assert [numbers(tmp_path / name) for name in found] == [[18, 19], [12, 13, 14], [15, 16, 17]]


def test_names_are_numbered_with_as_many_digits_as_the_last(tmp_path: Path) -> None:
    write(tmp_path / "r", Rotation(size=100, count=11), 3)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["r00", "r01", "r02"]


def test_time_names_files(tmp_path: Path) -> None:
    path = tmp_path / "at-%s.pcap"
    write(path, Rotation(seconds=5), 12)
    found = sorted(tmp_path.iterdir())
    assert [each.name for each in found] == [
        f"at-{1_700_000_000 + n}.pcap" for n in (0, 5, 10)
    ]  # fmt: skip
    assert [numbers(each) for each in found] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


def test_capture_ends_after_as_many_files_as_wanted(tmp_path: Path) -> None:
    path = tmp_path / "at-%s.pcap"
    with pytest.raises(LastFileError):
        write(path, Rotation(seconds=5, count=2), 20)
    assert [len(numbers(each)) for each in sorted(tmp_path.iterdir())] == [5, 5]


def test_statistics_are_those_of_each_file(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    file = RotatingFile(str(path), Rotation(size=1000), pcapng=True)
    lost = 0
    with PacketSink([Site(1, str(path))], NAMES, files={str(path): file}) as sink:
        sink.read_losses = lambda: [
            Loss(1, 1, 7, 4026531992, b"veth0".ljust(16, b"\0"), lost),
            Loss(1, 1, 9, 4026531992, b"silent".ljust(16, b"\0"), 2 * (lost > 100)),
        ]
        for number in range(12):
            device = LO if number > 5 else s.Device()
            sink.consume([s.sample(s.received(frame(number), dev=device), mono_ns=number)], 1 << 62)
            lost += 10
        sink.set_lost(1, 122)
    files = sorted(tmp_path.iterdir(), key=lambda each: (len(each.name), each.name))
    assert len(files) == 3
    found = [pcapng.read(each) for each in files]
    for each in found:
        figures = {one.interface.name: (one.delivered, one.dropped) for one in each.statistics}
        written = Counter(packet.interface.name for packet in each.packets)
        assert {name: of[0] for name, of in figures.items() if of[0]} == written
        assert all(one.received == one.delivered + one.dropped for one in each.statistics)
    losses: Counter[str] = Counter()
    for each in found:
        losses.update({one.interface.name: one.dropped for one in each.statistics})
    assert losses == {"veth0": 120, "lo": 0, "silent": 2}
    assert all(one.statistics[0].dropped for one in found[:2])
    for path, one in zip(files, found, strict=True):
        said = subprocess.run(["capinfos", path], capture_output=True, text=True, check=True).stdout
        assert f"Number of packets:   {len(one.packets)}\n" in said
        assert f"Number of interfaces in file: {len(one.statistics)}\n" in said
        assert said.count("Number of stat entries = 1") == len(one.statistics)
        assert tshark.complaints(path) == []


def test_last_of_so_many_files_has_its_statistics(tmp_path: Path) -> None:
    with pytest.raises(LastFileError):
        write(tmp_path / "at-%s.pcapng", Rotation(seconds=5, count=2), 20)
    delivered = [pcapng.read(each).statistics[0].delivered for each in sorted(tmp_path.iterdir())]
    assert delivered == [5, 5]


def test_sizes_are_in_millions_or_have_a_unit() -> None:
    assert [parse_size(each) for each in ("2", "64k", "1M", "3g")] == [
        2_000_000, 65_536, 1 << 20, 3 << 30,
    ]  # fmt: skip
    for wrong in ("", "0", "x", "5t", "-1", "1.5"):
        with pytest.raises(UsageError):
            parse_size(wrong)
