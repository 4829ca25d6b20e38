# SPDX-License-Identifier: Apache-2.0
"""A flood of numbered frames: each is in the file or counted as lost; a kill leaves whole packets.

The frames have an EtherType that nobody takes, so each is seen once, where it is received, and
nothing answers.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from support import frames, pcapng
from support.net import Network
from support.taps import read_capture
from support.tracing import Process, Running

ETHERTYPE = 0x88B6  # local experimental 2
FRAMES = 4000
#: In a ring of one page, where three fit; and in one that takes some hundred.
PAGES = (1, 64)


def frame(network: Network, number: int) -> bytes:
    """A frame of 900 bytes with its number in front of its payload."""
    data = struct.pack("!I", number) + bytes(882)
    return frames.ethernet(network.b.mac, network.a.mac, ETHERTYPE, data)


def flood(network: Network, first: int, count: int) -> None:
    """Send numbered frames as fast as this process can."""
    made = [frame(network, number) for number in range(first, first + count)]
    with network.a.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with sender:
        sender.bind((network.a.device, 0))
        for one in made:
            sender.send(one)


def numbers(data: list[bytes]) -> list[int]:
    """The numbers of frames, which have to be whole."""
    assert {len(one) for one in data} <= {900}
    return [struct.unpack_from("!I", one, 14)[0] for one in data]


@pytest.mark.parametrize("pages", PAGES)
@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_each_packet_is_captured_or_reported_as_lost(
    network: Network, tmp_path: Path, suffix: str, pages: int
) -> None:
    path = tmp_path / f"flood.{suffix}"
    script = f"""config = {{ perf_rb_pages = {pages}; }}
    rawtracepoint:netif_receive_skb / args.skb.protocol == bswap((uint16){ETHERTYPE:#x}) / {{
      skboutput("{path}", args.skb, args.skb.len, 0);
    }}"""
    with Running(script) as running:
        for part in range(4):
            flood(network, part * FRAMES // 4, FRAMES // 4)
        running.stop()
    lost = sum(running.lost.values())
    found = numbers([one.data for one in read_capture(path).packets])
    assert len(set(found)) == len(found), "a packet twice"
    assert set(found) <= set(range(FRAMES))
    assert len(found) + lost == FRAMES
    assert found == sorted(found), "sent by one thread, received by one CPU at a time"
    if pages == 1:
        assert lost > 0, "the ring was never full"
    (line,) = running.trace.summary()
    assert f"{len(found)} packets written" in line
    assert (f"{lost} lost" in line) == (lost > 0)
    if suffix == "pcapng":
        (statistics,) = pcapng.read(path).statistics
        assert (statistics.interface.name, *statistics[1:]) == (
            network.b.device, FRAMES, lost, len(found)
        )  # fmt: skip


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_a_kill_during_a_flood_leaves_whole_packets(
    network: Network, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"killed.{suffix}"
    arguments = ["capture", "net:netif_receive_skb", "-i", network.b.device, "-w", str(path)]
    process = Process(arguments, tmp_path)
    while "capturing at" not in process.stderr:
        assert process.process.poll() is None, process.stderr
        time.sleep(0.05)
    sent = 0
    while path.stat().st_size < 1_000_000:
        flood(network, sent, 500)
        sent += 500
        assert sent < 50_000
    child = os.fork()
    if child == 0:
        try:
            flood(network, sent, 5000)
        finally:
            os._exit(0)
    time.sleep(0.1)
    process.end(signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(path, "rb") as file:
        # Free once the process that watched over it has done its work, too.
        fcntl.flock(file, fcntl.LOCK_EX)
    found = numbers([one.data for one in read_capture(path).packets])
    assert len(found) >= 900  # a megabyte of frames of 900 bytes, each with its block and comment
    if suffix == "pcapng":
        assert len(pcapng.read(path).packets) == len(found)
