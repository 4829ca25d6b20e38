# SPDX-License-Identifier: Apache-2.0
"""skboutput() off the beaten track: arguments, odd packets, full rings, full disks."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kcap.errors import FileError
from kcap.packet.decode import Packet
from support.net import Network
from support.taps import Capture, read_capture
from support.tracing import Running

SCRIPT = """
config = {{ perf_rb_pages = 512; }}
fentry:__dev_queue_xmit {{
  $a = skboutput("{d}/raw.pcap", args.skb, args.skb.len, 14);
  @results["offset", $a] = count();
}}
fentry:icmp_rcv {{
  $b = skboutput("{d}/short.pcap", args.skb, 6, 0);
  $c = skboutput("{d}/none.pcap", args.skb, 0, 0);
  $d = skboutput("{d}/long.pcapng", args.skb, 1000000, 0);
  @results["short", $b] = count();
  @results["none", $c] = count();
  @results["long", $d] = count();
}}
fentry:consume_skb {{
  $e = skboutput("{d}/freed.pcapng", args.skb, args.skb.len, 0);
  @results["freed", $e] = count();
  if ($e < 0) {{ @negative = count(); }}
}}
"""


@dataclass
class Result:
    """What was sent and captured."""

    directory: Path
    frames: list[bytes] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    text: str = ""
    messages: str = ""
    summary: list[str] = field(default_factory=list)

    def read(self, name: str) -> Capture:
        """Return a file as libpcap reads it."""
        return read_capture(self.directory / name)


@pytest.fixture(scope="module")
def result(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Result:
    made = Result(tmp_path_factory.mktemp("edges"))
    with Running(SCRIPT.format(d=made.directory), packets=True) as running:
        for number in range(1, 11):
            made.frames.append(network.ping(bytes(range(100)), sequence=number))
            made.frames.append(network.ping6(bytes(range(100)), sequence=number))
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            netlink.bind((0, 0))
            # RTM_GETLINK of the device 1: its answer is an sk_buff that no device has seen.
            request = bytes.fromhex("20000000120001000100000000000000")
            netlink.send(request + bytes(4) + b"\x01\0\0\0" + bytes(8))
            netlink.recv(65536)
        running.stop()
    made.packets = [event for event in running.events if isinstance(event, Packet)]
    made.text, made.messages = running.text, running.messages
    made.summary = list(running.trace.summary())
    return made


def test_an_offset_of_the_mac_header_gives_raw_ip(result: Result) -> None:
    capture = result.read("raw.pcap")
    assert capture.link_type == 101
    data = [one.data for one in capture.packets]
    assert [frame for frame in result.frames if frame[14:] not in data] == []
    assert all(one.length == len(one.data) for one in capture.packets)


def test_a_length_below_the_packets_cuts_it_and_keeps_the_true_length(result: Result) -> None:
    found = result.read("short.pcap").packets
    assert len(found) == 20
    # At icmp_rcv data stands behind the IP header: 6 bytes of ICMP with the 34 before.
    echoes = [frame for frame in result.frames if frame[12:14] == b"\x08\x00"]
    assert [one.data for one in found if one.data[34] == 8] == [frame[:40] for frame in echoes]
    assert {one.length for one in found} == {len(echoes[0])}


def test_a_length_of_nothing_keeps_the_headers(result: Result) -> None:
    found = result.read("none.pcap").packets
    assert {len(one.data) for one in found} == {34}
    assert {one.length for one in found} == {len(result.frames[0])}


def test_a_length_above_the_packets_is_clamped(result: Result) -> None:
    found = result.read("long.pcapng").packets
    echoes = [frame for frame in result.frames if frame[12:14] == b"\x08\x00"]
    assert [one.data for one in found if one.data[34] == 8] == echoes
    assert all(one.length == len(one.data) for one in found)


def test_the_result_is_0(result: Result) -> None:
    for name in ("offset", "short", "none", "long", "freed"):
        results = re.findall(rf"@results\[{name}, (-?\d+)\]", result.text)
        assert results == ["0"], (name, result.text)
    assert "@negative" not in result.text


def test_packets_without_a_device_are_in_the_file_and_known_as_such(result: Result) -> None:
    freed = [one for one in result.packets if one.path.endswith("freed.pcapng")]
    assert freed
    without = [one for one in freed if not one.interface]
    assert without
    assert all(one.ifindex == 0 and one.netns == 0 for one in without)


def test_packets_reach_the_program_as_objects(result: Result) -> None:
    found = [one for one in result.packets if one.path.endswith("long.pcapng")]
    first = found[0]
    assert first.data == result.frames[0]
    assert first.original_length == len(first.data)
    assert (first.interface, first.direction, first.protocol) == ("veth-b", "in", 0x0800)
    assert first.probe.endswith("icmp_rcv")
    assert (first.link_type, first.vlan, first.made_header) == (1, None, False)
    assert [one.time_ns for one in found] == sorted(one.time_ns for one in found)


# --- a ring that overflows ---

FLOOD = 3000


@dataclass
class Flood:
    """A flood through the smallest ring."""

    running: Running
    captured: int
    summary: list[str]


@pytest.fixture(scope="module")
def flood(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Flood:
    path = tmp_path_factory.mktemp("flood") / "flood.pcap"
    script = f"""config = {{ perf_rb_pages = 1; }}
    fentry:icmp_rcv {{
      $r = skboutput("{path}", args.skb, args.skb.len, 0);
      if ($r == 0) {{ @sent = count(); }} else {{ @refused[$r] = count(); }}
      @all = count();
    }}"""
    with network.a.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind((network.a.device, 0))
    frame = network.ping(bytes(900))
    with sender, Running(script) as running:
        for _ in range(FLOOD):
            sender.send(frame)
        running.stop()
    return Flood(running, len(read_capture(path).packets), list(running.trace.summary()))


def numbers(text: str) -> dict[str, int]:
    """Return the maps without keys, and those with one number as key."""
    return {name: int(value) for name, value in re.findall(r"^(@\S+): (-?\d+)$", text, re.M)}


def test_all_packets_are_written_or_counted_as_lost(flood: Flood) -> None:
    found = numbers(flood.running.text)
    lost = sum(flood.running.lost.values())
    assert lost > 0, "the ring was never full"
    assert flood.captured + lost == found["@all"]
    assert flood.captured == found["@sent"]
    assert lost == found[f"@refused[{-errno.ENOSPC}]"]
    assert found["@all"] >= FLOOD


def test_the_loss_is_reported_for_its_probe(flood: Flood) -> None:
    (probe,) = flood.running.lost
    assert probe.endswith("icmp_rcv")
    lines = flood.running.messages.splitlines()
    assert lines
    assert all(re.fullmatch(r"Lost \d+ packets at fentry:\S*icmp_rcv", line) for line in lines)
    assert sum(int(line.split()[1]) for line in lines) == flood.running.lost[probe]
    assert any(f"{flood.running.lost[probe]} lost" in line for line in flood.summary), flood.summary


# --- a disk that fills ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_the_trace_and_leaves_whole_packets(
    network: Network, small_disk: Path
) -> None:
    path = small_disk / "c.pcap"
    script = f'fentry:icmp_rcv {{ skboutput("{path}", args.skb, args.skb.len, 0); }}'
    with pytest.raises(FileError) as caught:
        flood_of_pings(script, network, 100)
    assert caught.value.path == str(path)
    assert os.strerror(errno.ENOSPC) in str(caught.value)
    found = read_capture(path).packets
    assert len(found) >= 40
    assert {one.length for one in found} == {14 + 20 + 8 + 1000}
    assert all(len(one.data) == one.length for one in found)


def flood_of_pings(script: str, network: Network, count: int) -> None:
    with Running(script):
        for _ in range(count):
            network.ping(bytes(1000))
