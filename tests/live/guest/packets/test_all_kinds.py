# SPDX-License-Identifier: Apache-2.0
"""Every kind of packet, at eight functions and more between driver and socket, against packet(7).

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
from live.guest.packets import more_kinds as more
from live.guest.packets.packet_laws import IPV4, Stream, forwarded, network_part, reassembled
from support import pcapng
from support.introduced import number
from support.net import wait_until
from support.tracing import Running

PROBES = {
    "gro": ("fentry:napi_gro_receive", "fentry:gro_receive_skb"),
    "received": ("rawtracepoint:netif_receive_skb",),
    "arp": ("fentry:arp_rcv",),
    "ip_rcv": ("fentry:ip_rcv",),
    "ipv6_rcv": ("fentry:ipv6_rcv",),
    "local": ("fentry:ip_local_deliver",),
    "local6": ("fentry:ip6_input",),
    "udp": ("fentry:udp_rcv",),
    "udp6": ("fentry:udpv6_rcv",),
    "tcp": ("fentry:tcp_v4_rcv",),
    "socket": ("fentry:__udp_enqueue_schedule_skb",),
    "output": ("fentry:ip_output",),
    "output6": ("fentry:ip6_output",),
    "queue": ("fentry:__dev_queue_xmit",),
    "sent": ("rawtracepoint:net_dev_start_xmit",),
}
#: Where an inner packet has only a tunnel's header in front of it, or no more; which argument the
#: packet is. In modules, which have no BTF on 5.10; the first has too many arguments for fentry.
TUNNELS = {"vxlan out": ("udp_tunnel_xmit_skb", "arg2"), "gre in": ("ip_tunnel_rcv", "arg1")}
#: The most that one record of the perf ring takes of a frame (docs/architecture.md).
LIMIT = 65364
STREAM = b"".join(struct.pack("!Q", number) for number in range(0, 300_000, 8))


class Kind(NamedTuple):
    """A kind of datagrams, which have its number in their payload.

    :ivar size: bytes of payload.
    :ivar sites: the functions that must have seen all of it.
    :ivar sign: what stands at an offset of its first frame on the link between a and b.
    """

    size: int
    sites: str
    sign: tuple[int, str] = (0, "")


# What NAPI hands on comes in lists, which ip_list_rcv() takes, not ip_rcv().
UDP4 = "output queue sent gro received local udp socket"
UDP6 = "output6 queue sent gro received local6 udp6 socket"
_IN = "ip_rcv local udp socket"
KINDS = {
    "plain": Kind(60, UDP4, (12, "0800 45")),
    "ipv6": Kind(1400, UDP6, (20, "11")),
    "jumbo": Kind(8900, UDP4, (16, "22e0")),
    "fragments": Kind(20_001, UDP4, (20, "2000")),
    "ipv6 fragments": Kind(20_003, UDP6, (20, "2c")),
    "hop-by-hop": Kind(60, UDP6, (20, "00")),
    "destination options": Kind(999, UDP6, (20, "3c")),
    "vlan": Kind(1400, UDP4, (12, "8100 0005 0800")),
    "vlan in vlan": Kind(61, UDP4, (12, "88a8 0006 8100 0007 0800")),
    "vxlan": Kind(1001, UDP4, (42, "08000000 00002a00")),
    "gre": Kind(1002, UDP4, (34, "0000 0800")),
    "bridge": Kind(200, UDP4),
    "nat": Kind(201, UDP4, (26, "0a5a 0002")),
    "loopback": Kind(16_001, f"output queue sent received {_IN}"),
    "ipv6 loopback": Kind(16_003, "output6 queue sent received ipv6_rcv local6 udp6 socket"),
    "tun": Kind(333, f"received {_IN} output queue sent"),
    "geneve": Kind(101, UDP4, (42, "00006558 00003700")),
    "ip in ip": Kind(105, UDP4, (23, "04")),
    # Nothing of IPv4 sends it; who takes the label off hands it to the loopback device.
    "mpls": Kind(102, f"queue sent received {_IN}", (12, "8847 0006 61")),
    # Sent encrypted.
    "esp": Kind(103, "local udp socket"),
}
#: Kinds on links of ``more_kinds``, by their network.
MORE = {
    "geneve": more.GENEVE, "ip in ip": more.IPIP, "mpls": more.MPLS, "esp": more.ESP,
}  # fmt: skip
#: Streams by their port: one that GRO joins from what TCP has been split into, one of TSO's
#: super-packets, which pass the link as they are.
JOINED, LARGE = 5555, 5556
LINK = ("a0", "b0")
MTU = 9000 + 14
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


def mark(kind: str) -> bytes:
    """A payload that tells its kind."""
    number = list(KINDS).index(kind)
    return (struct.pack("!4sI", b"kInD", number) + bytes(range(256)) * 100)[: KINDS[kind].size]


def kind_of(data: bytes) -> str:
    """The kind of a packet, or ''."""
    at = data.find(b"kInD")
    return list(KINDS)[struct.unpack_from("!I", data, at + 4)[0]] if at >= 0 else ""


def script(path: Path, system: System) -> tuple[str, dict[str, str]]:
    """The script, and the function of each site on this kernel."""
    functions = system.functions
    assert functions is not None
    sites, probes = {}, []
    for site, choices in PROBES.items():
        probe = next(
            one for one in choices if one.startswith("raw") or one.partition(":")[2] in functions
        )
        sites[site] = probe.rpartition(":")[2]
        probes.append(f'{probe} {{ skboutput("{path}", args.skb, 65535, 0); }}')
    for site, (function, argument) in TUNNELS.items():
        sites[site] = function
        skb = f"(struct sk_buff *){argument}"
        probes.append(f'kprobe:{function} {{ skboutput_linear("{path}", {skb}, 65535, 0); }}')
    return "config = { perf_rb_pages = 8192; }\n" + "\n".join(probes), sites


def traffic(tun: world.TunDevice) -> None:
    """One exchange of every kind."""
    ends = {
        "vlan": world.TAGGED, "vlan in vlan": world.STACKED, "vxlan": world.VXLAN, "gre": world.GRE,
    }  # fmt: skip
    padding = struct.pack("!BBBBI", 0, 0, 1, 4, 0)  # one PadN option fills the header
    options = {"hop-by-hop": {HOP_BY_HOP: padding}, "destination options": {DESTINATION: padding}}
    for kind, (_, sites, _) in KINDS.items():
        if sites in (UDP4, UDP6) and kind not in ("bridge", "nat", *MORE):
            address = "fd90::2" if sites == UDP6 else f"10.{ends.get(kind, world.PLAIN)}.0.2"
            world.datagram("w-a", "w-b", address, mark(kind), options.get(kind))
    world.datagram("w-c", "w-d", f"10.{world.BRIDGE}.0.4", mark("bridge"))
    world.datagram("w-c", "w-a", f"10.{world.PLAIN}.0.1", mark("nat"))
    world.datagram("w-a", "w-a", "127.0.0.1", mark("loopback"))
    world.datagram("w-a", "w-a", "::1", mark("ipv6 loopback"))
    tun.echo(mark("tun"))
    for kind, net in MORE.items():
        world.datagram("w-a", "w-b", f"10.{net}.0.2", mark(kind))
    world.stream(STREAM, JOINED)
    world.offloads(LINK, "tso", "on")
    world.stream(STREAM, LARGE)


@pytest.fixture(scope="module")
def result(kernel: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    path = tmp_path_factory.mktemp("kinds") / "all.pcapng"
    world.set_up()
    more.set_up()
    # Without TSO packets pass a veth pair by NAPI, and so GRO.
    world.offloads(
        world.VETH, "gro", "on", "tso", "off", "tx-tcp-mangleid-segmentation", "off",
        "tx-tcp-ecn-segmentation", "off", "tx-tcp6-segmentation", "off",
    )  # fmt: skip
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
        counts = [0]

        def settled() -> bool:
            """Whether nothing has come for half a second: acknowledgements may be delayed."""
            between.extend(seen for tap in taps for seen in tap.read())
            counts.append(len(between))
            return counts[-25:] == counts[-1:] * 25

        wait_until(settled)
        running.stop()
    seen = between
    for tap in taps:
        tap.socket.close()
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


class Passed(NamedTuple):
    """What packets there were.

    :ivar known: frames that sockets saw, and whole packets of fragments.
    :ivar parts: the same from the EtherType on, also one hop further.
    :ivar stream: the TCP connections.
    """

    known: set[bytes]
    parts: set[bytes]
    stream: Stream


@pytest.fixture(scope="module")
def passed(result: Result) -> Passed:
    seen = {one.frame[:LIMIT] for one in result.seen}
    known = seen | reassembled(seen)
    parts = {network_part(frame) for frame in known}
    parts |= {forwarded(part) for part in parts if part[:2] == IPV4}
    return Passed(known, parts, Stream(STREAM, parts))


@pytest.fixture(scope="module")
def stream(passed: Passed) -> Stream:
    return passed.stream


@pytest.mark.parametrize("site", PROBES)
def test_every_packet_at_a_function_is_one_that_passed(
    result: Result, passed: Passed, site: str
) -> None:
    strange = []
    for one in result.at(site):
        frame = one.data
        if one.interface.netns not in result.namespaces or solicitation(frame):
            continue
        if frame in passed.known or passed.stream.segment(frame, one.length):
            continue
        made = frame[:12] == bytes(12)
        if (made or site in ("queue", "output", "output6")) and (
            network_part(frame) in passed.parts
        ):
            continue
        strange.append(f"{one.interface.name} {len(frame)}: {frame[:100].hex()} {kind_of(frame)}")
    assert strange == []


@pytest.mark.parametrize(("site", "kind"), [("vxlan out", "vxlan"), ("gre in", "gre")])
def test_an_inner_packet_is_told_from_its_tunnels_header(
    result: Result, passed: Passed, site: str, kind: str
) -> None:
    # (other tunnels' packets pass there, too)
    found = [one.data for one in result.at(site) if kind_of(one.data) in (kind, "")]
    assert kind in {kind_of(data) for data in found}
    assert {data[:12] for data in found} == {bytes(12)}
    assert {network_part(data) for data in found} <= passed.parts


def by_napi(kernel: str) -> bool:
    """Whether packets pass veth by NAPI: up to 5.12 only where there is an XDP program."""
    return number(kernel) >= (5, 13)


def wanted(kernel: str, sites: str) -> set[str]:
    """The functions among some that see packets on a kernel."""
    return set(sites.split()) - (set() if by_napi(kernel) else {"gro"})


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_kind_is_captured_wherever_it_passes(
    result: Result, kernel: str, kind: str
) -> None:
    payload, sites = mark(kind), set()
    for site in PROBES:
        found = [one.data for one in result.at(site)]
        if any(payload in data for data in (*found, *reassembled(found))):
            sites.add(site)
    assert wanted(kernel, KINDS[kind].sites) - sites == set()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].sign[1]])
def test_headers_and_tags_of_a_kind_are_in_its_frames(
    result: Result, kernel: str, kind: str
) -> None:
    at, sign = KINDS[kind].sign
    header = bytes.fromhex(sign)
    for site in wanted(kernel, "queue sent gro received"):
        found = [
            one.data for one in result.at(site)
            if kind_of(one.data) == kind and one.interface.name in LINK
        ]  # fmt: skip
        assert header in [data[at : at + len(header)] for data in found], site


@pytest.mark.parametrize(("operation", "name"), [(1, "request"), (2, "reply")])
def test_arp_is_captured_wherever_it_passes(
    result: Result, kernel: str, operation: int, name: str
) -> None:
    arp = struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, operation)
    sites = {
        site for site in PROBES for one in result.at(site) if network_part(one.data)[:10] == arp
    }
    assert sites == wanted(kernel, "queue sent gro received arp"), name


def devices(result: Result, site: str, kind: str) -> list[tuple[str, str]]:
    """The namespaces and devices at which a function saw a kind, in the order of time."""
    return [
        (result.namespaces[one.interface.netns], one.interface.name)
        for one in sorted(result.at(site), key=lambda one: one.time_ns)
        if kind_of(one.data) == kind
    ]


def test_a_packet_crosses_from_one_namespace_to_the_other_and_back(result: Result) -> None:
    a, b = ("w-a", "a0"), ("w-b", "b0")
    assert devices(result, "sent", "plain") == [a, b]
    assert devices(result, "received", "plain") == [b, a]
    (sent, _), (received, _) = (
        [one.data for one in result.at(site) if kind_of(one.data) == "plain"]
        for site in ("sent", "received")
    )
    assert sent == received


def test_a_bridge_hands_packets_from_port_to_port(result: Result) -> None:
    c, d, b1, b2 = ("w-c", "c0"), ("w-d", "d0"), ("w-b", "b1"), ("w-b", "b2")
    assert devices(result, "sent", "bridge") == [c, b2, d, b1]
    assert devices(result, "received", "bridge") == [b1, d, b2, c]


def test_nat_is_seen_between_the_two_sides(result: Result) -> None:
    inside, outside, peer = (
        socket.inet_aton(f"10.{net}.0.{end}")
        for net, end in ((world.BRIDGE, 3), (world.PLAIN, 2), (world.PLAIN, 1))
    )
    for site, device, addresses in (
        ("received", "b1", inside + peer), ("sent", "b0", outside + peer),
        ("received", "b0", peer + outside), ("sent", "b1", peer + inside),
    ):  # fmt: skip
        found = {
            network_part(one.data)[14:22] for one in result.at(site)
            if one.interface.name == device and kind_of(one.data) == "nat"
        }  # fmt: skip
        assert found == {addresses}, (site, device)


def test_esp_is_encrypted_between_the_ends_alone(result: Result) -> None:
    payload, seen = mark("esp"), {}
    for site in ("queue", "sent", "received", "local"):
        frames = [network_part(one.data) for one in result.at(site) if one.interface.name in LINK]
        numbers = {frame[22:26] for frame in frames if frame[:2] == IPV4 and frame[11] == 50}
        plain = any(payload in frame for frame in frames)
        seen[site] = ({int.from_bytes(each) for each in numbers}, plain)
    both = {more.SPI + 1, more.SPI + 2}
    # What is decrypted enters the stack once more, as received on the same device.
    assert seen == {
        "queue": (both, False), "sent": (both, False), "received": (both, True),
        "local": (both, True),
    }  # fmt: skip


def lengths(result: Result, stream: Stream, port: int, site: str) -> dict[range, int]:
    """The lengths of a stream's frames at a function, by the bytes that they carry."""
    found = {}
    for one in result.at(site):
        segment = stream.segment(one.data, one.length)
        if segment is not None and segment[0] == port:
            assert len(one.data) == min(one.length, LIMIT)
            found[segment[1]] = one.length
    return found


