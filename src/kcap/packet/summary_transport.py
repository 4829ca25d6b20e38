# SPDX-License-Identifier: Apache-2.0
"""What follows a network header, in a few words: TCP, UDP with DNS and DHCP, ICMP, SCTP, ESP, …

Nothing here trusts the packet: whatever is cut off or does not add up is said as far as it goes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

_ICMP, _IGMP, _TCP, _UDP, _ESP, _AH, _ICMPV6, _SCTP = 1, 2, 6, 17, 50, 51, 58, 132
_NAMES: Final = {_IGMP: "IGMP", _ESP: "ESP", _AH: "AH", 89: "OSPF", 103: "PIM", 112: "VRRP",
                 _SCTP: "SCTP"}  # fmt: skip
_FLAGS: Final = ((0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x20, "U"), (0x40, "E"),
                 (0x80, "W"), (0x10, "."))  # fmt: skip
_TCP_OPTIONS: Final = {1: "nop", 2: "mss", 3: "wscale", 4: "sackOK", 5: "sack", 8: "TS", 19: "md5",
                       29: "tcp-ao", 30: "mptcp", 34: "tfo"}  # fmt: skip
_ICMP_TYPES: Final = {0: "echo reply", 3: "unreachable", 4: "source quench", 5: "redirect",
                      8: "echo request", 9: "router advertisement", 10: "router solicitation",
                      11: "time exceeded", 12: "parameter problem"}  # fmt: skip
_UNREACHABLE: Final = {0: "net unreachable", 1: "unreachable", 2: "protocol unreachable",
                       3: "port unreachable", 4: "unreachable - need to frag",
                       9: "unreachable - net prohibited", 10: "unreachable - host prohibited",
                       13: "unreachable - admin prohibited"}  # fmt: skip
_ICMPV6_TYPES: Final = {1: "unreachable", 2: "packet too big", 3: "time exceeded",
                        4: "parameter problem", 128: "echo request", 129: "echo reply",
                        130: "listener query", 131: "listener report", 132: "listener done",
                        133: "router solicitation", 134: "router advertisement",
                        135: "neighbor solicitation", 136: "neighbor advertisement",
                        137: "redirect", 143: "listener report v2"}  # fmt: skip
_UNREACHABLE6: Final = {0: "no route", 1: "prohibited", 3: "address", 4: "port"}
_IGMP_TYPES: Final = {0x11: "query", 0x12: "v1 report", 0x16: "v2 report", 0x17: "leave",
                      0x22: "v3 report"}  # fmt: skip
_IGMP_V3_REPORT: Final = 0x22
_SCTP_CHUNKS: Final = {0: "DATA", 1: "INIT", 2: "INIT ACK", 3: "SACK", 4: "HB REQ", 5: "HB ACK",
                       6: "ABORT", 7: "SHUTDOWN", 8: "SHUTDOWN ACK", 9: "OP ERR",
                       10: "COOKIE ECHO", 11: "COOKIE ACK", 14: "SHUTDOWN COMPLETE"}  # fmt: skip
_DNS_PORTS: Final = (53, 5353)
_DHCP_PORTS: Final = (67, 68)
_NTP_PORT: Final = 123
#: Bytes of an address in an answer of a type.
_ADDRESS_BYTES: Final = {1: 4, 28: 16}
_DNS_TYPES: Final = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT",
                     28: "AAAA", 33: "SRV", 64: "SVCB", 65: "HTTPS", 255: "ANY"}  # fmt: skip
_DNS_CODES: Final = {1: "FormErr", 2: "ServFail", 3: "NXDomain", 4: "NotImp", 5: "Refused"}
_MOST_LABELS: Final = 128


def transport(name: str, source: str, target: str, protocol: int, data: bytes, size: int) -> str:
    """What follows a network header, with its addresses.

    :param name: ``IP`` or ``IP6``.
    :param protocol: as the network header names it.
    :param size: the length of what follows, bytes, by the network header.
    """  # fmt: skip
    between = f"{name} {source} > {target}"
    if protocol in (_TCP, _UDP, _SCTP) and len(data) >= 4:
        between = f"{name} {source}.{_u16(data, 0)} > {target}.{_u16(data, 2)}"
    return f"{between}: {_said(protocol, data, size)}"


def _said(protocol: int, data: bytes, size: int) -> str:
    if protocol == _TCP and len(data) >= 16:
        return _tcp(data, size)
    if protocol == _UDP:
        return _udp(data, max(size - 8, 0))
    if protocol in (_ICMP, _ICMPV6) and data:
        said = _icmp(data) if protocol == _ICMP else _icmp6(data)
        return f"{said}, length {size}"
    if protocol in (_ESP, _AH) and len(data) >= 12:
        at = 0 if protocol == _ESP else 4
        spi = f"spi={_u32(data, at):#010x},seq={_u32(data, at + 4):#x}"
        return f"{_NAMES[protocol]}({spi}), length {size}"
    if protocol == _IGMP and data:
        return f"IGMP {_igmp(data)}, length {size}"
    if protocol == _SCTP:
        chunks = "".join(f" [{chunk}]" for chunk in _sctp_chunks(data))
        return f"SCTP{chunks}, length {size}"
    return f"{_NAMES.get(protocol, f'protocol {protocol}')}, length {size}"


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2])


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4])


def _tcp(data: bytes, size: int) -> str:
    flags = "".join(letter for bit, letter in _FLAGS if data[13] & bit) or "none"
    header = (data[12] >> 4) * 4
    payload = max(size - header, 0)
    sequence = _u32(data, 4)
    said = f"Flags [{flags}], seq {sequence}"
    if payload:
        said += f":{(sequence + payload) & 0xFFFFFFFF}"
    if data[13] & 0x10:
        said += f", ack {_u32(data, 8)}"
    said += f", win {_u16(data, 14)}"
    options = ",".join(_tcp_options(data[20:header]))
    return said + (f", options [{options}]" if options else "") + f", length {payload}"


def _tcp_options(data: bytes) -> Iterator[str]:
    """Each option (RFC 9293, 3.1), up to the first that does not add up."""
    at = 0
    while at < len(data) and data[at]:
        kind = data[at]
        if kind == 1:
            yield "nop"
            at += 1
            continue
        length = data[at + 1] if at + 1 < len(data) else 0
        value = data[at + 2 : at + length]
        if length < 2 or len(value) < length - 2:
            return
        yield _tcp_option(kind, value)
        at += length


def _tcp_option(kind: int, value: bytes) -> str:
    name = _TCP_OPTIONS.get(kind, f"opt-{kind}")
    if kind in (2, 3):
        return f"{name} {int.from_bytes(value)}"
    if kind == 8 and len(value) == 8:
        return f"TS val {_u32(value, 0)} ecr {_u32(value, 4)}"
    if kind == 5:
        blocks = [f"{{{_u32(value, n)}:{_u32(value, n + 4)}}}" for n in range(0, len(value), 8)]
        return f"sack {len(blocks)} {''.join(blocks)}"
    return name


def _udp(data: bytes, size: int) -> str:
    ports, payload = {_u16(data, 0), _u16(data, 2)}, data[8:]
    if ports.intersection(_DNS_PORTS) and len(payload) >= 12:
        return f"{_dns(payload)} ({size})"
    if ports.issuperset(_DHCP_PORTS) and payload:
        return f"BOOTP/DHCP, {'Request' if payload[0] == 1 else 'Reply'}, length {size}"
    if _NTP_PORT in ports and payload:
        return f"NTPv{payload[0] >> 3 & 7}, length {size}"
    return f"UDP, length {size}"


def _dns(data: bytes) -> str:
    """A DNS message (RFC 1035, 4.1): number, flags as tcpdump has them, question or answer."""
    number, flags, questions, answers, authorities, more = (_u16(data, n) for n in range(0, 12, 2))
    name, at = _dns_name(data, 12) if questions else ("", 12)
    asked = f"{_dns_type(_u16(data, at))}? {name}" if questions else ""
    if not flags & 0x8000:
        return f"{number}{'+' if flags & 0x100 else ''} {asked}".rstrip()
    code = flags & 15
    failed = f" {_DNS_CODES.get(code, f'code {code}')}" if code else ""
    authoritative = "*" if flags & 0x400 else ""
    counts = f"{answers}/{authorities}/{more}"
    first = _dns_answer(data, at + 4) if questions == 1 and answers else ""
    return f"{number}{authoritative}{failed} {counts} {asked}{first}".rstrip()


def _dns_answer(data: bytes, at: int) -> str:
    """The address in the first answer, or its type."""
    at = _dns_name(data, at)[1]
    kind, value = _u16(data, at), data[at + 10 : at + 10 + _u16(data, at + 8)]
    if len(value) == _ADDRESS_BYTES.get(kind):
        return f" {_dns_type(kind)} {ipaddress.ip_address(value)}"
    return f" {_dns_type(kind)}"


def _dns_type(number: int) -> str:
    return _DNS_TYPES.get(number, f"type{number}")


def _dns_name(data: bytes, at: int) -> tuple[str, int]:
    """A name, and where what follows begins; what a pointer stands for is left out."""
    labels: list[str] = []
    while at < len(data) and 0 < data[at] < 64 and len(labels) < _MOST_LABELS:
        label = data[at + 1 : at + 1 + data[at]]
        labels.append("".join(chr(c) if 32 < c < 127 else "?" for c in label))
        at += 1 + data[at]
    pointer = at < len(data) and data[at] >= 0xC0
    return ".".join([*labels, ""]) if labels else ".", at + 1 + pointer


def _icmp(data: bytes) -> str:
    kind, inner = data[0], data[8:]
    if kind == 3 and len(data) >= 2:
        return f"ICMP {_about(inner, _UNREACHABLE.get(data[1], f'unreachable, code {data[1]}'))}"
    said = f"ICMP {_ICMP_TYPES.get(kind, f'type {kind}')}"
    if kind == 5 and len(inner) >= 20:
        gateway, target = ipaddress.IPv4Address(data[4:8]), ipaddress.IPv4Address(inner[16:20])
        return f"{said} {target} to host {gateway}"
    return said + (_echo(data) if kind in (0, 8) else "")


def _about(inner: bytes, said: str) -> str:
    """What an error says of the packet that it quotes."""
    if len(inner) < 20 or inner[0] >> 4 != 4:
        return said
    target, header = ipaddress.IPv4Address(inner[16:20]), (inner[0] & 15) * 4
    if said.startswith("port") and inner[9] in (_TCP, _UDP) and len(inner) >= header + 4:
        name = "tcp" if inner[9] == _TCP else "udp"
        return f"{target} {name} port {_u16(inner, header + 2)} unreachable"
    return f"{target} {said}"


def _icmp6(data: bytes) -> str:
    kind = data[0]
    said = f"ICMP6 {_ICMPV6_TYPES.get(kind, f'type {kind}')}"
    if kind == 1 and len(data) >= 2:
        return f"{said}, {_UNREACHABLE6.get(data[1], f'code {data[1]}')}"
    if kind == 2 and len(data) >= 8:
        return f"{said}, mtu {_u32(data, 4)}"
    if kind in (135, 136) and len(data) >= 24:
        word = "who has" if kind == 135 else "tgt is"
        return f"{said}, {word} {ipaddress.IPv6Address(data[8:24])}"
    return said + (_echo(data) if kind in (128, 129) else "")


def _echo(data: bytes) -> str:
    return f", id {_u16(data, 4)}, seq {_u16(data, 6)}" if len(data) >= 8 else ""


def _igmp(data: bytes) -> str:
    said = _IGMP_TYPES.get(data[0], f"type {data[0]:#x}")
    if data[0] != _IGMP_V3_REPORT and len(data) >= 8 and any(data[4:8]):
        said += f" {ipaddress.IPv4Address(data[4:8])}"
    return said


def _sctp_chunks(data: bytes) -> Iterator[str]:
    """Names of a packet's chunks (RFC 9260, 3.2)."""
    at = 12
    while at + 4 <= len(data):
        yield _SCTP_CHUNKS.get(data[at], f"chunk {data[at]}")
        at += max(_u16(data, at + 2) + 3 & ~3, 4)
