# SPDX-License-Identifier: Apache-2.0
"""A packet in a few words, as tcpdump would say it: from the link layer through tunnels to what
``summary_transport`` says.

Nothing here trusts the packet: whatever is cut off or does not add up is said as far as it goes.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Final

from kcap.packet import linktype
from kcap.packet.bigendian import u16, u32
from kcap.packet.summary_transport import transport

_MPLS: Final = (0x8847, 0x8848)
_PPPOE: Final = 0x8864
_MACSEC: Final = 0x88E5
_TRANS_ETHER: Final = 0x6558
_SNAP: Final = 0xAA
_ETHERTYPES: Final = {
    0x0806: "ARP", 0x0842: "Wake on LAN", 0x6558: "Ethernet", 0x8035: "RARP", 0x8809: "LACP",
    0x8863: "PPPoE discovery", 0x888E: "EAPOL", 0x88CC: "LLDP", 0x88F7: "PTP", 0x9000: "loopback",
    0x8100: "802.1Q", 0x88A8: "802.1ad", 0x0800: "IPv4", 0x86DD: "IPv6", 0x8847: "MPLS",
    0x8848: "MPLS multicast", 0x8864: "PPPoE", 0x88E5: "MACsec",
}  # fmt: skip
#: What a PPP frame has behind its protocol number (RFC 1661 and others).
_PPP: Final = {0xC021: "LCP", 0x8021: "IPCP", 0x8057: "IPV6CP", 0xC023: "PAP", 0xC223: "CHAP"}
_PPP_IP: Final = (0x0021, 0x0057)
_STP: Final = 0x42
_STP_HEADER: Final = b"\x42\x42\x03"  # an unnumbered information (IEEE 802.2)
_STP_VERSIONS: Final = {0: "802.1d", 2: "802.1w", 3: "802.1s"}
_STP_TYPES: Final = {0: "Config", 2: "Rapid STP", 0x80: "Topology Change"}
_STP_FLAGS: Final = ((0x01, "Topology change"), (0x80, "Topology change ACK"))
_LLC: Final = {_STP: "STP", 0xFE: "ISO", 0xE0: "IPX", 0xF0: "NetBEUI", _SNAP: "SNAP"}
_IPIP, _IPV6, _GRE, _UDP = 4, 41, 47, 17
#: Where the payload of a UDP datagram is known by its port (IANA; 8472 is Linux's old default).
_VXLAN_PORTS: Final = frozenset({4789, 8472})
_VXLAN_HAS_VNI: Final = 0x08
_GENEVE_PORT: Final = 6081
_GENEVE_FLAGS: Final = ((0x80, "O"), (0x40, "C"))
#: IPv6 extension headers whose second byte is their length in 8 bytes (RFC 8200): hop-by-hop,
#: routing, destination options.
_EXTENSIONS: Final = frozenset({0, 43, 60})
_FRAGMENT: Final = 44
#: Packets in packets: more than anybody sends.
_DEEPEST: Final = 8


def printable(name: str) -> str:
    """A name as a terminal may get it: a process can call itself what erases a line."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


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
        return _ip(data, original_length, 0)
    if link_type != linktype.ETHERNET or len(data) < 14:
        return f"{original_length} bytes"
    if data[12:14] == b"\x88\xb5" and data[:12] == bytes(12):
        return f"{original_length - 14} bytes, no header is known"
    return _frame(data, original_length, 0)


def link_header(link_type: int, data: bytes, original_length: int) -> str:
    """The addresses and the type of an Ethernet frame, as ``tcpdump -e`` has them; '' if it is
    none."""
    if link_type != linktype.ETHERNET or len(data) < 14:
        return ""
    number = u16(data, 12)
    kind = f"ethertype {_ETHERTYPES.get(number, 'unknown')} ({number:#06x})"
    if number < 0x600:
        kind = "802.3"
    addresses = f"{data[6:12].hex(':')} > {data[:6].hex(':')}"
    return f"{addresses}, {kind}, length {original_length}"


def _frame(data: bytes, original: int, depth: int) -> str:
    """A whole Ethernet frame.

    :param original: its length before it was cut, bytes.
    :param depth: in how many packets it is.
    """
    at, tags = 12, ""
    ethertype = u16(data, at)
    while ethertype in linktype.VLAN_TYPES and len(data) >= at + 6:
        tags += f"vlan {u16(data, at + 2) & 0xFFF} "
        at += 4
        ethertype = u16(data, at)
    if len(data) < at + 2:
        return f"{tags}Ethernet, length {original}"
    return tags + _by_ethertype(ethertype, data[at + 2 :], original - at - 2, depth)


