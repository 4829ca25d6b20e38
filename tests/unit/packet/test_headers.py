# SPDX-License-Identifier: Apache-2.0
"""Headers as fields, and the differences between two sights of a packet."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN

from kcap.packet import linktype
from kcap.packet.headers import changes, layers

MACS: dict[str, Any] = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
INNER = IP(src="10.0.0.1", dst="10.0.0.2", ttl=64, id=7) / TCP(sport=4000, dport=80, flags="PA")
OUTER = IP(src="192.0.2.1", dst="192.0.2.2", ttl=63, id=9)
FRAME = Ether(**MACS) / INNER


def read(packet: object, *, made_header: bool = False) -> list[str]:
    data = bytes(packet)  # type: ignore[call-overload]
    found = layers(linktype.ETHERNET, data, made_header=made_header)
    return [str(layer) for layer in found]


@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (FRAME, ["eth 02:00:00:00:00:01 > 02:00:00:00:00:02", "ip 10.0.0.1 > 10.0.0.2",
                 "tcp 4000 > 80"]),
        (Ether(**MACS) / Dot1Q(vlan=5, prio=3) / IP(dst="10.0.0.2", src="10.0.0.1") / ICMP(),
         ["eth 02:00:00:00:00:01 > 02:00:00:00:00:02", "vlan id 5 prio 3",
          "ip 10.0.0.1 > 10.0.0.2", "icmp"]),
        (Ether(**MACS) / ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2"),
         ["eth 02:00:00:00:00:01 > 02:00:00:00:00:02", "arp 10.0.0.1 > 10.0.0.2"]),
        (Ether(**MACS) / OUTER / GRE(key_present=1, key=77) / INNER,
         ["eth 02:00:00:00:00:01 > 02:00:00:00:00:02", "ip 192.0.2.1 > 192.0.2.2", "gre key 77",
          "ip 10.0.0.1 > 10.0.0.2", "tcp 4000 > 80"]),
        (Ether(**MACS) / OUTER / UDP(sport=5, dport=4789) / VXLAN(vni=42) / FRAME,
         ["eth 02:00:00:00:00:01 > 02:00:00:00:00:02", "ip 192.0.2.1 > 192.0.2.2", "udp 5 > 4789",
          "vxlan vni 42", "eth 02:00:00:00:00:01 > 02:00:00:00:00:02", "ip 10.0.0.1 > 10.0.0.2",
          "tcp 4000 > 80"]),
        (Ether(**MACS) / IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrHopByHop()
         / ICMPv6EchoRequest(), ["eth 02:00:00:00:00:01 > 02:00:00:00:00:02",
                                 "ip6 fd00::1 > fd00::2", "icmp6"]),
    ],
    ids=["tcp", "vlan", "arp", "gre", "vxlan", "ipv6"],
)  # fmt: skip
def test_headers_are_found_from_the_outermost_on(packet: object, wanted: list[str]) -> None:
    assert read(packet) == wanted


def test_frame_may_end_anywhere() -> None:
    whole = bytes(FRAME)
    counts = [len(layers(linktype.ETHERNET, whole[:size])) for size in range(len(whole) + 1)]
    assert counts == [0] * 14 + [1] * 20 + [2] * 20 + [3] * (len(whole) + 1 - 54)


def test_made_header_is_left_out() -> None:
    assert read(FRAME, made_header=True) == ["ip 10.0.0.1 > 10.0.0.2", "tcp 4000 > 80"]


def difference(before: object, after: object) -> list[str]:
    sights = (layers(linktype.RAW, bytes(each)) for each in (before, after))  # type: ignore[call-overload]
    return [str(change) for change in changes(*sights)]


def test_nat_and_a_hop_are_changes_of_fields() -> None:
    after = IP(src="192.0.2.9", dst="10.0.0.2", ttl=63, id=7) / TCP(
        sport=61000, dport=80, flags="PA"
    )
    assert difference(INNER, after) == [
        "ip.src 10.0.0.1 -> 192.0.2.9", "ip.ttl 64 -> 63", "tcp.src 4000 -> 61000",
    ]  # fmt: skip


def test_tunnel_is_headers_that_come_and_go() -> None:
    tunnel = OUTER / GRE() / INNER
    assert difference(INNER, tunnel) == ["+ ip 192.0.2.1 > 192.0.2.2", "+ gre"]
    assert difference(tunnel, INNER) == ["- ip 192.0.2.1 > 192.0.2.2", "- gre"]


def test_same_headers_are_no_change() -> None:
    assert difference(INNER, INNER) == []
