# SPDX-License-Identifier: Apache-2.0
"""A file that was cut off in the middle of a record ends with a whole one."""

from __future__ import annotations

import os
import signal
import struct
import time
from pathlib import Path

import pytest

from kcap.packet.files import OutputFile
from kcap.packet.keeper import Keeper, Kept, repair
from kcap.packet.pcap import PcapWriter
from kcap.packet.pcapng import PcapngWriter
from kcap.packet.rotation import RotatingFile, Rotation
from support import PATIENCE

RECORD = struct.pack("<IIII", 1, 2, 5, 50) + b"hello"
BLOCK = struct.pack("<II", 6, 32) + bytes(20) + struct.pack("<I", 32)


@pytest.mark.parametrize(
    ("length", "record"), [(PcapWriter.record_length, RECORD), (PcapngWriter.record_length, BLOCK)]
)
@pytest.mark.parametrize("rest", [0, 1, 15, 16, 20])
def test_what_is_no_whole_record_is_cut_off(
    tmp_path: Path, length: object, record: bytes, rest: int
) -> None:
    path = tmp_path / "a"
    whole = b"x" * 24 + record * 7
    path.write_bytes(whole + record[:rest])
    fd = os.open(path, os.O_WRONLY)
    repair(fd, 24 + len(record), length)  # type: ignore[arg-type]
    os.close(fd)
    assert path.read_bytes() == whole


def kept(path: Path) -> tuple[PcapWriter, Keeper]:
    writer = PcapWriter(OutputFile(str(path)), 1)
    return writer, Keeper([Kept(writer.file, writer.record_length)])


def test_a_file_that_ends_well_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    writer, keeper = kept(path)
    writer.begin()
    os.write(writer.file.fd, b"half")
    keeper.close()
    keeper.close()
    assert path.read_bytes()[24:] == b"half"
    writer.close()


def killed(path: Path, *, begun: bool) -> None:
    """Let a process begin to write to the file and die."""
    pid = os.fork()
    if pid == 0:
        writer, _ = kept(path)
        if begun:
            writer.begin()
            writer.pending.append(RECORD)
            writer.flush()
            os.write(writer.file.fd, RECORD + RECORD[:3])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_file_whose_writer_was_killed_ends_with_a_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    killed(path, begun=True)
    deadline = time.monotonic() + PATIENCE
    while path.stat().st_size != 24 + 2 * len(RECORD):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert path.read_bytes()[24:] == RECORD * 2


def test_a_file_that_took_the_place_of_another_ends_with_a_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    pid = os.fork()
    if pid == 0:
        file = RotatingFile(str(path), Rotation(size=50, count=2), pcapng=False)
        writer = PcapWriter(file, 1)
        Keeper([Kept(file, writer.record_length)])
        writer.begin()
        for _ in range(9):  # two in each file: the names are used in turn
            writer.pending.append(RECORD)
            writer.flush()
        os.write(file.fd, RECORD + RECORD[:3])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    last = tmp_path / "a.pcap0"
    deadline = time.monotonic() + PATIENCE
    while last.stat().st_size != 24 + 2 * len(RECORD):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (tmp_path / "a.pcap1").stat().st_size == 24 + 2 * len(RECORD)
    assert last.read_bytes()[24:] == RECORD * 2


def test_an_old_file_is_not_touched_by_a_capture_that_never_began(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(b"old" * 100)
    killed(path, begun=False)
    time.sleep(0.3)
    assert path.read_bytes() == b"old" * 100
