# SPDX-License-Identifier: Apache-2.0
"""What follows a network header, in a few words: TCP, UDP with DNS and DHCP, SCTP, ESP, …

Nothing here trusts the packet: whatever is cut off or does not add up is said as far as it goes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from kcap.packet.bigendian import u16, u32
from kcap.packet.summary_icmp import icmp, icmp6, igmp

_ICMP, _IGMP, _TCP, _UDP, _ESP, _AH, _ICMPV6, _SCTP = 1, 2, 6, 17, 50, 51, 58, 132
_NO_NEXT_HEADER: Final = 59
#: What stands for a header of which too little was captured, as tcpdump has it.
_CUT: Final = {_ICMP: "[|icmp]", _TCP: "[|tcp]", _UDP: "[|udp]", _ICMPV6: "[|icmp6]",
               _SCTP: "[|sctp]"}  # fmt: skip
_TCP_HEADER: Final = 20
_NAMES: Final = {_IGMP: "IGMP", _ESP: "ESP", _AH: "AH", 89: "OSPF", 103: "PIM", 112: "VRRP",
                 _SCTP: "SCTP"}  # fmt: skip
#: From the lowest bit on.
_FLAGS: Final = "FSRP.UEW"
_TCP_OPTIONS: Final = {1: "nop", 2: "mss", 3: "wscale", 4: "sackOK", 5: "sack", 8: "TS", 19: "md5",
                       29: "tcp-ao", 30: "mptcp", 34: "tfo"}  # fmt: skip
_SCTP_CHUNKS: Final = {0: "DATA", 1: "INIT", 2: "INIT ACK", 3: "SACK", 4: "HB REQ", 5: "HB ACK",
                       6: "ABORT", 7: "SHUTDOWN", 8: "SHUTDOWN ACK", 9: "OP ERR",
                       10: "COOKIE ECHO", 11: "COOKIE ACK", 14: "SHUTDOWN COMPLETE"}  # fmt: skip
_DNS_PORTS: Final = (53, 5353)
_DHCP_PORTS: Final = (67, 68)
_DHCP6_PORTS: Final = frozenset({546, 547})
_DHCP6: Final = {
    1: "solicit",
    2: "advertise",
    3: "request",
    4: "confirm",
    5: "renew",
    6: "rebind",
    7: "reply",
    8: "release",
    9: "decline",
    10: "reconfigure",
    11: "inf-req",
}
_NTP_PORT: Final = 123
_NTP_MODES: Final = ("unspecified", "symmetric active", "symmetric passive", "Client", "Server",
                     "Broadcast", "Reserved", "Reserved")  # fmt: skip
_HTTP_PORTS: Final = frozenset({80, 8080, 3128})
_LONGEST_LINE: Final = 200
#: Flags of segments whose sequence number is said though they have no data: FIN, SYN, RST.
_SAYS_SEQUENCE: Final = 0x07
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
        between = f"{name} {source}.{u16(data, 0)} > {target}.{u16(data, 2)}"
    return f"{between}: {_said(protocol, data, size)}"


def _said(protocol: int, data: bytes, size: int) -> str:
    if protocol == _TCP and len(data) >= 16:
        return _tcp(data, size)
    if protocol == _UDP and len(data) >= 8:
        # What the header says is the whole datagram's length also in its first fragment.
        length = u16(data, 4) or size
        return _udp(data, length - 8) if length >= 8 else f"truncated-udplength {length}"
    if protocol in (_ICMP, _ICMPV6) and data:
        said = icmp(data) if protocol == _ICMP else icmp6(data)
        return f"{said}, length {size}"
    if protocol in (_ESP, _AH) and len(data) >= 12:
        at = 0 if protocol == _ESP else 4
        spi = f"spi={u32(data, at):#010x},seq={u32(data, at + 4):#x}"
        return f"{_NAMES[protocol]}({spi}), length {size}"
    if protocol == _IGMP and data:
        return igmp(data)
    if protocol == _SCTP and len(data) >= 16:
        chunks = (f"({number}) {chunk}" for number, chunk in enumerate(_sctp(data), 1))
        return f"sctp {', '.join(chunks)}"
    if protocol in _CUT:
        return _CUT[protocol]
    if protocol == _NO_NEXT_HEADER:
        return "no next header"
    return f"{_NAMES.get(protocol, f'protocol {protocol}')}, length {size}"


def _tcp(data: bytes, size: int) -> str:
    flags = "".join(x for n, x in enumerate(_FLAGS) if data[13] & 1 << n) or "none"
    header = (data[12] >> 4) * 4
    if header < _TCP_HEADER:
        return f"tcp {size - header} [bad hdr length {header} - too short, < {_TCP_HEADER}]"
    payload = max(size - header, 0)
    sequence = u32(data, 4)
    said = f"Flags [{flags}]"
    if payload or data[13] & _SAYS_SEQUENCE:
        said += f", seq {sequence}"
    if payload:
        said += f":{(sequence + payload) & 0xFFFFFFFF}"
    if data[13] & 0x10:
        said += f", ack {u32(data, 8)}"
    said += f", win {u16(data, 14)}"
    if data[13] & 0x20 and len(data) >= _TCP_HEADER:
        said += f", urg {u16(data, 18)}"
    options = ",".join(_tcp_options(data[_TCP_HEADER:header]))
    if len(data) < header:
        options += "[|tcp]"
    said += (f", options [{options}]" if options else "") + f", length {payload}"
    if payload and not _HTTP_PORTS.isdisjoint((u16(data, 0), u16(data, 2))):
        said += f": HTTP{_http(data[header:])}"
    return said


def _http(data: bytes) -> str:
    """The first line of a request or an answer, if the data begin with one."""
    line, ended, _ = data[:_LONGEST_LINE].partition(b"\r\n")
    method, _, rest = line.partition(b" ")
    if not (ended and rest and line.isascii() and line.decode().isprintable()):
        return ""
    known = method.startswith(b"HTTP/") or (method.isupper() and b" HTTP/" in rest)
    return f": {line.decode()}" if known else ""


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
        return f"TS val {u32(value, 0)} ecr {u32(value, 4)}"
    if kind == 5:
        blocks = [f"{{{u32(value, n)}:{u32(value, n + 4)}}}" for n in range(0, len(value), 8)]
        return f"sack {len(blocks)} {''.join(blocks)}"
    return name


def _udp(data: bytes, size: int) -> str:
    ports, payload = {u16(data, 0), u16(data, 2)}, data[8:]
    if ports.intersection(_DNS_PORTS) and len(payload) >= 12:
        return f"{_dns(payload)} ({size})"
    if ports.issuperset(_DHCP_PORTS) and payload:
        return _dhcp(payload, size)
    if ports & _DHCP6_PORTS and payload:
        return f"dhcp6 {_DHCP6.get(payload[0], f'msgtype-{payload[0]}')}"
    if _NTP_PORT in ports and payload:
        return f"NTPv{payload[0] >> 3 & 7}, {_NTP_MODES[payload[0] & 7]}, length {size}"
    return f"UDP, length {size}"


def _dns(data: bytes) -> str:
    """A DNS message (RFC 1035, 4.1): number, flags as tcpdump has them, question or answer."""
    number, flags, questions, answers, authorities, more = (u16(data, n) for n in range(0, 12, 2))
    name, at = _dns_name(data, 12) if questions else ("", 12)
    asked = f"{_dns_type(u16(data, at))}? {name}" if questions else ""
    if questions and len(data) < at + 4:
        asked = "[|domain]"
    if not flags & 0x8000:
        return f"{number}{'+' if flags & 0x100 else ''} {asked}".rstrip()
    code = flags & 15
    failed = f" {_DNS_CODES.get(code, f'code {code}')}" if code else ""
    authoritative = "*" if flags & 0x400 else ""
    counts = f"{answers}/{authorities}/{more}"
    whole = questions == 1 and len(data) > at + 4
    first = _dns_answer(data, at + 4) if whole and answers else ""
    return f"{number}{authoritative}{failed} {counts} {asked}{first}".rstrip()


def _dns_answer(data: bytes, at: int) -> str:
    """The address in the first answer, or its type."""
    at = _dns_name(data, at)[1]
    kind, value = u16(data, at), data[at + 10 : at + 10 + u16(data, at + 8)]
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


def _dhcp(data: bytes, size: int) -> str:
    """A BOOTP or DHCP message (RFC 951): who asks, by the hardware address."""
    said = "Reply"
    if data[0] == 1:
        said = "Request"
        if len(data) >= 34 and data[1:3] == b"\x01\x06":  # Ethernet
            said += f" from {data[28:34].hex(':')}"
    return f"BOOTP/DHCP, {said}, length {size}"


def _sctp(data: bytes) -> Iterator[str]:
    """Each chunk of a packet (RFC 9260, 3.2) with what tells it from others."""
    at = 12
    while at + 4 <= len(data):
        kind, size = data[at], max(u16(data, at + 2), 4)
        said = f"[{_SCTP_CHUNKS.get(kind, f'chunk {kind}')}]"
        value = data[at + 4 : at + size]
        if kind in (1, 2) and len(value) >= 16:
            said += (
                f" [init tag: {u32(value, 0)}] [rwnd: {u32(value, 4)}] [OS: {u16(value, 8)}] "
                f"[MIS: {u16(value, 10)}] [init TSN: {u32(value, 12)}]"
            )
        elif kind == 0 and len(value) >= 12:
            said += (
                f" [TSN: {u32(value, 0)}] [SID: {u16(value, 4)}] [SSEQ {u16(value, 6)}] "
                f"[PPID {u32(value, 8):#x}]"
            )
        elif kind == 3 and len(value) >= 12:
            said += (
                f" [cum ack {u32(value, 0)}] [a_rwnd {u32(value, 4)}] "
                f"[#gap acks {u16(value, 8)}] [#dup tsns {u16(value, 10)}]"
            )
        yield said
        at += size + 3 & ~3
