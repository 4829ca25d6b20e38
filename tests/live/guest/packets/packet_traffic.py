# SPDX-License-Identifier: Apache-2.0
"""Known packets of every kind, each with a marker and a number of its own in its payload.

What is sent is exact: frames go out through packet(7) or through a tap device's descriptor. Only
what the guest's kernel makes itself (echo replies) has to be taken from a packet socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from typing import NamedTuple

from support import PATIENCE, frames
from support.net import VLAN, End, Network
from support.taps import PACKET_VNET_HDR, SOL_PACKET

MARKER = b"kCaP"
_PATTERN = bytes(range(256)) * 260

#: Sizes of frames, headers included: the least for ICMP with a marker and the most for the MTU.
SIZES = (60, 61, 98, 590, 1514, 4001, 9014)
MTU = 9000
#: The most that one record of the perf ring takes of a frame (docs/architecture.md).
LIMIT = 65364


def payload(number: int, size: int) -> bytes:
    """Return a payload that says which packet it belongs to, and differs from all others."""
    return (MARKER + struct.pack("!I", number) + _PATTERN[number % 256 :])[:size]


def number_of(data: bytes) -> int | None:
    """Return which packet this is, or None if it is none of ours."""
    at = data.find(MARKER)
    return struct.unpack_from("!I", data, at + 4)[0] if at >= 0 else None


class Packet(NamedTuple):
    """One packet that is sent.

    :ivar kind: what it is.
    :ivar frame: as it is handed to the interface.
    :ivar vlan: handed to the VLAN interface, so that the kernel adds the tag.
    """

    kind: str
    frame: bytes
    vlan: bool = False

    @property
    def wire(self) -> bytes:
        """The frame on the veth device, with its tag."""
        return tag(self.frame) if self.vlan else self.frame

    @property
    def untagged(self) -> bytes:
        """The frame once the VLAN interface has received it."""
        tagged = self.frame[12:14] == b"\x81\x00"
        return self.frame[:12] + self.frame[16:] if tagged else self.frame

    @property
    def protocol(self) -> int:
        """The EtherType behind any tag."""
        return int.from_bytes(self.untagged[12:14])


def tag(frame: bytes) -> bytes:
    """Return a frame with the tag that the VLAN interfaces use."""
    return frame[:12] + struct.pack("!HH", frames.ETH_P_8021Q, VLAN) + frame[12:]


def plain_packets(network: Network, first: int) -> list[Packet]:
    """Return packets of every kind and size for the way from a to b.

    :param first: number of the first one.
    """
    a, b = network.a, network.b
    numbers = iter(range(first, first + 1000))
    made: list[Packet] = []

    def ethernet(protocol: int, data: bytes) -> bytes:
        return frames.ethernet(b.mac, a.mac, protocol, data)

    def icmp(size: int, source: str, target: str) -> bytes:
        number = next(numbers)
        echo = frames.icmp_echo(payload(number, size), ident=7, sequence=number)
        return ethernet(frames.ETH_P_IP, frames.ipv4(source, target, frames.ICMP, echo))

    def icmp6(size: int, source: str, target: str) -> bytes:
        number = next(numbers)
        echo = frames.icmpv6_echo(source, target, payload(number, size), sequence=number)
        return ethernet(frames.ETH_P_IPV6, frames.ipv6(source, target, frames.ICMPV6, echo))

    def udp(size: int) -> bytes:
        data = frames.udp(a.ipv4, b.ipv4, (4000, 4001), payload(next(numbers), size))
        return ethernet(frames.ETH_P_IP, frames.ipv4(a.ipv4, b.ipv4, frames.UDP, data))

    def udp6(size: int) -> bytes:
        data = frames.udp(a.ipv6, b.ipv6, (4000, 4001), payload(next(numbers), size))
        return ethernet(frames.ETH_P_IPV6, frames.ipv6(a.ipv6, b.ipv6, frames.UDP, data))

    def tcp(size: int) -> bytes:
        number = next(numbers)
        # A flow of its own for each: GRO must not join them.
        ports = (5000 + number, 9)
        data = frames.tcp(a.ipv4, b.ipv4, ports, payload(number, size), flags=0x18)
        return ethernet(frames.ETH_P_IP, frames.ipv4(a.ipv4, b.ipv4, frames.TCP, data))

    def arp() -> bytes:
        # A reply that nobody asked for: nothing comes of it. The marker is in the padding.
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
        body += frames.mac(a.mac) + socket.inet_aton("10.77.0.77")
        body += frames.mac(b.mac) + socket.inet_aton("10.77.0.78")
        return ethernet(0x0806, body + payload(next(numbers), 18))

    made += [Packet("icmp", icmp(size - 42, a.ipv4, b.ipv4)) for size in SIZES]
    made += [Packet("udp", udp(size - 42)) for size in SIZES]
    made += [Packet("tcp", tcp(size - 54)) for size in (66, *SIZES[2:])]
    made += [Packet("icmpv6", icmp6(size - 62, a.ipv6, b.ipv6)) for size in (70, *SIZES[2:])]
    made += [Packet("udpv6", udp6(size - 62)) for size in (70, *SIZES[2:])]
    made += [Packet("arp", arp()), Packet("arp", arp())]
    for size in (60, 1514, 9014):
        made.append(Packet("icmp", icmp(size - 42, a.vlan_ipv4, b.vlan_ipv4), vlan=True))
        made.append(Packet("icmp", tag(icmp(size - 42, a.vlan_ipv4, b.vlan_ipv4))))
    made.append(Packet("icmpv6", icmp6(100, a.vlan_ipv6, b.vlan_ipv6), vlan=True))
    made.append(Packet("icmpv6", tag(icmp6(100, a.vlan_ipv6, b.vlan_ipv6))))
    return made


def super_packets(network: Network, first: int) -> list[tuple[int, bytes]]:
    """Return TCP frames that are larger than any MTU: (segment size, frame).

    Their checksum is left to whoever splits them, as it is in a packet that TCP itself makes.
    """
    a, b = network.a, network.b
    made = []
    for index, size in enumerate((9015, 20_001, 60_000, LIMIT, LIMIT + 1, 65_500)):
        number = first + index
        data = frames.tcp(
            a.ipv4, b.ipv4, (5000 + number, 9), payload(number, size - 54), flags=0x18
        )
        pseudo = frames.pseudo_header(a.ipv4, b.ipv4, frames.TCP, len(data))
        partial = ~frames.checksum(pseudo) & 0xFFFF
        data = data[:16] + struct.pack("!H", partial) + data[18:]
        packet = frames.ipv4(a.ipv4, b.ipv4, frames.TCP, data)
        made.append((1400, frames.ethernet(b.mac, a.mac, frames.ETH_P_IP, packet)))
    return made


def vnet_header(segment: int = 0, headers: int = 54) -> bytes:
    """Return a struct virtio_net_hdr: empty, or for TCP over IPv4 without options."""
    if not segment:
        return bytes(10)
    return struct.pack("=BBHHHH", 1, 1, headers, segment, 34, 16)


def send_super_packets(end: End, made: list[tuple[int, bytes]]) -> None:
    """Send frames with a segment size by packet(7)."""
    with end.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sender.setsockopt(socket.SOL_SOCKET, 32, 4 << 20)  # SO_SNDBUFFORCE
        sender.bind((end.device, 0))
        for segment, frame in made:
            sender.send(vnet_header(segment) + frame)


def send(network: Network, made: list[Packet]) -> None:
    """Send packets from a."""
    for packet in made:
        network.a.send(packet.frame, vlan=packet.vlan)


@contextlib.contextmanager
def listening(end: End, port: int) -> Iterator[None]:
    """Let UDP datagrams be received, so that no ICMP message quotes them."""
    with end.entered():
        four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with four, six:
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for one, address in ((four, end.ipv4), (six, end.ipv6)):
            one.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
            one.bind((address, port))
        yield


def set_mtu(network: Network, mtu: int) -> None:
    """Set the MTU of all devices."""
    for end in (network.a, network.b):
        with end.entered():
            for device in (end.device, end.vlan_device):
                subprocess.run(["ip", "link", "set", device, "mtu", str(mtu)], check=True)


def set_features(network: Network, *words: str) -> None:
    """Set offloads at both ends, as ethtool -K takes them."""
    for end in (network.a, network.b):
        with end.entered():
            subprocess.run(["ethtool", "-K", end.device, *words], check=True, capture_output=True)


class TapDevice:
    """A tap device with NAPI, whose descriptor takes and gives exact frames.

    What is written goes through napi_gro_receive() or its successor on every kernel, which a veth
    pair does from 5.13 on only. :param end: the namespace that it is in.
    """

    mac = "02:00:00:00:00:33"
    peer_mac = "02:00:00:00:00:44"
    ipv4, peer_ipv4 = "10.78.0.1", "10.78.0.2"
    name = "kcap-tap"

    def __init__(self, end: End) -> None:
        subprocess.run(["modprobe", "tun"], check=True)
        self.end = end
        with end.entered():
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            # IFF_TAP, IFF_NO_PI, IFF_NAPI and IFF_VNET_HDR; TUNSETIFF.
            flags = 0x0002 | 0x1000 | 0x0010 | 0x4000
            fcntl.ioctl(self.fd, 0x400454CA, struct.pack("16sH22x", self.name.encode(), flags))
            lines = [
                f"link set {self.name} address {self.mac} mtu {MTU} up",
                f"addr add {self.ipv4}/24 dev {self.name}",
                f"neigh replace {self.peer_ipv4} lladdr {self.peer_mac} dev {self.name}",
            ]
            subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
        self.given: list[bytes] = []

    def packets(self, first: int) -> list[bytes]:
        """Return echo requests of every size."""
        made = []
        for number, size in enumerate(SIZES, first):
            echo = frames.icmp_echo(payload(number, size - 42), ident=8, sequence=number)
            packet = frames.ipv4(self.peer_ipv4, self.ipv4, frames.ICMP, echo)
            made.append(frames.ethernet(self.mac, self.peer_mac, frames.ETH_P_IP, packet))
        return made

    def write(self, frame: bytes) -> None:
        """Let the interface receive a frame."""
        os.write(self.fd, vnet_header() + frame)

    def wait(self, count: int, seconds: float = PATIENCE) -> list[bytes]:
        """Return the marked frames that the interface sent, once there are ``count``."""
        deadline = time.monotonic() + seconds
        while len(self.given) < count:
            assert time.monotonic() < deadline, f"{len(self.given)} of {count} frames"
            select.select([self.fd], [], [], 0.1)
            with contextlib.suppress(BlockingIOError):
                frame = os.read(self.fd, 1 << 17)[10:]
                if number_of(frame) is not None:
                    self.given.append(frame)
        return self.given

    def close(self) -> None:
        """Remove the device."""
        os.close(self.fd)