def _by_ethertype(ethertype: int, data: bytes, length: int, depth: int) -> str:
    """What follows an EtherType; ``length`` is its own before it was cut."""
    if depth > _DEEPEST:
        return f"…, length {length}"
    if ethertype in (linktype.ETH_P_IP, linktype.ETH_P_IPV6):
        return _ip(data, length, depth)
    if ethertype == linktype.ETH_P_ARP:
        return _arp(data, length)
    if ethertype == _TRANS_ETHER:
        return _frame(data, length, depth)
    if ethertype in _MPLS:
        return _mpls(data, length, depth)
    if ethertype == _PPPOE and len(data) >= 8:
        return _pppoe(data, length, depth)
    if ethertype == _MACSEC and len(data) >= 6:
        return f"MACsec, an {data[0] & 3}, pn {u32(data, 2)}, length {length}"
    if ethertype < 0x600:
        return _llc(data, min(ethertype, length), depth)
    name = _ETHERTYPES.get(ethertype, f"ethertype {ethertype:#06x}")
    return f"{name}, length {length}"


def _llc(data: bytes, length: int, depth: int) -> str:
    """An 802.3 frame behind its length (802.2 LLC).

    :param length: of what is not padding.
    """
    if not data or data[0] not in _LLC:
        return f"802.3, length {length}"
    if data[0] == _SNAP and len(data) >= 8 and data[3:6] == bytes(3):  # RFC 1042
        return _by_ethertype(u16(data, 6), data[8:], length - 8, depth + 1)
    if data[:3] == _STP_HEADER and len(data) >= 7:
        return _stp(data[3:], length - 3)
    return f"802.3 {_LLC[data[0]]}, length {length}"


def _stp(data: bytes, length: int) -> str:
    """A bridge's message (802.1D, 9.3)."""
    version = _STP_VERSIONS.get(data[2], f"version {data[2]}")
    said = f"STP {version}, {_STP_TYPES.get(data[3], f'type {data[3]}')}"
    if data[3] == 0 and len(data) >= 27:
        flags = ", ".join(name for bit, name in _STP_FLAGS if data[4] & bit) or "none"
        bridge = f"{u16(data, 17):04x}.{data[19:25].hex(':')}.{u16(data, 25):04x}"
        said += f", Flags [{flags}], bridge-id {bridge}"
    return f"{said}, length {length}"


def _mpls(data: bytes, length: int, depth: int) -> str:
    said, at, last = "MPLS", 0, False
    while not last and len(data) >= at + 4:
        entry = u32(data, at)
        last = bool(entry & 0x100)
        bottom = ", [S]" if last else ""
        said += f" (label {entry >> 12}, tc {entry >> 9 & 7}{bottom}, ttl {entry & 0xFF})"
        at += 4
        if at > 4 * _DEEPEST:
            return f"{said} …"
    rest = data[at:]
    if last and rest and rest[0] >> 4 in (4, 6):
        return f"{said} {_ip(rest, length - at, depth + 1)}"
    return f"{said}, length {length}"


def _pppoe(data: bytes, length: int, depth: int) -> str:
    said, protocol = f"PPPoE [ses {u16(data, 2):#x}]", u16(data, 6)
    if protocol in _PPP_IP:
        return f"{said} {_ip(data[8:], length - 8, depth + 1)}"
    return f"{said} {_PPP.get(protocol, f'protocol {protocol:#06x}')}, length {length}"


def _arp(data: bytes, length: int) -> str:
    if len(data) < 28 or data[4:6] != b"\x06\x04":
        return f"ARP, length {length}"
    sender, target = ipaddress.IPv4Address(data[14:18]), ipaddress.IPv4Address(data[24:28])
    if u16(data, 6) == 1:
        return f"ARP, Request who-has {target} tell {sender}, length {length}"
    return f"ARP, Reply {sender} is-at {data[8:14].hex(':')}, length {length}"


