# SPDX-License-Identifier: Apache-2.0
"""Packets in a few words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.packet import linktype
from kcap.packet.summary import summarise
from unit.packet.situations import (
    ARP4,
    OUTER,
    PING4,
    PING6,
    TAGGED,
    TCP4,
    TWICE,
    UDP4,
    made,
)  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (UDP4, "IP 10.0.0.1.4000 > 10.0.0.2.4001: UDP, length 5"),
        (TCP4, "IP 10.0.0.1.4000 > 10.0.0.2.4001: Flags [P.], seq 0:3, ack 0, win 8192, length 3"),
        (PING4, "IP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 1, seq 1, length 12"),
        (PING6, "IP6 fd00::1 > fd00::2: ICMP6 echo request, id 1, seq 1, length 12"),
        (ARP4, "ARP who-has 10.0.0.2 tell 10.0.0.1"),
        (TAGGED, "vlan 5 IP 10.0.0.1.4000 > 10.0.0.2.4001: UDP, length 2"),
        (TWICE, "vlan 7 vlan 5 IP 10.0.0.1.4000 > 10.0.0.2.4001: UDP, length 2"),
        (OUTER, "IP 192.0.2.1.5555 > 192.0.2.2.4789: UDP, length 55"),
        (made(0x88B5, b"netlink"), "7 bytes, no header is known"),
        (made(0x88CC, b"lldp"), "ethertype 0x88cc, length 4"),
        (made(38, bytes(38)), "802.3, length 38"),
        (made(0x0800, b"\x45"), "IP, length 1"),
    ],
)
def test_frame_is_said_as_tcpdump_would(frame: bytes, said: str) -> None:
    assert summarise(linktype.ETHERNET, frame, len(frame)) == said


def test_fragment_is_said_with_its_offset() -> None:
    frame = bytearray(UDP4)
    frame[20:22] = b"\x00\x0a"
    assert summarise(linktype.ETHERNET, bytes(frame), len(frame)) == (
        "IP 10.0.0.1 > 10.0.0.2: fragment at 80, length 13"
    )


def test_raw_ip_has_no_link_layer() -> None:
    assert summarise(linktype.RAW, UDP4[14:], len(UDP4) - 14).endswith("UDP, length 5")


def test_other_link_types_are_bytes() -> None:
    assert summarise(linktype.USER0, UDP4, 47) == "47 bytes"


@given(st.sampled_from([UDP4, TCP4, PING4, PING6, ARP4, TWICE, OUTER]), st.data())
def test_whatever_is_cut_or_broken_is_said_somehow(frame: bytes, data: st.DataObject) -> None:
    broken = bytearray(frame[: data.draw(st.integers(0, len(frame)))])
    for at in data.draw(st.lists(st.integers(0, max(len(broken) - 1, 0)), max_size=4)):
        if broken:
            broken[at] = data.draw(st.integers(0, 255))
    assert summarise(linktype.ETHERNET, bytes(broken), len(frame))
