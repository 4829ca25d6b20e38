# SPDX-License-Identifier: Apache-2.0
"""Every kind of packet, at ten functions between driver and socket, against packet(7) sockets.

Sockets see each packet where a device receives it (beside the tracepoint net:netif_receive_skb) and
where a device sends it (beside net:net_dev_start_xmit): there kcap must have exactly the same
bytes, packet by packet. Elsewhere every captured packet must be one that the sockets saw, or
follow from those by what the kernel does in between: reassembling fragments, splitting
super-packets, forwarding. tshark reads the file on the host.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kcap.probes.system import System
from live.guest.packets import all_kinds as world
from support import frames, pcapng
from support.introduced import number
from support.net import wait_until
from support.tracing import Running

PROBES = {
    "gro": (("fentry:napi_gro_receive", "fentry:gro_receive_skb"), "skb"),
    "received": (("rawtracepoint:netif_receive_skb",), "skb"),
    "ip_rcv": (("fentry:ip_rcv",), "skb"),
    "ipv6_rcv": (("fentry:ipv6_rcv",), "skb"),
    "local": (("fentry:ip_local_deliver",), "skb"),
    "udp": (("fentry:udp_rcv",), "skb"),
    "tcp": (("fentry:tcp_v4_rcv",), "skb"),
    "output": (("fentry:ip_output",), "skb"),
    "queue": (("fentry:__dev_queue_xmit",), "skb"),
    "sent": (("rawtracepoint:net_dev_start_xmit",), "skb"),
}
#: The most that one record of the perf ring takes of a frame (docs/architecture.md).
LIMIT = 65364
STREAM = b"".join(struct.pack("!Q", number) for number in range(0, 300_000, 8))
#: Kinds of datagrams by a number that is in them, and the functions that must have seen them.
KINDS = {
    "plain": "queue sent ip_rcv received local udp output",
    "ipv6": "queue sent received ipv6_rcv",
    "jumbo": "queue sent received ip_rcv udp output",
    "fragments": "queue sent received ip_rcv local udp",
    "ipv6 fragments": "queue sent received ipv6_rcv",
    "hop-by-hop": "queue sent received ipv6_rcv",
    "destination options": "queue sent received ipv6_rcv",
    "vlan": "queue sent received ip_rcv udp",
    "vlan in vlan": "queue sent received ip_rcv udp",
    "vxlan": "queue sent received ip_rcv udp",
    "gre": "queue sent received ip_rcv udp",
    "bridge": "queue sent received ip_rcv udp",
    "nat": "queue sent received ip_rcv udp output",
    "loopback": "queue sent received ip_rcv udp",
    "napi": "gro queue sent received udp",
    "tun": "received ip_rcv local sent",
}
HOP_BY_HOP, DESTINATION = 54, 59  # IPV6_HOPOPTS, IPV6_DSTOPTS


class Seen(NamedTuple):
    """A frame that a packet socket saw, with a made Ethernet header where there is none."""

    namespace: str
    device: str
    outgoing: bool
    frame: bytes


class Tap:
    """A packet socket for all devices of a namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        with world.entered(namespace):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.socket.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA

    def read(self) -> Iterator[Seen]:
        """All that it has seen."""
        while True:
            try:
                data, notes, _, address = self.socket.recvmsg(
                    1 << 17, socket.CMSG_SPACE(20), socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            device, protocol, kind, hardware = address[:4]
            if hardware not in (1, 772):  # ARPHRD_ETHER, ARPHRD_LOOPBACK
                data = bytes(12) + struct.pack("!H", protocol & 0xFFFF) + data
            for _, _, note in notes:
                status, _, _, _, _, tci, tpid = struct.unpack_from("=IIIHHHH", note)
                if status & 16:  # TP_STATUS_VLAN_VALID
                    data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
            yield Seen(self.namespace, device, kind == socket.PACKET_OUTGOING, data)


class Result(NamedTuple):
    """Everything that was seen and captured."""

    seen: list[Seen]
    captured: list[pcapng.Block]
    namespaces: dict[int, str]
    sites: dict[str, str]
    path: Path
    lost: dict[str, int]
    summary: list[str]

    def at(self, site: str) -> list[pcapng.Block]:
        """What was captured at a function."""
        return [one for one in self.captured if one.function == self.sites[site]]


def mark(kind: str, size: int = 60) -> bytes:
    """A payload that tells its kind."""
    number = list(KINDS).index(kind)
    return (struct.pack("!4sI", b"kInD", number) + bytes(range(256)) * 100)[:size]


def kind_of(data: bytes) -> str:
    """The kind of a packet, or ''."""
    at = data.find(b"kInD")
    return list(KINDS)[struct.unpack_from("!I", data, at + 4)[0]] if at >= 0 else ""


def script(path: Path, system: System) -> tuple[str, dict[str, str]]:
    """The script, and the function of each site on this kernel."""
    functions = system.functions
    assert functions is not None
    sites, probes = {}, []
    for site, (choices, argument) in PROBES.items():
        probe = next(
            one for one in choices if one.startswith("raw") or one.partition(":")[2] in functions
        )
        sites[site] = probe.rpartition(":")[2]
        probes.append(f'{probe} {{ skboutput("{path}", args.{argument}, 65535, 0); }}')
    return "config = { perf_rb_pages = 8192; }\n" + "\n".join(probes), sites


def traffic(tun: world.TunDevice) -> None:
    """One exchange of every kind."""
    far = f"10.{world.PLAIN}.0.2"
    padding = struct.pack("!BBBBI", 0, 0, 1, 4, 0)  # one PadN option fills the header
    send = world.datagram
    send("w-a", "w-b", far, mark("plain"))
    send("w-a", "w-b", "fd90::2", mark("ipv6", 1400))
    send("w-a", "w-b", far, mark("jumbo", 8900))
    send("w-a", "w-b", far, mark("fragments", 20_001))
    send("w-a", "w-b", "fd90::2", mark("ipv6 fragments", 20_003))
    send("w-a", "w-b", "fd90::2", mark("hop-by-hop"), {HOP_BY_HOP: padding})
    send("w-a", "w-b", "fd90::2", mark("destination options", 999), {DESTINATION: padding})
    send("w-a", "w-b", f"10.{world.TAGGED}.0.2", mark("vlan", 1400))
    send("w-a", "w-b", f"10.{world.STACKED}.0.2", mark("vlan in vlan", 61))
    send("w-a", "w-b", f"10.{world.VXLAN}.0.2", mark("vxlan", 1001))
    send("w-a", "w-b", f"10.{world.GRE}.0.2", mark("gre", 1002))
    send("w-c", "w-d", f"10.{world.BRIDGE}.0.4", mark("bridge", 200))
    send("w-c", "w-a", f"10.{world.PLAIN}.0.1", mark("nat", 201))
    send("w-a", "w-a", "127.0.0.1", mark("loopback", 16_001))
    tun.ping(mark("tun", 333))
    world.stream(STREAM)  # with TSO: super-packets pass the link as they are
    # Without TSO a veth pair goes through NAPI, which joins what TCP has been split into.
    world.offloads("tso", "off", "tx-tcp-mangleid-segmentation", "off",
                   "tx-tcp-ecn-segmentation", "off", "tx-tcp6-segmentation", "off")  # fmt: skip
    send("w-a", "w-b", far, mark("napi", 777))
    world.stream(STREAM)


@pytest.fixture(scope="module")
def result(kernel: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    path = tmp_path_factory.mktemp("kinds") / "all.pcapng"
    world.set_up()
    world.offloads("gro", "on", "tso", "on")
    tun = world.TunDevice()
    taps = [Tap(name) for name in world.NAMES]
    namespaces = {Path(f"/run/netns/{name}").stat().st_ino: name for name in world.NAMES}
    text, sites = script(path, System())
    before = [seen for tap in taps for seen in tap.read()]
    with Running(text) as running:
        between = [seen for tap in taps for seen in tap.read()]
        assert all(one.frame[12:14] == b"\x86\xdd" for one in before + between), show(
            Counter((one.namespace, one.device, one.frame) for one in before + between)
        )
        traffic(tun)
        count = 0

        def settled() -> bool:
            nonlocal count, between
            between += [seen for tap in taps for seen in tap.read()]
            before, count = count, len(between)
            return before == count

        wait_until(settled)
        running.stop()
    seen = between
    tun.close()
    world.tear_down()
    captured = pcapng.read(path).packets
    return Result(
        seen, captured, namespaces, sites, path, running.lost, list(running.trace.summary())
    )


def test_nothing_was_lost(result: Result) -> None:
    assert result.lost == {}
    assert len(result.summary) == 1, result.summary
    assert f"{len(result.captured)} packets written" in result.summary[0]


def solicitation(frame: bytes) -> bool:
    """Whether the kernel sent this by itself, at a time of its own: ICMPv6 but for echoes, MLD."""
    return frame[12:14] == b"\x86\xdd" and (frame[20] in (0, 58) and b"kInD" not in frame)


def exact(
    result: Result, site: str, wanted: Callable[[Seen], bool]
) -> tuple[Counter[tuple[str, str, bytes]], Counter[tuple[str, str, bytes]]]:
    """What kcap captured and what the sockets saw, with namespace and device."""
    ours = Counter(
        (result.namespaces[one.interface.netns], one.interface.name, one.data)
        for one in result.at(site)
        if one.interface.netns in result.namespaces and not solicitation(one.data)
    )
    theirs = Counter(
        (one.namespace, one.device, one.frame[:LIMIT])
        for one in result.seen
        if wanted(one) and not solicitation(one.frame)
    )
    return ours, theirs


def test_what_devices_receive_is_what_packet_sockets_see(result: Result) -> None:
    # A VLAN device is given its packets by the one below it, behind the tracepoint.
    ours, theirs = exact(
        result, "received",
        lambda one: not one.outgoing and one.device not in world.VLAN_DEVICES,
    )  # fmt: skip
    assert show(ours - theirs) == []
    assert show(theirs - ours) == []


def test_what_devices_send_is_what_packet_sockets_see(result: Result) -> None:
    ours, theirs = exact(result, "sent", lambda one: one.outgoing)
    assert show(ours - theirs) == []
    assert show(theirs - ours) == []


def show(frames_: Counter[tuple[str, str, bytes]]) -> list[str]:
    """Frames in short, for a message that can be read."""
    return [
        f"{count} x {namespace} {device} {len(data)} bytes: {data[:80].hex()} {kind_of(data)}"
        for (namespace, device, data), count in list(frames_.items())[:10]
    ]


def network_part(frame: bytes) -> bytes:
    """EtherType and what follows, tags left out."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    return frame[at:]


def forwarded(packet: bytes) -> bytes:
    """An IPv4 packet (with its EtherType) one hop further."""
    head = bytearray(packet[2:22])
    head[8] -= 1
    head[10:12] = b"\0\0"
    head[10:12] = struct.pack("!H", frames.checksum(bytes(head)))
    return packet[:2] + bytes(head) + packet[22:]


def reassembled(seen: list[Seen]) -> set[bytes]:
    """The IPv4 datagrams that were sent in fragments, with the Ethernet header of the first."""
    parts: dict[bytes, dict[int, bytes]] = {}
    for one in seen:
        packet = network_part(one.frame)
        offset = struct.unpack_from("!H", packet, 8)[0]
        if packet[:2] == b"\x08\x00" and offset & 0x3FFF:
            key = packet[6:8] + packet[11:12] + packet[14:22]
            parts.setdefault(key, {})[(offset & 0x1FFF) * 8] = one.frame
    whole = set()
    for found in parts.values():
        first = found[0]
        start = len(first) - len(network_part(first)) + 2
        data = b"".join(found[at][start + 20 :] for at in sorted(found))
        head = bytearray(first[start : start + 20])
        head[2:4], head[6:8], head[10:12] = struct.pack("!H", 20 + len(data)), b"\0\0", b"\0\0"
        head[10:12] = struct.pack("!H", frames.checksum(bytes(head)))
        whole.add(first[:start] + bytes(head) + data)
    return whole


def part_of_stream(frame: bytes, starts: dict[tuple[bytes, bytes], int]) -> bool:
    """Whether a TCP segment has the bytes of the stream that belong at its place.

    :param starts: sequence number of a connection's first byte, by addresses and ports.
    """
    packet = network_part(frame)
    if packet[:2] != b"\x08\x00" or packet[11] != 6:
        return False
    transport = packet[22:]
    start = starts.get((packet[14:22], transport[:4]))
    if start is None:
        return False
    total = struct.unpack_from("!H", packet, 4)[0]
    assert total in (len(packet) - 2, 0) or len(frame) == LIMIT
    at = (struct.unpack_from("!I", transport, 4)[0] - start) & 0xFFFFFFFF
    data = transport[transport[12] >> 4 << 2 :]
    return STREAM[at : at + len(data)] == data and len(data) > 0


@pytest.mark.parametrize("site", PROBES)
def test_every_packet_at_a_function_is_one_that_passed(result: Result, site: str) -> None:
    known = {one.frame[:LIMIT] for one in result.seen} | reassembled(result.seen)
    parts = {network_part(frame) for frame in known}
    parts |= {forwarded(part) for part in parts if part[:2] == b"\x08\x00"}
    starts = {
        (part[14:22], part[22:26]): struct.unpack_from("!I", part, 26)[0] + 1
        for part in parts
        if part[:2] == b"\x08\x00" and part[11] == 6 and part[35] & 0x3F == 2  # SYN
    }
    strange = []
    for one in result.at(site):
        frame = one.data
        if one.interface.netns not in result.namespaces or solicitation(frame):
            continue
        if frame in known or part_of_stream(frame, starts):
            continue
        made = frame[:12] == bytes(12)
        if (made or site in ("queue", "output")) and network_part(frame) in parts:
            continue
        strange.append(f"{one.interface.name} {len(frame)}: {frame[:100].hex()} {kind_of(frame)}")
    assert strange == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_captured_wherever_it_passes(result: Result, kernel: str, kind: str) -> None:
    sites = {site for site in PROBES for one in result.at(site) if kind_of(one.data) == kind}
    wanted = set(KINDS[kind].split())
    if number(kernel) < (5, 13):  # before, veth has NAPI only where there is an XDP program
        wanted.discard("gro")
    assert wanted - sites == set()


def test_super_packets_keep_their_length(result: Result) -> None:
    large = [one for one in result.at("sent") if one.length > 9014 + 4]
    assert large, "TSO made none"
    assert all(len(one.data) == min(one.length, LIMIT) for one in large)
    joined = [one for one in result.at("received") if one.interface.name == "b0"]
    assert max(one.length for one in joined) > 9014


def test_all_packets_are_whole_but_for_the_limit_of_a_record(result: Result) -> None:
    cut = [one for one in result.captured if one.length != len(one.data)]
    assert {len(one.data) for one in cut} <= {LIMIT}


def test_tshark_finds_nothing_malformed(result: Result, for_tshark: Callable[[Path], None]) -> None:
    for_tshark(result.path)
