# SPDX-License-Identifier: Apache-2.0
"""A flood of numbered frames: each is in the file or counted as lost; a kill leaves whole packets.

The frames have an EtherType that nobody takes, so each is seen once, where it is received, and
nothing answers.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support import frames, pcapng
from support.net import End, Network
from support.taps import read_capture
from support.tracing import Process, Running

ETHERTYPE = 0x88B6  # local experimental 2
FRAMES = 4000
#: Frames that are on their way at once: veth has room for 256.
AT_ONCE = 200
#: In a ring of one page, where three fit; and in one that takes some hundred.
PAGES = (1, 64)
#: Ways to capture: ``kcap capture`` to one file, to several, ``skboutput()`` in a script.
WAYS = ("capture", "rotation", "script")


def frame(network: Network, number: int) -> bytes:
    """A frame of 900 bytes with its number in front of its payload."""
    data = struct.pack("!I", number) + bytes(882)
    return frames.ethernet(network.b.mac, network.a.mac, ETHERTYPE, data)


class Way(NamedTuple):
    """A pair of interfaces: where frames are sent and where they are received."""

    sender: End
    sending: str
    receiver: End
    receiving: str


def flood(network: Network, first: int, count: int, way: Way | None = None) -> None:
    """Send numbered frames as fast as this process can, but no more at once than interfaces have
    room for: what they drop themselves is not received.

    :param way: from a to b by default.
    """
    way = way or Way(network.a, network.a.device, network.b, network.b.device)
    made = [frame(network, number) for number in range(first, first + count)]
    with way.sender.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with way.receiver.entered():
        receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with sender, receiver:
        sender.bind((way.sending, 0))
        receiver.bind((way.receiving, ETHERTYPE))
        received = 0
        for at in range(0, count, AT_ONCE):
            for one in made[at : at + AT_ONCE]:
                sender.send(one)
            while (received := received + arrived(receiver)) < min(at + AT_ONCE, count):
                time.sleep(0.001)


def arrived(receiver: socket.socket) -> int:
    """How many packets have come since it was asked last, whether or not there was room."""
    # SOL_PACKET, PACKET_STATISTICS: struct tpacket_stats.
    number: int = struct.unpack("II", receiver.getsockopt(263, 6, 8))[0]
    return number


def in_a_child(cpu: int, work: Callable[[], None]) -> int:
    """Let a process of its own do something on one CPU; its process id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.sched_setaffinity(0, {cpu})
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def capturing(arguments: list[str], directory: Path) -> Process:
    """``kcap capture`` at the place where frames are received, once it captures."""
    process = Process(["capture", "net:netif_receive_skb", *arguments], directory)
    while "capturing at" not in process.stderr:
        assert process.process.poll() is None, process.stderr
        time.sleep(0.05)
    return process


def script(path: Path) -> str:
    """A script that captures the numbered frames that are received."""
    return f"""rawtracepoint:netif_receive_skb
    / args.skb.protocol == bswap((uint16){ETHERTYPE:#x}) / {{
      skboutput("{path}", args.skb, args.skb.len, 0);
    }}"""


def writing(way: str, path: Path, network: Network, directory: Path) -> Process:
    """A process that captures the numbered frames that b receives, once it does.

    :param way: one of WAYS.
    """
    if way != "script":
        rotation = ["-C", "100k"] if way == "rotation" else []
        numbered = ["-i", network.b.device, "-f", f"ether proto {ETHERTYPE:#x}"]
        return capturing([*numbered, "-w", str(path), *rotation], directory)
    process = Process(["-e", script(path)], directory)
    process.wait_attached()
    return process


def rotated(path: Path) -> list[Path]:
    """The files of a rotation by size that there are, in their order."""
    names = [path, *(path.with_name(f"{path.name}{number}") for number in range(1, 1000))]
    return [name for name in names if name.exists()]


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
    with Running(f"config = {{ perf_rb_pages = {pages}; }} {script(path)}") as running:
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


@pytest.fixture
def second_pair(network: Network) -> Iterator[Way]:
    """A pair of interfaces in the other direction."""
    sender, receiver = "veth-flood-b", "veth-flood-a"
    one = f"link add {sender} netns {network.b.namespace} type veth peer name {receiver}"
    subprocess.run(["ip", *one.split(), "netns", network.a.namespace], check=True)
    for device, end in ((sender, network.b), (receiver, network.a)):
        with end.entered():
            Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
        subprocess.run(["ip", "-n", end.namespace, "link", "set", device, "up"], check=True)
    yield Way(network.b, sender, network.a, receiver)
    subprocess.run(["ip", "-n", network.b.namespace, "link", "del", sender], check=True)