def _ip(data: bytes, length: int, depth: int) -> str:
    version = data[0] >> 4 if data else 0
    if depth > _DEEPEST:
        return f"IP …, length {length}"
    if version == 4 and len(data) >= 20:
        return _ipv4(data, length, depth)
    if version == 6 and len(data) >= 40:
        return _ipv6(data, length, depth)
    return f"IP, length {length}"


def _ipv4(data: bytes, length: int, depth: int) -> str:
    header = (data[0] & 15) * 4
    if header < 20:
        return f"IP bad-hlen {header}"
    source, target = ipaddress.IPv4Address(data[12:16]), ipaddress.IPv4Address(data[16:20])
    offset = (u16(data, 6) & 0x1FFF) * 8
    total = u16(data, 2) or length  # 0: a super-packet
    name = "IP" if total <= length else f"IP truncated-ip - {total - length} bytes missing!"
    size = max(total - header, 0)
    if offset:
        return f"{name} {source} > {target}: fragment at {offset}, length {size}"
    return _behind_ip(name, str(source), str(target), data[9], data[header:], size, depth)


def _ipv6(data: bytes, length: int, depth: int) -> str:
    source, target = ipaddress.IPv6Address(data[8:24]), ipaddress.IPv6Address(data[24:40])
    following, at = data[6], 40
    size = u16(data, 4) or length - 40  # 0: a super-packet (RFC 2675)
    missing = size + 40 - length
    name = "IP6" if missing <= 0 else f"IP6 truncated-ip6 - {missing} bytes missing!"
    while following in _EXTENSIONS and len(data) >= at + 2:
        following, step = data[at], (data[at + 1] + 1) * 8
        at, size = at + step, size - step
    if following == _FRAGMENT and len(data) >= at + 8:
        offset = u16(data, at + 2) & 0xFFF8
        following, at, size = data[at], at + 8, size - 8
        if offset:
            return f"{name} {source} > {target}: fragment at {offset}, length {max(size, 0)}"
    return _behind_ip(
        name, str(source), str(target), following, data[at:], max(size, 0), depth
    )  # fmt: skip


def _behind_ip(
    name: str, source: str, target: str, protocol: int, data: bytes, size: int, depth: int
) -> str:
    """What follows the network header.

    :param size: its length, bytes, by the header.
    """
    if protocol in (_IPIP, _IPV6) and data:
        return f"{name} {source} > {target}: {_ip(data, size, depth + 1)}"
    if protocol == _GRE and len(data) >= 4:
        return f"{name} {source} > {target}: {_gre(data, size, depth)}"
    if protocol == _UDP and len(data) >= 16:
        tunnel = _udp_tunnel(u16(data, 2), data[8:], size - 8, depth)
        if tunnel:
            ends = f"{name} {source}.{u16(data, 0)} > {target}.{u16(data, 2)}"
            return f"{ends}: {tunnel}"
    return transport(name, source, target, protocol, data, size)


def _gre(data: bytes, size: int, depth: int) -> str:
    flags, at = data[0], 4 + 4 * bool(data[0] & 0x80)  # checksum and reserved (RFC 2784)
    said = f"GREv{data[1] & 7}"
    if flags & 0x20:  # key (RFC 2890)
        said += f", key={u32(data, at):#x}"
        at += 4
    if flags & 0x10:
        said += f", seq {u32(data, at)}"
        at += 4
    inner = _by_ethertype(u16(data, 2), data[at:], size - at, depth + 1)
    return f"{said}, length {size}: {inner}"


def _udp_tunnel(port: int, data: bytes, size: int, depth: int) -> str:
    """A tunnel in UDP; '' if it is none that is known."""
    if depth >= _DEEPEST:
        return ""
    vni = int.from_bytes(data[4:7])
    if port in _VXLAN_PORTS:
        flags = "I" if data[0] & _VXLAN_HAS_VNI else "."
        said = f"VXLAN, flags [{flags}] (0x{data[0]:02x}), vni {vni}"
        return f"{said}: {_frame(data[8:], size - 8, depth + 1)}"
    if port == _GENEVE_PORT and not data[0] & 0xC0:
        at = 8 + 4 * (data[0] & 0x3F)  # options (RFC 8926)
        inner = _by_ethertype(u16(data, 2), data[at:], size - at, depth + 1)
        flags = "".join(letter for bit, letter in _GENEVE_FLAGS if data[1] & bit) or "none"
        return f"Geneve, Flags [{flags}], vni {vni:#x}: {inner}"
    return ""
