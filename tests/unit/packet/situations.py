# SPDX-License-Identifier: Apache-2.0
"""Every place in the kernel whose skbs were looked at, with the frame that a reader must see.

The first group are the rows of the table in docs/architecture.md ("Where skb->data points").
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any, NamedTuple

from kcap.functions import skb_record as layout
from unit.packet import skb_samples as s

with contextlib.redirect_stdout(io.StringIO()):
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
    from scapy.layers.l2 import ARP, Dot1Q, Ether
    from scapy.layers.vxlan import VXLAN


class Situation(NamedTuple):
    """An skb somewhere, the position that must be found, and the frame that must be written."""

    name: str
    skb: s.Skb
    position: int
    frame: bytes


def _ether(**more: Any) -> Any:
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", **more)


_IP4 = IP(src="10.0.0.1", dst="10.0.0.2")
_IP6 = IPv6(src="fd00::1", dst="fd00::2")

UDP4 = bytes(_ether() / _IP4 / UDP(sport=4000, dport=4001) / b"hello")
TCP4 = bytes(_ether() / _IP4 / TCP(sport=4000, dport=4001, flags="PA") / b"abc")
PING4 = bytes(_ether() / _IP4 / ICMP(id=1, seq=1) / b"ping")
PING6 = bytes(_ether() / _IP6 / ICMPv6EchoRequest(id=1, seq=1, data=b"ping"))
ARP4 = bytes(_ether() / ARP(psrc="10.0.0.1", pdst="10.0.0.2"))
TAGGED = bytes(_ether() / Dot1Q(vlan=5) / _IP4 / UDP(sport=4000, dport=4001) / b"hi")
TWICE = bytes(
    _ether(type=0x88A8) / Dot1Q(vlan=7, type=0x8100) / Dot1Q(vlan=5) / _IP4
    / UDP(sport=4000, dport=4001) / b"hi"
)  # fmt: skip
MACSEC = UDP4[:12] + bytes.fromhex("88e52c000000000102000000000a0001") + UDP4[12:]
INNER = bytes(Ether(src="02:00:00:00:01:01", dst="02:00:00:00:01:02") / _IP4
              / UDP(sport=4000, dport=4001) / b"inner")  # fmt: skip
OUTER = bytes(
    _ether() / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=5555, dport=4789)
    / VXLAN(vni=9) / Ether(INNER)
)  # fmt: skip

LO = s.Device("lo", 1, s.Device().netns, layout.ARPHRD_LOOPBACK, 14)
TUN = s.Device("tun0", 9, s.Device().netns, 65534, 0)
IPIP = s.Device("tunl0", 10, s.Device().netns, 768, 20)
PPP = s.Device("ppp0", 11, s.Device().netns, 512, 4)
VLAN = s.Device("veth0.5", 12, s.Device().netns, 1, 18)


def untagged(frame: bytes) -> bytes:
    """A frame without its first tag: what stays in the data when the tag is offloaded."""
    return frame[:12] + frame[16:]


def tag_of(frame: bytes) -> tuple[int, int]:
    return int.from_bytes(frame[12:14]), int.from_bytes(frame[14:16])


def made(protocol: int, rest: bytes) -> bytes:
    return bytes(12) + protocol.to_bytes(2) + rest


def _offloaded(skb: s.Skb, frame: bytes) -> s.Skb:
    return replace(skb, vlan=tag_of(frame))


def _from_nowhere(data: bytes, **more: object) -> s.Skb:
    skb = s.Skb(bytes(data), 0, layout.MAC_UNSET, 0, 0, None)
    return replace(skb, **more)  # type: ignore[arg-type]


_MAC, _BEHIND = layout.POSITION_MAC, layout.POSITION_BEHIND_MAC
_NET, _LINK, _UNKNOWN = layout.POSITION_NETWORK, layout.POSITION_LINK, layout.POSITION_UNKNOWN
_LO4 = bytes(12) + UDP4[12:]

TABLE = [
    Situation("eth_type_trans on veth", s.sent(UDP4, mac=66), _MAC, UDP4),
    Situation("ip_rcv", s.received(UDP4), _BEHIND, UDP4),
    Situation("ipv6_rcv", s.received(PING6), _BEHIND, PING6),
    Situation("ip_rcv on lo", s.received(_LO4, dev=LO), _BEHIND, _LO4),
    Situation("icmp_rcv", s.received(PING4).pulled(20), _BEHIND, PING4),
    Situation("icmpv6_rcv", s.received(PING6).pulled(40), _BEHIND, PING6),
    Situation("__dev_queue_xmit", s.sent(UDP4), _MAC, UDP4),
    Situation("__dev_queue_xmit on lo", s.sent(_LO4, dev=LO), _MAC, _LO4),
    Situation("__dev_queue_xmit, VLAN's second pass, mac_header 0",
              s.sent(UDP4, mac=0), _MAC, UDP4),
    Situation("__dev_queue_xmit, VLAN's second pass, tag offloaded",
              _offloaded(s.sent(untagged(TAGGED), mac=66), TAGGED), _MAC, TAGGED),
    Situation("dev_hard_start_xmit", s.sent(UDP4, mac=66), _MAC, UDP4),
    Situation("ip_output, no device", s.at_network(UDP4[14:], dev=None),
              _NET, made(0x0800, UDP4[14:])),
    Situation("ip6_output", s.at_network(PING6[14:]), _NET, made(0x86DD, PING6[14:])),
    Situation("tun transmit, mac_header at data", s.at_network(UDP4[14:], dev=TUN, mac=80),
              _NET, made(0x0800, UDP4[14:])),
    Situation("tun transmit, mac_header unset", s.at_network(UDP4[14:], dev=TUN),
              _NET, made(0x0800, UDP4[14:])),
]  # fmt: skip

OTHERS = [
    Situation("__netif_receive_skb, tag offloaded",
              _offloaded(s.received(untagged(TAGGED)), TAGGED), _BEHIND, TAGGED),
    Situation("icmp_rcv, tag offloaded",
              replace(s.received(PING4).pulled(20), vlan=(0x8100, 5)), _BEHIND,
              PING4[:12] + bytes.fromhex("81000005") + PING4[12:]),
    Situation("ip_output, tag offloaded", s.at_network(UDP4[14:], vlan=(0x88A8, 0x2003)),
              _NET, bytes(12) + bytes.fromhex("88a820030800") + UDP4[14:]),
    Situation("__netif_receive_skb, tag in the data", s.received(TAGGED), _BEHIND, TAGGED),
    Situation("VLAN device's transmit, tag in the data",
              s.sent(TAGGED, network=66 + 18, dev=VLAN), _MAC, TAGGED),
    Situation("transmit, two tags in the data", s.sent(TWICE, network=66 + 22), _MAC, TWICE),
    Situation("transmit, one tag offloaded and one in the data",
              _offloaded(s.sent(untagged(TWICE), network=66 + 18), TWICE), _MAC, TWICE),
    Situation("napi_gro_receive, network_header not set yet",
              s.received(UDP4, network=0), _BEHIND, UDP4),
    Situation("inet_gro_receive, network_header moved behind a tag in the data",
              s.received(TAGGED, network=66 + 18), _BEHIND, TAGGED),
    Situation("eth_type_trans in a driver, mac_header just set",
              s.sent(UDP4, mac=66, network=0), _MAC, UDP4),
    Situation("transmit of a forwarded packet, mac_header left from a tunnel's outer packet",
              s.sent(UDP4, mac=66 - 50), _MAC, UDP4),
    Situation("transmit of a forwarded packet that came in with a longer header",
              s.sent(UDP4, mac=66 - 4), _MAC, UDP4),
    Situation("ip_forward", s.received(UDP4, skb_iif=7), _BEHIND, UDP4),
    Situation("ip_output of a forwarded packet from an L3 tunnel, mac_header left over",
              s.at_network(UDP4[14:], mac=80 - 58), _NET, made(0x0800, UDP4[14:])),
    Situation("ip_output of a packet from a wireguard device",
              s.at_network(UDP4[14:], mac=80), _NET, made(0x0800, UDP4[14:])),
    Situation("vxlan_rcv, after the inner eth_type_trans, network_header still the outer one",
              s.received(INNER, network=40), _BEHIND, INNER),
    Situation("vxlan's encap_rcv, outer headers", s.received(OUTER).pulled(28), _BEHIND, OUTER),
    Situation("ip_local_out of an encapsulated packet, mac_header the inner one",
              s.at_network(OUTER[14:], mac=80 + 36), _NET, made(0x0800, OUTER[14:])),
    Situation("ip_rcv on an ipip device", s.at_network(UDP4[14:], dev=IPIP, mac=80 - 34),
              _NET, made(0x0800, UDP4[14:])),
    Situation("macsec's transmit, behind its header the frame as it was",
              s.sent(MACSEC, network=66 + 14 + 16, mac=66 + 16), _MAC, MACSEC),
    Situation("ip_tunnel_rcv, mac_header at the inner packet, network_header the outer one",
              s.at_network(UDP4[14:], mac=80, network=60), _NET, made(0x0800, UDP4[14:])),
    Situation("vxlan_rcv, mac_header at the inner frame, network_header the outer one",
              replace(s.sent(UDP4, mac=66, network=30), protocol=0x6558), _MAC, UDP4),
    Situation("eth_type_trans on vxlan, protocol still the outer one, a MAC address like IP",
              replace(s.sent(b"\x46" + UDP4[1:], mac=66, network=30), protocol=0x0800),
              _MAC, b"\x46" + UDP4[1:]),
    Situation("udp_tunnel_xmit_skb, VXLAN's header in front of the frame",
              replace(s.sent(b"\x08\0\0\0\0\0\x2a\0" + UDP4, network=66 + 22), protocol=0x0800),
              _LINK, made(0x0800, UDP4[14:])),
    Situation("ip_tunnel_xmit, GRE's header in front of the frame",
              replace(s.sent(b"\0\0\x65\x58" + UDP4, network=66 + 18), protocol=0x0800),
              _LINK, made(0x0800, UDP4[14:])),
    Situation("udp_tunnel_xmit_skb, Geneve's header in front of a frame with a tag in it",
              replace(s.sent(b"\0\0\x65\x58\0\0\x37\0" + TAGGED, network=66 + 26), protocol=0x8100),
              _LINK, made(0x0800, TAGGED[18:])),
    Situation("esp_output, mac_header at the IP header's field for the protocol",
              s.at_network(UDP4[14:], mac=80 + 9).pulled(28), _NET, made(0x0800, UDP4[14:])),
    Situation("ip6_tunnel's receive, mac_header at the inner IPv6 packet",
              s.at_network(PING6[14:], mac=80, network=40), _NET, made(0x86DD, PING6[14:])),
    Situation("icmp_rcv on tun", s.at_network(PING4[14:], dev=TUN).pulled(20),
              _NET, made(0x0800, PING4[14:])),
    Situation("ppp transmit, link header in front",
              replace(s.at_network(b"\xff\x03\x00\x21" + UDP4[14:], dev=PPP, network=84),
                      protocol=0x0800), _LINK, made(0x0800, UDP4[14:])),
    Situation("tcp_rcv_established, device cleared", s.received(TCP4, dev=None).pulled(40),
              _BEHIND, TCP4),
    Situation("arp_rcv", s.received(ARP4), _BEHIND, ARP4),
    Situation("arp_xmit", s.sent(ARP4), _MAC, ARP4),
    Situation("ip_output, protocol not set", s.at_network(UDP4[14:], protocol=0),
              _NET, made(0x0800, UDP4[14:])),
    Situation("consume_skb of a netlink message", _from_nowhere(b"\x14\0\0\0netlink"),
              _UNKNOWN, made(0x88B5, b"\x14\0\0\0netlink")),
    Situation("TCP segment before its header is built",
              s.Skb(bytes(320) + b"payload", 320, layout.MAC_UNSET, 0, 0x0800, None),
              _UNKNOWN, made(0x88B5, b"payload")),
    Situation("wwan device with nothing but mac_header at data",
              replace(s.at_network(UDP4[14:], dev=replace(TUN, type=519), mac=80), network=0),
              _NET, made(0x0800, UDP4[14:])),
]  # fmt: skip

ALL = TABLE + OTHERS
