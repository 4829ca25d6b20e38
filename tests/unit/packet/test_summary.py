# SPDX-License-Identifier: Apache-2.0
"""Packets in a few words."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import GRE, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Raw
from scapy.utils import wrpcap

from kcap.packet import linktype
from kcap.packet.summary import link_header, summarise
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
        (PING6, "IP6 fd00::1 > fd00::2: ICMP6, echo request, id 1, seq 1, length 12"),
        (ARP4, "ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28"),
        (TAGGED, "vlan 5 IP 10.0.0.1.4000 > 10.0.0.2.4001: UDP, length 2"),
        (TWICE, "vlan 7 vlan 5 IP 10.0.0.1.4000 > 10.0.0.2.4001: UDP, length 2"),
        (
            OUTER,
            "IP 192.0.2.1.5555 > 192.0.2.2.4789: VXLAN, flags [I] (0x0c), vni 9: "
            "IP 10.0.0.1.4000 > 10.0.0.2.4001: UDP, length 5",
        ),
        (made(0x88B5, b"netlink"), "7 bytes, no header is known"),
        (made(0x88CC, b"lldp"), "LLDP, length 4"),
        (made(0x88B6, b"mine"), "ethertype 0x88b6, length 4"),
        (made(38, bytes(38)), "802.3, length 38"),
        (made(0x0800, b"\x45"), "IP, length 1"),
    ],
)
def test_frame_is_said_as_tcpdump_would(frame: bytes, said: str) -> None:
    assert summarise(linktype.ETHERNET, frame, len(frame)) == said


ENDS = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
OUTER4, INNER = IP(src="192.0.2.1", dst="192.0.2.2"), IP(src="10.0.0.1", dst="10.0.0.2")
SIXES = IPv6(src="fd00::1", dst="fd00::2")
DATAGRAM = INNER / UDP(sport=4000, dport=4001) / b"inner"
SYN = TCP(sport=4000, dport=80, flags="S", seq=7, options=[
    ("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5, 0)), ("NOP", None), ("WScale", 7),
])  # fmt: skip
QUESTION = DNS(id=4660, rd=1, qd=DNSQR(qname="example.org", qtype="AAAA"))
ANSWER = DNS(id=4660, qr=1, rd=1, qd=DNSQR(qname="example.org"), an=DNSRR(rrname="example.org"))
KINDS = {
    "ipip": OUTER4 / DATAGRAM,
    "gre": OUTER4 / GRE(key_present=1, key=77) / DATAGRAM,
    "gretap": OUTER4 / GRE(proto=0x6558) / ENDS / DATAGRAM,
    "sit": OUTER4 / SIXES / UDP(sport=4000, dport=4001),
    "ip6 in ip6": SIXES / IPv6(src="fd01::1", dst="fd01::2") / UDP(sport=1, dport=2),
    "esp": OUTER4 / ESP(spi=0x100, seq=3, data=b"x" * 40),
    "ah": OUTER4 / AH(spi=0x101, seq=4) / (b"x" * 20),
    "mpls": MPLS(label=102, ttl=64, s=0) / MPLS(label=16, ttl=63, s=1) / DATAGRAM,
    "pppoe": PPPoE(sessionid=5) / PPP(proto=0x21) / DATAGRAM,
    "syn": INNER / SYN,
    "dns question": INNER / UDP(sport=4000, dport=53) / QUESTION,
    "dns answer": INNER / UDP(sport=53, dport=4000) / ANSWER,
    "port unreachable": INNER / ICMP(type=3, code=3) / INNER / UDP(sport=1, dport=4999),
    "time exceeded": INNER / ICMP(type=11) / INNER / UDP(sport=1, dport=2),
    "neighbour": SIXES / ICMPv6ND_NS(tgt="fd00::7"),
    "sctp": INNER / SCTP(sport=1, dport=2) / SCTPChunkInit(init_tag=1),
    "igmp": INNER / Raw(bytes([0x16, 0, 0, 0]) + bytes([239, 1, 2, 3])),
}
KINDS["igmp"][IP].proto = 2
#: What tells packets apart in tcpdump's lines.
TELLING = (
    r"(?:\d+\.){3}\d+(?:\.\d+)?|fd0\d::\d(?:\.\d+)?|spi=\w+,seq=\w+|label \d+|key=0x4d"
    r"|Flags \[.*?\]|options \[.*?\]"
    r"|AAAA\? \S+|A\? \S+|1/0/0|4660\+? |\w+ port \d+ unreachable|time exceeded"
    r"|who has|\[INIT\]|igmp v2 report|ttl \d+|length \d+"
)


@pytest.mark.parametrize("kind", KINDS)
def test_line_has_all_that_tcpdumps_line_has(kind: str, tmp_path: Path) -> None:
    packet = ENDS / KINDS[kind]
    frame, path = bytes(packet), str(tmp_path / "one.pcap")
    wrpcap(path, [packet])
    done = subprocess.run(["tcpdump", "-n", "-t", "-r", path], capture_output=True, text=True)
    ours = summarise(linktype.ETHERNET, frame, len(frame))
    telling = [each.lower().rstrip(",)") for each in re.findall(TELLING, done.stdout)]
    assert telling
    missing = [each for each in telling if each not in ours.lower()]
    # The length of an outer packet is not said where the inner one's is.
    assert [each for each in missing if not each.startswith("length")] == [], done.stdout + ours


def test_link_header_is_that_of_tcpdump(tmp_path: Path) -> None:
    for frame in (UDP4, TAGGED, ARP4):
        wrpcap(str(tmp_path / "one.pcap"), [Ether(frame)])
        done = subprocess.run(
            ["tcpdump", "-n", "-t", "-e", "-r", str(tmp_path / "one.pcap")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.startswith(link_header(linktype.ETHERNET, frame, len(frame)))
    assert link_header(linktype.RAW, UDP4[14:], 30) == ""


def test_packets_in_packets_end_somewhere() -> None:
    frame = bytes(ENDS / DATAGRAM)
    for _ in range(200):
        frame = bytes(ENDS / (OUTER4 / IP(frame[14:])))
    assert len(summarise(linktype.ETHERNET, frame, len(frame))) < 500
    tags = b"\x00\x01\x20\x40" * 3000
    assert len(summarise(linktype.ETHERNET, made(0x8847, tags), 12014)) < 1000


def test_dns_answer_without_data_is_said_by_its_type() -> None:
    answer = DNS(id=4660, qr=1, qd=DNSQR(qname="example.org"), an=DNSRR(type="TXT", rdata=[]))
    frame = bytes(ENDS / INNER / UDP(sport=53, dport=4000) / answer)
    assert frame.endswith(b"\0\0")
    assert "1/0/0 A? example.org. TXT" in summarise(linktype.ETHERNET, frame, len(frame))


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


@given(
    st.sampled_from(
        [UDP4, TCP4, PING4, PING6, ARP4, TWICE, OUTER, *(bytes(ENDS / k) for k in KINDS.values())]
    ),
    st.data(),
)
def test_whatever_is_cut_or_broken_is_said_somehow(frame: bytes, data: st.DataObject) -> None:
    broken = bytearray(frame[: data.draw(st.integers(0, len(frame)))])
    for at in data.draw(st.lists(st.integers(0, max(len(broken) - 1, 0)), max_size=4)):
        if broken:
            broken[at] = data.draw(st.integers(0, 255))
    assert summarise(linktype.ETHERNET, bytes(broken), len(frame))
