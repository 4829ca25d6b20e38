# SPDX-License-Identifier: Apache-2.0
"""Messages of ICMP, ICMPv6 and IGMP in a few words, as tcpdump would say them.

Nothing here trusts the packet: whatever is cut off or does not add up is said as far as it goes.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from kcap.packet.bigendian import u16

_TCP, _UDP = 6, 17
_PORTS: Final = {_TCP: "tcp", _UDP: "udp"}
_TYPES: Final = {0: "echo reply", 4: "source quench", 8: "echo request",
                 9: "router advertisement", 10: "router solicitation", 13: "time stamp query",
                 14: "time stamp reply"}  # fmt: skip
#: Codes of "unreachable" (RFC 792, 1122, 1812); {} is the address that could not be reached.
_UNREACHABLE: Final = {
    0: "net {} unreachable", 1: "host {} unreachable", 4: "{} unreachable - need to frag",
    5: "{} unreachable - source route failed", 6: "net {} unreachable - unknown",
    7: "host {} unreachable - unknown", 8: "{} unreachable - source host isolated",
    9: "net {} unreachable - admin prohibited", 10: "host {} unreachable - admin prohibited",
    11: "net {} unreachable - tos prohibited", 12: "host {} unreachable - tos prohibited",
    13: "host {} unreachable - admin prohibited filter",
    14: "host {} unreachable - host precedence violation",
    15: "host {} unreachable - precedence cutoff",
}  # fmt: skip
_EXCEEDED: Final = {0: "time exceeded in-transit", 1: "ip reassembly time exceeded"}
_REDIRECT: Final = {0: "redirect {} to net", 1: "redirect {} to host", 2: "redirect-tos {} to net",
                    3: "redirect-tos {} to host"}  # fmt: skip
_TYPES6: Final = {128: "echo request", 129: "echo reply", 130: "multicast listener query",
                  131: "multicast listener report", 132: "multicast listener done",
                  133: "router solicitation", 134: "router advertisement",
                  135: "neighbor solicitation", 136: "neighbor advertisement", 137: "redirect",
                  143: "multicast listener report v2"}  # fmt: skip
_UNREACHABLE6: Final = {0: "unreachable route {}", 1: "unreachable prohibited {}",
                        2: "beyond scope {}", 3: "unreachable address {}"}  # fmt: skip
_EXCEEDED6: Final = {0: "time exceeded in-transit for {}",
                     1: "time exceeded in-transit (reassembly)"}  # fmt: skip
_PROBLEM6: Final = {0: "erroneous", 1: "next header", 2: "option"}
_IGMP_TYPES: Final = {0x12: "v1 report", 0x16: "v2 report", 0x17: "leave"}
_IGMP_QUERY, _IGMP_V3_REPORT = 0x11, 0x22
#: The answers' longest delay in a query of version 2, tenths of a second, that need not be said.
_IGMP_USUAL_DELAY: Final = 100


def icmp(data: bytes) -> str:
    """An ICMP message (RFC 792); ``data`` has one byte at least."""
    kind, inner = data[0], data[8:]
    if len(data) < 8:
        return f"ICMP {_TYPES.get(kind, f'type {kind}')}"
    if kind == 3:
        return f"ICMP {_unreachable(data[1], inner, u16(data, 6))}"
    if kind == 5 and len(inner) >= 20:
        said = _REDIRECT.get(data[1], "redirect {} to").format(_ipv4(inner, 16))
        return f"ICMP {said} {_ipv4(data, 4)}"
    if kind == 11:
        return f"ICMP {_EXCEEDED.get(data[1], f'time exceeded-#{data[1]}')}"
    if kind == 12:
        return f"ICMP parameter problem - octet {data[4]}"
    if kind in (13, 14):
        return f"ICMP {_TYPES[kind]} id {u16(data, 4)} seq {u16(data, 6)}"
    said = f"ICMP {_TYPES.get(kind, f'type-#{kind}')}"
    return said + (_echo(data) if kind in (0, 8) else "")


def _unreachable(code: int, inner: bytes, mtu: int) -> str:
    """What could not be reached, by the packet that the message quotes."""
    if len(inner) < 20 or inner[0] >> 4 != 4:
        return "unreachable"
    target, header, protocol = _ipv4(inner, 16), (inner[0] & 15) * 4, inner[9]
    if code == 2:
        return f"{target} protocol {protocol} unreachable"
    if code == 3 and len(inner) >= header + 4:
        name = _PORTS.get(protocol, f"protocol {protocol}")
        return f"{target} {name} port {u16(inner, header + 2)} unreachable"
    said = _UNREACHABLE.get(code, f"{{}} unreachable - #{code}").format(target)
    return f"{said} (mtu {mtu})" if code == 4 and mtu else said


def icmp6(data: bytes) -> str:
    """An ICMPv6 message (RFC 4443, 4861, 2710, 3810); ``data`` has one byte at least."""
    kind, inner = data[0], data[8:]
    if len(data) < 8:
        return f"ICMP6, {_TYPES6.get(kind, f'type {kind}')}"
    if kind in (1, 2, 3, 4):
        return f"ICMP6, {_error6(kind, data[1], int.from_bytes(data[4:8]), inner)}"
    said = f"ICMP6, {_TYPES6.get(kind, f'type-#{kind}')}"
    if kind in (135, 136) and len(inner) >= 16:
        word = "who has" if kind == 135 else "tgt is"
        return f"{said}, {word} {_ipv6(inner, 0)}"
    if kind == 137 and len(inner) >= 32:
        return f"{said}, {_ipv6(inner, 16)} to {_ipv6(inner, 0)}"
    if kind in (130, 131, 132) and len(inner) >= 16:
        version = " v2" if kind == 130 and len(inner) >= 20 else ""  # RFC 3810, 8.1
        return f"{said}{version} max resp delay: {u16(data, 4)} addr: {_ipv6(inner, 0)}"
    if kind == 143:
        return f"{said}, {u16(data, 6)} group record(s)"
    return said + (_echo(data) if kind in (128, 129) else "")


def _error6(kind: int, code: int, number: int, inner: bytes) -> str:
    """An error about the packet that it quotes.

    :param number: what stands in the message's header: an MTU, a place.
    """
    target = _ipv6(inner, 24) if len(inner) >= 40 else ""
    if kind == 1:
        said = _UNREACHABLE6.get(code, f"unreachable code-#{code}").format(target)
        if code == 4:
            said = f"unreachable port, {target}{_port6(inner)}"
        return f"destination unreachable, {said}"
    if kind == 2:
        return f"packet too big, mtu {number}"
    if kind == 3:
        return _EXCEEDED6.get(code, f"time exceeded, unknown code {code}").format(target)
    return f"parameter problem, {_PROBLEM6.get(code, f'code-#{code}')} - octet {number}"


def _port6(inner: bytes) -> str:
    """The port that a quoted packet is for, if that stands behind its first header."""
    if len(inner) < 44 or inner[6] not in _PORTS:
        return ""
    return f" {_PORTS[inner[6]]} port {u16(inner, 42)}"


def igmp(data: bytes) -> str:
    """An IGMP message (RFC 1112, 2236, 3376); ``data`` has one byte at least."""
    kind = data[0]
    if len(data) < 8:
        return f"igmp {_IGMP_TYPES.get(kind, f'type {kind:#x}')}"
    if kind == _IGMP_V3_REPORT:
        return f"igmp v3 report, {u16(data, 6)} group record(s)"
    group = _ipv4(data, 4) if any(data[4:8]) else ""
    if kind == _IGMP_QUERY:
        version = 3 if len(data) >= 12 else 2 if data[1] else 1
        said = f"igmp query v{version}"
        if version == 2 and data[1] != _IGMP_USUAL_DELAY:
            said += f" [max resp time {data[1]}]"
        return f"{said} [gaddr {group}]" if group else said
    said = f"igmp {_IGMP_TYPES.get(kind, f'type {kind:#x}')}"
    return f"{said} {group}" if group else said


def _echo(data: bytes) -> str:
    return f", id {u16(data, 4)}, seq {u16(data, 6)}"


def _ipv4(data: bytes, at: int) -> str:
    return str(ipaddress.IPv4Address(data[at : at + 4]))


def _ipv6(data: bytes, at: int) -> str:
    return str(ipaddress.IPv6Address(data[at : at + 16]))