@pytest.mark.parametrize(
    ("port", "site"),
    [
        *((JOINED, site) for site in ("output", "queue", "sent", "received", "local", "tcp")),
        *((LARGE, site) for site in ("output", "queue", "sent", "received", "local", "tcp")),
        (LARGE, "ip_rcv"),
    ],
)
def test_a_stream_is_whole_at_each_function(
    result: Result, stream: Stream, site: str, port: int
) -> None:
    end = 0
    for part in sorted(lengths(result, stream, port, site), key=lambda part: part.start):
        assert part.start <= end, f"{part.start - end} bytes are missing at {end}"
        end = max(end, part.stop)
    assert end == len(STREAM)


def test_super_packets_of_tso_pass_the_link_with_their_length(
    result: Result, stream: Stream
) -> None:
    for site in ("queue", "sent", "received", "ip_rcv", "tcp"):
        assert max(lengths(result, stream, LARGE, site).values()) > MTU


def test_packets_joined_by_gro_keep_their_length(
    result: Result, stream: Stream, kernel: str
) -> None:
    assert max(lengths(result, stream, JOINED, "sent").values()) <= MTU
    if by_napi(kernel):
        assert max(lengths(result, stream, JOINED, "gro").values()) <= MTU
        assert max(lengths(result, stream, JOINED, "received").values()) > MTU


def test_all_packets_are_whole_but_for_the_limit_of_a_record(result: Result) -> None:
    cut = [one for one in result.captured if one.length != len(one.data)]
    assert {len(one.data) for one in cut} <= {LIMIT}


def test_tshark_finds_nothing_malformed(result: Result, for_tshark: Callable[[Path], None]) -> None:
    for_tshark(result.path)
