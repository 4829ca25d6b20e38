# SPDX-License-Identifier: Apache-2.0
"""Packets of every kind, captured at kernel functions, are in the files byte for byte as sent.

One trace writes what each function sees to a file of its own, and what some see to a pcapng file.
Three kinds of traffic pass: packets of all protocols and sizes through a veth pair with GRO, then
super-packets through the same pair with TSO and without GRO, then echo requests into a tap device
with NAPI. libpcap (tcpdump) and scapy read the files.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kcap.probes.system import System
from live.guest.packets import packet_traffic as traffic
from live.guest.packets.packet_traffic import LIMIT, Packet, number_of
from support.net import TSO, Network
from support.taps import Capture, Read, Seen, Tap, read_capture
from support.tracing import Running, without_preempted

#: Where packets are captured: a name, and the probes that it may be, the first that exists.
#: __netif_receive_skb_core takes a pointer to a pointer to the packet since 5.7, which no BPF
#: program may follow and capture; the tracepoint net:netif_receive_skb is its first statement.
#: ip_rcv sees single packets: what comes out of GRO goes through ip_list_rcv, as a list.
SITES = {
    "core": ("rawtracepoint:netif_receive_skb",),
    "backlog": ("fentry:__netif_receive_skb", "fentry:__netif_receive_skb_one_core"),
    "ip_rcv": ("fentry:ip_rcv",),
    "icmp_rcv": ("fentry:icmp_rcv",),
    "ip_output": ("fentry:ip_output",),
    "queue": ("fentry:__dev_queue_xmit",),
    "start": ("fentry:dev_hard_start_xmit",),
    "gro": ("fentry:napi_gro_receive", "fentry:gro_receive_skb"),
}
ARGUMENT = {"start": "first"}
#: These write to one pcapng file, too; not all do, since the verifier takes its time.
BOTH = ("core", "ip_rcv", "ip_output")

FIRST_SUPER, FIRST_BACKLOG, FIRST_TAP, STREAM, JOINED = 2000, 3000, 4000, 5000, 6000


def script(directory: Path, system: System) -> str:
    """Return the script for what this kernel has."""
    functions = system.functions
    assert functions is not None
    probes = []
    for site, choices in SITES.items():
        probe = next(
            one for one in choices if one.startswith("raw") or one.partition(":")[2] in functions
        )
        skb = f"args.{ARGUMENT.get(site, 'skb')}"
        files = [f"{site}.pcap", *(["some.pcapng"] if site in BOTH else [])]
        calls = "".join(
            f"""
              $result = skboutput("{directory}/{name}", {skb}, {skb}.len, 0);
              if ($result != 0) {{ @failed["{site}", $result] = count(); }}"""
            for name in files
        )
        probes.append(f"{probe} {{{calls}\n}}")
    return "config = { perf_rb_pages = 4096; }\n" + "\n".join(probes)


@dataclass
class Result:
    """What was sent and what was captured.

    :ivar expected: per site, the frames that it must have seen, in any order.
    """

    directory: Path
    has_napi: bool
    started_ns: int = 0
    ended_ns: int = 0
    plain: list[Packet] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)
    later: list[Packet] = field(default_factory=list)
    later_replies: list[bytes] = field(default_factory=list)
    supers: list[bytes] = field(default_factory=list)
    tap_requests: list[bytes] = field(default_factory=list)
    tap_replies: list[bytes] = field(default_factory=list)
    stream: list[bytes] = field(default_factory=list)
    joined: list[bytes] = field(default_factory=list)
    events: list[object] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    messages: str = ""
    summary: list[str] = field(default_factory=list)
    captures: dict[str, Capture] = field(default_factory=dict)

    def marked(self, site: str, first: int = 0, end: int = 1 << 32) -> list[Read]:
        """Return the packets of a site's file that carry a marker, of a range of numbers."""
        found = []
        for packet in self.captures[site].packets:
            number = number_of(packet.data)
            if number is not None and first <= number < end:
                found.append(packet)
        return found


@pytest.fixture(scope="module")
def result(
    network: Network, kernel: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Result]:
    directory = tmp_path_factory.mktemp("captures")
    # veth has had NAPI without an XDP program since 5.13.
    made = Result(directory, has_napi=kernel != "5.10")
    device = traffic.TapDevice(network.b)
    tap, other = Tap(network.a), Tap(network.b)
    traffic.set_mtu(network, traffic.MTU)
    made.started_ns = time.time_ns()
    try:
        with Running(script(directory, System())) as running:
            print(*running.trace.timings.lines(), sep="\n")
            with traffic.listening(network.b, 4001):
                send_everything(made, network, (tap, other), device)
            running.stop()
            made.ended_ns = time.time_ns()
        made.events, made.lost, made.messages = running.events, running.lost, running.messages
        made.summary = list(running.trace.summary())
        for site in SITES:
            made.captures[site] = read_capture(directory / f"{site}.pcap")
        yield made
    finally:
        tap.close()
        other.close()
        device.close()
        traffic.set_features(network, "gro", "on", *[w for one in TSO for w in (one, "off")])
        traffic.set_mtu(network, 1500)