@pytest.mark.parametrize("rotates", [False, True])
@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_floods_on_several_cpus_devices_and_namespaces_are_captured_or_counted_in_order_of_time(
    network: Network, second_pair: Way, tmp_path: Path, suffix: str, rotates: bool
) -> None:
    path = tmp_path / f"flood.{suffix}"
    # A ring of one page takes three frames.
    size = ["-B", "64", "-C", "100k"] if rotates else ["-B", "4"]
    arguments = ["-f", f"ether proto {ETHERTYPE:#x}", "-w", str(path), *size]
    process = capturing(arguments, tmp_path)
    each = 1000
    others = frames.ethernet(network.b.mac, network.a.mac, 0x88B5, bytes(100))

    def one_way() -> None:
        network.a.send(others)
        flood(network, 0, each)

    def other_way() -> None:
        flood(network, each, each, second_pair)
        network.a.send(others)

    cpus = sorted(os.sched_getaffinity(0))
    children = [in_a_child(cpus[0], one_way), in_a_child(cpus[-1], other_way)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert process.end(signal.SIGINT) == 0, process.stderr
    counted = re.search(r"netif_receive_skb +\d+ +(\d+) +(\d+) +(\d+)", process.stderr)
    assert counted is not None, process.stderr
    matched, captured, lost = map(int, counted.groups())
    assert matched == 2 * each == captured + lost
    assert lost > 0 or rotates, "the rings were never full"
    files = rotated(path)
    assert (len(files) > 1) == rotates
    packets = [packet for file in files for packet in read_capture(file).packets]
    found = numbers([packet.data for packet in packets])
    assert len(set(found)) == len(found) == captured > 0
    assert set(found) <= set(range(2 * each))
    times = [packet.time_ns for packet in packets]
    assert times == sorted(times)
    for first in (0, each):
        of_one = [number for number in found if first <= number < first + each]
        assert of_one == sorted(of_one) != []
    if suffix == "pcapng":
        statistics = [one for file in files for one in pcapng.read(file).statistics]
        for device in (network.b.device, second_pair.receiving):
            mine = [one for one in statistics if one.interface.name == device]
            received, dropped, delivered = (sum(part) for part in list(zip(*mine, strict=True))[1:])
            assert received == each == dropped + delivered


@pytest.mark.parametrize(
    ("way", "suffix"),
    [*((way, suffix) for way in WAYS[:2] for suffix in ("pcap", "pcapng")), ("script", "pcapng")],
)
def test_a_kill_during_a_flood_leaves_whole_packets(
    network: Network, tmp_path: Path, suffix: str, way: str, for_tshark: Callable[[Path], None]
) -> None:
    path = tmp_path / f"killed.{suffix}"
    process = writing(way, path, network, tmp_path)
    keeper = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text()
    sent = 0
    while sum(file.stat().st_size for file in rotated(path)) < 1_000_000:
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
    while any(Path(f"/proc/{pid}").exists() for pid in keeper.split()):
        time.sleep(0.05)  # until the process that watched over the files has done its work
    files = rotated(path)
    assert (len(files) > 1) == (way == "rotation")
    found = [numbers([one.data for one in read_capture(file).packets]) for file in files]
    # A megabyte of frames of 900 bytes, each with its block and comment.
    assert sum(map(len, found)) >= 900
    if suffix == "pcapng":
        assert [len(pcapng.read(file).packets) for file in files] == list(map(len, found))
    for file in files[-2:]:  # the one that was being written, and one whose turn was over
        for_tshark(file)


@pytest.mark.parametrize(
    ("way", "suffix"), [("capture", "pcap"), ("rotation", "pcapng"), ("script", "pcapng")]
)
def test_a_full_disk_ends_a_capture_and_keeps_what_was_written(
    network: Network, tmp_path: Path, suffix: str, way: str, for_tshark: Callable[[Path], None]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(disk)], check=True)
    try:
        path = disk / f"full.{suffix}"
        process = writing(way, path, network, tmp_path)
        sent = 0
        while process.process.poll() is None:
            flood(network, sent, 500)
            sent += 500
            assert sent < 50_000
        assert process.end() == 1
        assert "No space left on device" in process.stderr
        assert "Traceback" not in process.stderr
        files = rotated(path)
        assert len(files) >= 4 if way == "rotation" else files == [path]
        found = [number for file in files for number in
                 numbers([one.data for one in read_capture(file).packets])]  # fmt: skip
        assert 200 < len(found) == len(set(found))
        assert found == sorted(found)
        for file in files[-2:]:
            for_tshark(file)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
