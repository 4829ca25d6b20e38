# SPDX-License-Identifier: Apache-2.0
"""The headers of a frame as named fields, and what changed from one sight of it to the next.

Nothing here trusts the frame: what is cut off, or is no header that is known, ends the list.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from kcap.packet import linktype
from kcap.packet.bigendian import u16

_TCP, _UDP, _ICMP, _ICMPV6, _SCTP, _GRE, _IPIP, _IPV6 = 6, 17, 1, 58, 132, 47, 4, 41
#: Where the payload of a UDP datagram is known by its port (IANA; 8472 is Linux's old default).
_VXLAN_PORTS: Final = frozenset({4789, 8472})
_GENEVE_PORT: Final = 6081
#: What an ARP header says of its addresses: those of IPv4 for those of Ethernet, with their sizes.
_ARP_OF_IP: Final = b"\x08\x00\x06\x04"
_TRANS_ETHER: Final = 0x6558  # a whole frame in GRE or GENEVE (ETH_P_TEB)
#: IPv6 extension headers with their length in 8 bytes behind the first (RFC 8200).
_EXTENSIONS: Final = frozenset({0, 43, 60})
_FRAGMENT: Final = 44
_FLAGS: Final = ((0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x20, "U"), (0x40, "E"),
                 (0x80, "W"), (0x10, "."))  # fmt: skip
#: Frames in frames: more than anybody sends.
_MAX_LAYERS: Final = 24


class Layer(NamedTuple):
    """One header.

    :ivar name: ``eth``, ``vlan``, ``arp``, ``ip``, ``ip6``, ``tcp``, ``udp``, ``icmp``,
        ``icmp6``, ``sctp``, ``gre``, ``vxlan``, ``geneve``; ``ct`` is what connection tracking
        knows of a packet, no header.
    :ivar fields: what tells packets apart, as text, by name. Lengths and checksums are left out:
        they change whenever anything does.
    """

    name: str
    fields: dict[str, str]

    def __str__(self) -> str:
        """In few words: ``ip 10.0.0.1 > 10.0.0.2``, ``udp 53 > 4000``, ``vxlan vni 42``."""
        rest = dict(self.fields)
        source, target = rest.pop("src", ""), rest.pop("dst", "")
        said = f"{self.name} {source} > {target}" if source else self.name
        if self.name == "ct":
            said += f" {rest['state']} {rest['flow']}, reply {rest['reply']}"
        elif self.name in ("vlan", "gre", "vxlan", "geneve"):
            said += "".join(f" {name} {value}" for name, value in rest.items())
        return said


class Change(NamedTuple):
    """What is different from one sight of a packet to the next.

    :ivar field: ``ip.src``, ``mark``, …; a layer's name where a whole header came or went.
    :ivar before: '' where it came.
    :ivar after: '' where it went.
    """

    field: str
    before: str
    after: str

    def __str__(self) -> str:
        if not self.before:
            return f"+ {self.after}"
        if not self.after:
            return f"- {self.before}"
        return f"{self.field} {self.before} -> {self.after}"


class _Cut(Exception):
    """The frame ends within a header."""


class _Reader:
    """A place in a frame.

    :param data: the frame.
    :param at: the place.
    """

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, size: int, header: int | None = None) -> bytes:
        """The next bytes; goes on behind the header.

        :param header: its whole length, if it is more than what is taken.
        """
        taken = self.data[self.at : self.at + size]
        if len(taken) < size:
            raise _Cut
        self.at += size if header is None else max(size, header)
        return taken

    def peek(self, offset: int = 0) -> int:
        """A byte that lies ahead."""
        if self.at + offset >= len(self.data):
            raise _Cut
        return self.data[self.at + offset]


#: What reads the next header: the header, and what reads the one behind it (None: nothing does).
_Read = Callable[[_Reader], "tuple[Layer, _Read | None]"]


def layers(link_type: int, data: bytes, *, made_header: bool = False) -> list[Layer]:
    """The headers of a frame, the outermost first.

    :param link_type: what it starts with (``packet.linktype``).
    :param made_header: its Ethernet header is not its own: that one is left out.
    """
    start: _Read | None = {linktype.ETHERNET: _ethernet, linktype.RAW: _ip}.get(link_type)
    found = list(_walk(start, _Reader(data)))
    return found[1:] if made_header else found


def _walk(read: _Read | None, reader: _Reader) -> Iterator[Layer]:
    for _ in range(_MAX_LAYERS):
        if read is None:
            return
        try:
            layer, read = read(reader)
        except _Cut:
            return
        yield layer


def changes(before: Sequence[Layer], after: Sequence[Layer]) -> list[Change]:
    """What is different between two sights of a packet.

    Headers come and go at the front of a packet: the last ones are taken to be the same.
    """
    same = 0
    for one, other in zip(reversed(before), reversed(after), strict=False):
        if one.name != other.name:
            break
        same += 1
    gone, come = before[: len(before) - same], after[: len(after) - same]
    found = [Change(layer.name, str(layer), "") for layer in gone]
    found += [Change(layer.name, "", str(layer)) for layer in come]
    for one, other in zip(before[len(gone) :], after[len(come) :], strict=True):
        found += [
            Change(f"{one.name}.{field}", value, other.fields[field])
            for field, value in one.fields.items()
            if other.fields.get(field, value) != value
        ]
    return found


def _by_ethertype(ethertype: int) -> _Read | None:
    if ethertype in linktype.VLAN_TYPES:
        return _vlan
    if ethertype in (linktype.ETH_P_IP, linktype.ETH_P_IPV6):
        return _ip
    return {linktype.ETH_P_ARP: _arp, _TRANS_ETHER: _ethernet}.get(ethertype)


def _by_protocol(protocol: int) -> _Read | None:
    return {
        _TCP: _tcp, _UDP: _udp, _ICMP: _icmp, _ICMPV6: _icmp6, _SCTP: _sctp, _GRE: _gre,
        _IPIP: _ip, _IPV6: _ip,
    }.get(protocol)  # fmt: skip


def _ethernet(reader: _Reader) -> tuple[Layer, _Read | None]:
    data = reader.take(14)
    fields = {"src": data[6:12].hex(":"), "dst": data[:6].hex(":")}
    return Layer("eth", fields), _by_ethertype(u16(data, 12))


def _vlan(reader: _Reader) -> tuple[Layer, _Read | None]:
    data = reader.take(4)
    tci = u16(data, 0)
    return Layer("vlan", {"id": str(tci & 0xFFF), "prio": str(tci >> 13)}), _by_ethertype(
        u16(data, 2)
    )


def _arp(reader: _Reader) -> tuple[Layer, _Read | None]:
    data = reader.take(28)
    if data[2:6] != _ARP_OF_IP:
        raise _Cut
    sender, target = ipaddress.IPv4Address(data[14:18]), ipaddress.IPv4Address(data[24:28])
    kind = {1: "request", 2: "reply"}.get(u16(data, 6), str(u16(data, 6)))
    return Layer("arp", {"src": str(sender), "dst": str(target), "op": kind}), None


def _ip(reader: _Reader) -> tuple[Layer, _Read | None]:
    return _ipv6(reader) if reader.peek() >> 4 == 6 else _ipv4(reader)


def _ipv4(reader: _Reader) -> tuple[Layer, _Read | None]:
    if reader.peek() >> 4 != 4:
        raise _Cut
    data = reader.take(20, (reader.peek() & 15) * 4)
    source, target = ipaddress.IPv4Address(data[12:16]), ipaddress.IPv4Address(data[16:20])
    fragment = (u16(data, 6) & 0x1FFF) * 8
    fields = {
        "src": str(source), "dst": str(target), "ttl": str(data[8]), "tos": f"{data[1]:#x}",
        "id": str(u16(data, 4)), "fragment": str(fragment),
    }  # fmt: skip
    return Layer("ip", fields), None if fragment else _by_protocol(data[9])


def _ipv6(reader: _Reader) -> tuple[Layer, _Read | None]:
    data = reader.take(40)
    source, target = ipaddress.IPv6Address(data[8:24]), ipaddress.IPv6Address(data[24:40])
    following, fragment = data[6], 0
    while following in _EXTENSIONS:
        following, size = reader.peek(), (reader.peek(1) + 1) * 8
        reader.take(size)
    if following == _FRAGMENT:
        header = reader.take(8)
        following, fragment = header[0], u16(header, 2) & 0xFFF8
    fields = {
        "src": str(source), "dst": str(target), "hops": str(data[7]),
        "class": f"{u16(data, 0) >> 4 & 0xFF:#x}", "fragment": str(fragment),
    }  # fmt: skip
    return Layer("ip6", fields), None if fragment else _by_protocol(following)


def _ports(data: bytes) -> dict[str, str]:
    return {"src": str(u16(data, 0)), "dst": str(u16(data, 2))}


def _tcp(reader: _Reader) -> tuple[Layer, _Read | None]:
    data = reader.take(20)
    flags = "".join(letter for bit, letter in _FLAGS if data[13] & bit) or "none"
    numbers = {"seq": str(int.from_bytes(data[4:8])), "ack": str(int.from_bytes(data[8:12]))}
    return Layer("tcp", {**_ports(data), "flags": flags, **numbers}), None


def _sctp(reader: _Reader) -> tuple[Layer, _Read | None]:
    return Layer("sctp", _ports(reader.take(12))), None


def _udp(reader: _Reader) -> tuple[Layer, _Read | None]:
    data = reader.take(8)
    port = u16(data, 2)
    behind = _vxlan if port in _VXLAN_PORTS else _geneve if port == _GENEVE_PORT else None
    return Layer("udp", _ports(data)), behind


def _icmp(reader: _Reader) -> tuple[Layer, _Read | None]:
    return _message("icmp", reader.take(8), (0, 8)), None


def _icmp6(reader: _Reader) -> tuple[Layer, _Read | None]:
    return _message("icmp6", reader.take(8), (128, 129)), None


def _message(name: str, data: bytes, echo: tuple[int, int]) -> Layer:
    """A message of ICMP or ICMPv6.

    :param echo: the types that have an id and a sequence number.
    """
    fields = {"type": str(data[0]), "code": str(data[1])}
    if data[0] in echo:
        fields |= {"id": str(u16(data, 4)), "seq": str(u16(data, 6))}
    return Layer(name, fields)


def _gre(reader: _Reader) -> tuple[Layer, _Read | None]:
    data = reader.take(4)
    flags, fields = data[0], {}
    if flags & 0x80:  # checksum and reserved (RFC 2784)
        reader.take(4)
    if flags & 0x20:  # key (RFC 2890)
        fields["key"] = str(int.from_bytes(reader.take(4)))
    if flags & 0x10:  # sequence number
        reader.take(4)
    return Layer("gre", fields), _by_ethertype(u16(data, 2))


def _vxlan(reader: _Reader) -> tuple[Layer, _Read | None]:
    data = reader.take(8)
    return Layer("vxlan", {"vni": str(int.from_bytes(data[4:7]))}), _ethernet


def _geneve(reader: _Reader) -> tuple[Layer, _Read | None]:
    data = reader.take(8)
    reader.take((data[0] & 0x3F) * 4)  # options (RFC 8926)
    vni = str(int.from_bytes(data[4:7]))
    return Layer("geneve", {"vni": vni}), _by_ethertype(u16(data, 2))