def send_everything(
    made: Result, network: Network, taps: tuple[Tap, Tap], device: traffic.TapDevice
) -> None:
    """Make all traffic, and note what must be found."""
    tap, other = taps
    made.plain = traffic.plain_packets(network, 1)
    echoes = [one for one in made.plain if one.kind.startswith("icmp")]
    traffic.send(network, made.plain)
    made.replies = tap.wait(lambda one: incoming(one, 1, FIRST_SUPER), len(echoes))
    block = traffic.payload(JOINED, 500)
    assert network.tcp(block * 100) == block * 100
    made.joined = other.frames(lambda one: not one.outgoing and number_of(one.frame) == JOINED)

    traffic.set_features(network, "gro", "off", *[w for one in TSO for w in (one, "on")])
    supers = traffic.super_packets(network, FIRST_SUPER)
    traffic.send_super_packets(network.a, supers)
    made.supers = [frame for _, frame in supers]
    made.later = traffic.plain_packets(network, FIRST_BACKLOG)
    traffic.send(network, made.later)
    made.later_replies = tap.wait(lambda one: incoming(one, FIRST_BACKLOG, FIRST_TAP), len(echoes))
    # Each segment of this carries a marker, since each is longer than what repeats.
    block = traffic.payload(STREAM, 500)
    assert network.tcp(block * 100) == block * 100
    made.stream = tap.frames(lambda one: one.outgoing and number_of(one.frame) == STREAM)

    made.tap_requests = device.packets(FIRST_TAP)
    for frame in made.tap_requests:
        device.write(frame)
    made.tap_replies = device.wait(len(made.tap_requests))


def incoming(one: Seen, first: int, end: int) -> bool:
    number = number_of(one.frame)
    return not one.outgoing and number is not None and first <= number < end


def made_header(frame: bytes) -> bytes:
    """Return what is captured where there is no MAC header yet."""
    return bytes(12) + frame[12:14] + frame[14:]


def both_ways(packet: Packet) -> list[bytes]:
    """Return what functions on the way out see of a packet: the VLAN device's pass, too."""
    return [packet.frame, packet.wire] if packet.vlan else [packet.frame]


def out_again(frame: bytes) -> list[bytes]:
    """Return what functions on the way out see of a reply."""
    if frame[12:14] == b"\x81\x00":
        return [frame[:12] + frame[16:], frame]
    return [frame]


def untagged(frame: bytes) -> bytes:
    return frame[:12] + frame[16:] if frame[12:14] == b"\x81\x00" else frame


def expected(site: str, sent: list[Packet], replies: list[bytes]) -> list[bytes]:
    """Return the frames that a site sees of packets from a and the replies from b."""
    if site in ("queue", "start"):
        ways = [both_ways(one) for one in sent] + [out_again(one) for one in replies]
        return [frame for way in ways for frame in way]
    if site in ("core", "gro", "backlog"):
        return [one.wire for one in sent] + replies
    ipv4 = [one for one in sent if one.protocol == 0x0800]
    replies4 = [one for one in map(untagged, replies) if one[12:14] == b"\x08\x00"]
    if site == "ip_rcv":
        return [one.untagged for one in ipv4] + replies4
    if site == "icmp_rcv":
        return [one.untagged for one in ipv4 if one.kind == "icmp"] + replies4
    assert site == "ip_output"
    return [made_header(one) for one in replies4]


def same(found: list[Read], wanted: list[bytes]) -> None:
    """Assert that exactly the wanted frames were found, whole."""
    data = Counter(one.data for one in found)
    missing, extra = Counter(wanted) - data, data - Counter(wanted)
    assert (describe(missing), describe(extra)) == ([], [])
    assert all(one.length == len(one.data) for one in found)


def describe(some: Counter[bytes]) -> list[tuple[int | None, int, str]]:
    return [(number_of(one), len(one), one[:64].hex()) for one in some.elements()]


@pytest.mark.parametrize("site", ["core", "gro", "icmp_rcv", "ip_output", "queue", "start"])
def test_packets_of_every_kind_and_size_are_there_byte_for_byte(result: Result, site: str) -> None:
    wanted = expected(site, result.plain, result.replies)
    if site == "gro" and not result.has_napi:
        wanted = []
    same(result.marked(site, 1, FIRST_SUPER), wanted)


