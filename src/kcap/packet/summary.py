# SPDX-License-Identifier: Apache-2.0
"""A packet in a few words, as tcpdump would say it: Ethernet, VLAN, ARP, IP, TCP, UDP, ICMP.

Nothing here trusts the packet: whatever is cut off or does not add up is said as far as it goes.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Final

from kcap.packet import linktype

_ETH_P_ARP: Final = 0x0806
_TCP, _UDP, _ICMP, _ICMPV6, _SCTP = 6, 17, 1, 58, 132
_NAMES: Final = {2: "IGMP", 4: "IPIP", 41: "IPv6", 47: "GRE", 50: "ESP", 51: "AH", 89: "OSPF",
                 103: "PIM", 112: "VRRP", _SCTP: "SCTP"}  # fmt: skip
_FLAGS: Final = ((0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x20, "U"), (0x40, "E"),
                 (0x80, "W"), (0x10, "."))  # fmt: skip
_ICMP_TYPES: Final = {0: "echo reply", 3: "unreachable", 4: "source quench", 5: "redirect",
                      8: "echo request", 11: "time exceeded", 12: "parameter problem"}  # fmt: skip
_ICMPV6_TYPES: Final = {1: "unreachable", 2: "packet too big", 3: "time exceeded",
                        4: "parameter problem", 128: "echo request", 129: "echo reply",
                        130: "listener query", 131: "listener report",
                        133: "router solicitation", 134: "router advertisement",
                        135: "neighbor solicitation", 136: "neighbor advertisement",
                        143: "listener report v2"}  # fmt: skip
#: IPv6 extension headers whose second byte is their length in 8 bytes (RFC 8200): hop-by-hop,
#: routing, destination options.
_EXTENSIONS: Final = frozenset({0, 43, 60})
_FRAGMENT: Final = 44


def clock(time_ns: int) -> str:
    """A time of day with microseconds, in the local time zone."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    whole = time.strftime("%H:%M:%S", time.localtime(seconds))
    return f"{whole}.{nanoseconds // 1000:06}"


def summarise(link_type: int, data: bytes, original_length: int) -> str:
    """A packet in a few words.

    :param link_type: what the bytes start with (``packet.linktype``).
    :param data: the captured bytes.
    :param original_length: how many there were.
    """
    if link_type == linktype.RAW:
        return _ip(data, original_length)
    if link_type != linktype.ETHERNET or len(data) < 14:
        return f"{original_length} bytes"
    at, tags = 12, ""
    ethertype = _u16(data, at)
    while ethertype in linktype.VLAN_TYPES and len(data) >= at + 6:
        tags += f"vlan {_u16(data, at + 2) & 0xFFF} "
        at += 4
        ethertype = _u16(data, at)
    rest, length = data[at + 2 :], original_length - at - 2
    if ethertype in (linktype.ETH_P_IP, linktype.ETH_P_IPV6):
        return tags + _ip(rest, length)
    if ethertype == _ETH_P_ARP:
        return tags + _arp(rest)
    if ethertype == linktype.ETH_P_EXPERIMENTAL and data[:12] == bytes(12):
        return f"{length} bytes, no header is known"
    if ethertype < 0x600:
        return f"{tags}802.3, length {length}"
    return f"{tags}ethertype {ethertype:#06x}, length {length}"


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2])


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4])


def _arp(data: bytes) -> str:
    if len(data) < 28 or data[4:6] != b"\x06\x04":
        return "ARP"
    sender, target = ipaddress.IPv4Address(data[14:18]), ipaddress.IPv4Address(data[24:28])
    if _u16(data, 6) == 1:
        return f"ARP who-has {target} tell {sender}"
    return f"ARP reply {sender} is-at {data[8:14].hex(':')}"


def _ip(data: bytes, length: int) -> str:
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        return _ipv4(data)
    if version == 6 and len(data) >= 40:
        return _ipv6(data, length)
    return f"IP, length {length}"


def _ipv4(data: bytes) -> str:
    header = (data[0] & 15) * 4
    source, target = ipaddress.IPv4Address(data[12:16]), ipaddress.IPv4Address(data[16:20])
    offset = (_u16(data, 6) & 0x1FFF) * 8
    size = _u16(data, 2) - header
    if offset:
        return f"IP {source} > {target}: fragment at {offset}, length {max(size, 0)}"
    return _transport("IP", str(source), str(target), data[9], data[header:], size)


def _ipv6(data: bytes, length: int) -> str:
    source, target = ipaddress.IPv6Address(data[8:24]), ipaddress.IPv6Address(data[24:40])
    following, at = data[6], 40
    size = _u16(data, 4) or length - 40  # 0: a super-packet (RFC 2675)
    while following in _EXTENSIONS and len(data) >= at + 2:
        following, step = data[at], (data[at + 1] + 1) * 8
        at, size = at + step, size - step
    if following == _FRAGMENT and len(data) >= at + 8:
        offset = _u16(data, at + 2) & 0xFFF8
        following, at, size = data[at], at + 8, size - 8
        if offset:
            return f"IP6 {source} > {target}: fragment at {offset}, length {max(size, 0)}"
    return _transport("IP6", str(source), str(target), following, data[at:], size)


def _transport(name: str, source: str, target: str, protocol: int, data: bytes, size: int) -> str:
    """What follows the network header.

    :param size: its length, bytes, by the header.
    """
    size = max(size, 0)
    between = f"{name} {source} > {target}"
    if protocol in (_TCP, _UDP, _SCTP) and len(data) >= 4:
        between = f"{name} {source}.{_u16(data, 0)} > {target}.{_u16(data, 2)}"
    if protocol == _TCP and len(data) >= 16:
        return f"{between}: {_tcp(data, size)}"
    if protocol == _UDP:
        return f"{between}: UDP, length {max(size - 8, 0)}"
    if protocol in (_ICMP, _ICMPV6) and data:
        return f"{between}: {_icmp(protocol, data)}, length {size}"
    return f"{between}: {_NAMES.get(protocol, f'protocol {protocol}')}, length {size}"


def _tcp(data: bytes, size: int) -> str:
    flags = "".join(letter for bit, letter in _FLAGS if data[13] & bit) or "none"
    payload = max(size - (data[12] >> 4) * 4, 0)
    sequence = _u32(data, 4)
    said = f"Flags [{flags}], seq {sequence}"
    if payload:
        said += f":{(sequence + payload) & 0xFFFFFFFF}"
    if data[13] & 0x10:
        said += f", ack {_u32(data, 8)}"
    return f"{said}, win {_u16(data, 14)}, length {payload}"


def _icmp(protocol: int, data: bytes) -> str:
    name, types = ("ICMP", _ICMP_TYPES) if protocol == _ICMP else ("ICMP6", _ICMPV6_TYPES)
    said = f"{name} {types.get(data[0], f'type {data[0]}')}"
    if data[0] in ((0, 8) if protocol == _ICMP else (128, 129)) and len(data) >= 8:
        said += f", id {_u16(data, 4)}, seq {_u16(data, 6)}"
    return said
