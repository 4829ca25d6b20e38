# SPDX-License-Identifier: Apache-2.0
"""Packets built byte by byte, so that a test knows exactly what it sent.

Written out rather than taken from a packet library: importing one takes an emulated guest ten
seconds, and these few headers are all that is needed.
"""

from __future__ import annotations

import ipaddress
import struct

ETH_P_IP, ETH_P_IPV6, ETH_P_8021Q = 0x0800, 0x86DD, 0x8100
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~int(total) & 0xFFFF


def mac(text: str) -> bytes:
    """Return the six bytes of ``02:00:…``."""
    return bytes.fromhex(text.replace(":", ""))


def ethernet(destination: str, source: str, protocol: int, payload: bytes) -> bytes:
    """Return an Ethernet II frame, without padding."""
    return mac(destination) + mac(source) + struct.pack("!H", protocol) + payload


def vlan(identifier: int, protocol: int, payload: bytes, *, priority: int = 0) -> bytes:
    """Return what follows ETH_P_8021Q in a tagged frame (IEEE 802.1Q)."""
    return struct.pack("!HH", priority << 13 | identifier, protocol) + payload


def ipv4(
    source: str, destination: str, protocol: int, payload: bytes, *, ident: int = 1, ttl: int = 64
) -> bytes:
    """Return an IPv4 packet without options (RFC 791)."""
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    first = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), ident, 0x4000, ttl, protocol)
    total = checksum(first + b"\0\0" + addresses)
    return first + struct.pack("!H", total) + addresses + payload


def ipv6(source: str, destination: str, protocol: int, payload: bytes, *, hops: int = 64) -> bytes:
    """Return an IPv6 packet without extension headers (RFC 8200)."""
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops)
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    return head + addresses + payload


def pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    """Return what TCP, UDP and ICMPv6 count into their checksum besides themselves."""
    one, other = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if one.version == 4:
        return one.packed + other.packed + struct.pack("!BBH", 0, protocol, length)
    return one.packed + other.packed + struct.pack("!IxxxB", length, protocol)


def udp(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """Return a UDP datagram (RFC 768); the addresses are for the checksum only."""
    length = 8 + len(payload)
    head = struct.pack("!HHH", *ports, length)
    pseudo = pseudo_header(source, destination, UDP, length)
    total = checksum(pseudo + head + b"\0\0" + payload)
    return head + struct.pack("!H", total or 0xFFFF) + payload


def tcp(
    source: str,
    destination: str,
    ports: tuple[int, int],
    payload: bytes = b"",
    *,
    flags: int = 0x10,
    sequence: int = 1,
    acknowledgement: int = 1,
) -> bytes:
    """Return a TCP segment without options (RFC 9293)."""
    first = struct.pack("!HHIIBBH", *ports, sequence, acknowledgement, 0x50, flags, 0xFFFF)
    pseudo = pseudo_header(source, destination, TCP, 20 + len(payload))
    total = checksum(pseudo + first + b"\0\0\0\0" + payload)
    return first + struct.pack("!HH", total, 0) + payload


def icmp_echo(payload: bytes, *, ident: int = 1, sequence: int = 1, reply: bool = False) -> bytes:
    """Return an ICMP echo request or reply (RFC 792)."""
    head = struct.pack("!BB", 0 if reply else 8, 0)
    rest = struct.pack("!HH", ident, sequence) + payload
    return head + struct.pack("!H", checksum(head + b"\0\0" + rest)) + rest


def icmpv6_echo(
    source: str, destination: str, payload: bytes, *, ident: int = 1, sequence: int = 1
) -> bytes:
    """Return an ICMPv6 echo request (RFC 4443)."""
    head = struct.pack("!BB", 128, 0)
    rest = struct.pack("!HH", ident, sequence) + payload
    pseudo = pseudo_header(source, destination, ICMPV6, 4 + len(rest))
    return head + struct.pack("!H", checksum(pseudo + head + b"\0\0" + rest)) + rest