@pytest.mark.parametrize(
    "site", ["core", "backlog", "ip_rcv", "icmp_rcv", "ip_output", "queue", "start"]
)
def test_without_gro_packets_come_through_the_backlog_byte_for_byte(
    result: Result, site: str
) -> None:
    wanted = expected(site, result.later, result.later_replies)
    same(result.marked(site, FIRST_BACKLOG, FIRST_TAP), wanted)


@pytest.mark.parametrize("site", ["queue", "start", "core", "backlog", "ip_rcv"])
def test_super_packets_are_whole_up_to_the_limit_and_know_their_length(
    result: Result, site: str
) -> None:
    found = {number_of(one.data): one for one in result.marked(site, FIRST_SUPER, FIRST_BACKLOG)}
    assert len(found) == len(result.supers)
    for number, frame in enumerate(result.supers, FIRST_SUPER):
        assert found[number].length == len(frame)
        assert found[number].data == frame[:LIMIT]


@pytest.mark.parametrize("site", ["queue", "start", "core", "backlog", "ip_rcv", "ip_output"])
def test_what_tcp_sends_is_what_a_packet_socket_sees(result: Result, site: str) -> None:
    wanted = result.stream
    assert max(map(len, wanted)) > traffic.MTU + 14, "no super-packet among them"
    if site == "ip_output":
        wanted = [made_header(one) for one in wanted]
    same(result.marked(site, STREAM, STREAM + 1), wanted)


def test_what_gro_joins_is_what_a_packet_socket_sees(result: Result) -> None:
    same(result.marked("core", JOINED), result.joined)
    if result.has_napi:
        segments = [one.data for one in result.marked("gro", JOINED)]
        assert sum(len(one) - 66 for one in segments) == 50_000
        assert len(result.joined) <= len(segments)


@pytest.mark.parametrize("site", ["gro", "core", "icmp_rcv", "ip_output", "queue", "start"])
def test_a_tap_device_with_napi_gives_and_takes_the_same_bytes(result: Result, site: str) -> None:
    wanted = {
        "ip_output": [made_header(one) for one in result.tap_replies],
        "queue": result.tap_replies,
        "start": result.tap_replies,
    }.get(site, result.tap_requests)
    same(result.marked(site, FIRST_TAP, STREAM), wanted)


def test_nothing_was_lost_or_failed(result: Result) -> None:
    assert result.lost == {}
    assert without_preempted(result.messages) == []
    assert not any("lost" in line or "malformed" in line for line in result.summary), result.summary


def test_times_have_nanoseconds_rise_and_lie_within_the_test(result: Result) -> None:
    for site, capture in result.captures.items():
        times = [one.time_ns for one in capture.packets]
        assert times == sorted(times), site
        assert result.started_ns <= times[0] <= times[-1] <= result.ended_ns, site
    assert any(one.time_ns % 1000 for one in result.captures["core"].packets)


def test_every_file_is_ethernet(result: Result) -> None:
    assert {capture.link_type for capture in result.captures.values()} == {1}


def test_the_pcapng_file_has_every_packet_of_its_functions(result: Result) -> None:
    everything = read_capture(result.directory / "some.pcapng")
    wanted = Counter(
        (one.length, one.data) for site in BOTH for one in result.captures[site].packets
    )
    assert Counter((one.length, one.data) for one in everything.packets) == wanted
    times = [one.time_ns for one in everything.packets]
    assert times == sorted(times)
    assert result.started_ns <= times[0] <= times[-1] <= result.ended_ns


def test_scapy_reads_interfaces_and_probes_from_the_pcapng_file(result: Result) -> None:
    from scapy.utils import RawPcapNgReader

    names: Counter[str] = Counter()
    comments: Counter[str] = Counter()
    with RawPcapNgReader(str(result.directory / "some.pcapng")) as reader:
        for data, read in reader:
            meta: Any = read
            names[meta.ifname.decode()] += 1
            comment = (meta.comments[0] if hasattr(meta, "comments") else meta.comment).decode()
            comments[comment.split()[0]] += 1
            assert meta.tsresol == 10**9
            assert number_of(data) is None or meta.wirelen >= len(data)
    assert {"veth-a", "veth-b", "veth-a.100", "veth-b.100", "kcap-tap"} <= set(names)
    counts = {site: len(result.captures[site].packets) for site in BOTH}
    assert sum(comments.values()) == sum(counts.values())
    assert comments["fentry:vmlinux:ip_rcv"] == counts["ip_rcv"]
    assert comments["rawtracepoint:vmlinux:netif_receive_skb"] == counts["core"]


def test_the_summary_counts_what_is_in_the_files(result: Result) -> None:
    text = "\n".join(result.summary)
    for site, capture in result.captures.items():
        count = len(capture.packets)
        assert f"{result.directory}/{site}.pcap: {count} packets written" in text


def test_files_are_private(result: Result) -> None:
    for path in result.directory.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
