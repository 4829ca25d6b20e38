# SPDX-License-Identifier: Apache-2.0
"""Packets in a few words: where tcpdump's words are kept to the letter."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.layers.dhcp import BOOTP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6MLDMultAddrRec,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import ARP, LLC, SNAP, STP, Dot3, Ether
from scapy.layers.ntp import NTP
from scapy.layers.sctp import (
    SCTP,
    SCTPChunkData,
    SCTPChunkInit,
    SCTPChunkInitAck,
    SCTPChunkSACK,
    SCTPChunkShutdown,
)
from scapy.utils import wrpcap

from kcap.packet import linktype
from kcap.packet.summary import summarise

ENDS = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
OUTER4, INNER = IP(src="192.0.2.1", dst="192.0.2.2"), IP(src="10.0.0.1", dst="10.0.0.2")
SIXES = IPv6(src="fd00::1", dst="fd00::2")
DATAGRAM = INNER / UDP(sport=4000, dport=4001) / b"inner"
QUOTED6 = IPv6(src="fd00::2", dst="fd00::1") / UDP(sport=5, dport=6)
SCTP_ENDS = INNER / SCTP(sport=4000, dport=4001)
STREAM = INNER / TCP(sport=1, dport=80, flags="PA", seq=100, ack=7)
#: What is said in tcpdump's very words.
SAME = [
    *(ENDS / ARP(op=op, psrc="10.0.0.1", pdst="10.0.0.2", hwsrc=ENDS.src) for op in (1, 2)),
    *(
        ENDS / INNER / ICMP(type=3, code=code, nexthopmtu=1400 * (code == 4)) / INNER / proto
        for code in range(16)
        for proto in (UDP(sport=1, dport=2), TCP(sport=1, dport=2))
    ),
    ENDS / INNER / ICMP(type=3, code=3) / IP(dst="10.0.0.2", proto=99) / b"1234",
    *(ENDS / INNER / ICMP(type=5, code=code, gw="10.0.0.9") / INNER / UDP() for code in range(4)),
    *(ENDS / INNER / ICMP(type=11, code=code) / INNER / UDP() for code in (0, 1)),
    ENDS / INNER / ICMP(type=12, ptr=3) / INNER / UDP(),
    ENDS / INNER / ICMP(type=13, id=5, seq=6),
    *(ENDS / INNER / ICMP(type=kind, id=5, seq=6) / b"data" for kind in (0, 8)),
    *(ENDS / SIXES / ICMPv6DestUnreach(code=code) / QUOTED6 for code in (0, 3, 4)),
    ENDS / SIXES / ICMPv6PacketTooBig(mtu=1280) / QUOTED6,
    *(ENDS / SIXES / ICMPv6TimeExceeded(code=code) / QUOTED6 for code in (0, 1)),
    *(ENDS / SIXES / ICMPv6ParamProblem(code=code, ptr=6) / QUOTED6 for code in (0, 1, 2)),
    ENDS / SIXES / ICMPv6ND_RS(),
    ENDS / SIXES / ICMPv6ND_RA(),
    ENDS / SIXES / ICMPv6ND_NA(tgt="fd00::2"),
    ENDS / SIXES / ICMPv6ND_Redirect(tgt="fd00::2", dst="fd00::3"),
    ENDS / SIXES / ICMPv6MLReport2(records=[ICMPv6MLDMultAddrRec(dst="ff02::fb")]),
    *(
        ENDS / IP(src="10.0.0.1", dst="239.1.2.3", proto=2) / bytes.fromhex(message)
        for message in (
            "1100000000000000", "1164000000000000", "110a0000ef010203", "16000000ef010203",
            "12000000ef010203", "17000000ef010203", "2200000000000001 04000000ef010203",
        )
    ),
    ENDS / SCTP_ENDS / SCTPChunkInit(init_tag=123, a_rwnd=99, n_out_streams=10, init_tsn=77),
    ENDS / SCTP_ENDS / SCTPChunkInitAck(init_tag=123, a_rwnd=99, n_out_streams=10, init_tsn=77),
    ENDS / SCTP_ENDS / SCTPChunkData(tsn=5, stream_id=1, stream_seq=2, proto_id=0, data=b"hello"),
    ENDS / SCTP_ENDS / SCTPChunkSACK(cumul_tsn_ack=5, a_rwnd=1000),
    ENDS / SCTP_ENDS / SCTPChunkShutdown(cumul_tsn_ack=6),
    ENDS / OUTER4 / UDP(sport=1, dport=6081) / GENEVE(vni=43, proto=0x6558) / ENDS / DATAGRAM,
    ENDS / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / UDP(sport=1, dport=2, len=3000) / b"1",
    *(ENDS / INNER / TCP(sport=1, dport=2, flags=flags, ack=7) for flags in ("A", "FA", "R", "")),
    *(ENDS / INNER / TCP(sport=1, dport=2, flags=each, urgptr=9) for each in ("FS", "SAE", "PUC")),
    ENDS / INNER / UDP(sport=1, dport=2, len=3) / b"short",
    ENDS / IP(src="10.0.0.1", dst="10.0.0.2", len=100) / UDP(sport=1, dport=2) / b"1",
    ENDS / IPv6(src="fd00::1", dst="fd00::2", nh=59),
    ENDS / IP(src="10.0.0.1", dst="10.0.0.2", proto=6) / b"\1\2\3",
    ENDS / STREAM / b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ENDS / STREAM / b"\x16\x03\x01 no text\r\n",
    Dot3(src=ENDS.src, dst="01:80:c2:00:00:00") / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP(),
    Dot3(src=ENDS.src, dst=ENDS.dst) / LLC() / SNAP(code=0x800) / DATAGRAM,
    ENDS / INNER / UDP(sport=68, dport=67) / BOOTP(chaddr=b"\2\0\0\0\0\1"),
    ENDS / INNER / UDP(sport=123, dport=123) / NTP(),
    ENDS / SIXES / UDP(sport=546, dport=547) / b"\1\0\0\1",
]  # fmt: skip


def test_line_is_tcpdumps_very_line(tmp_path: Path) -> None:
    path = str(tmp_path / "all.pcap")
    wrpcap(path, SAME)
    command = ["tcpdump", "-n", "-t", "-S", "-r", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ours = [summarise(linktype.ETHERNET, frame, len(frame)) for frame in map(bytes, SAME)]
    assert ours == [said.rstrip() for said in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("packet", "captured", "said"),
    [
        (INNER / TCP(sport=1, dport=2, options=[("MSS", 1460), ("WScale", 7)]), 44,
         "Flags [S], seq 0, win 8192, options [mss 1460[|tcp]], length 0"),
        (INNER / TCP(sport=1, dport=2), 30, "[|tcp]"),
        (INNER / TCP(sport=1, dport=2, dataofs=3), 40,
         "tcp 8 [bad hdr length 12 - too short, < 20]"),
        (INNER / UDP(sport=1, dport=2) / b"data", 26, "[|udp]"),
        (INNER / UDP(sport=1, dport=53) / DNS(id=5, qd=DNSQR(qname="example.org")), 45,
         "5+ [|domain] (29)"),
    ],
)  # fmt: skip
def test_what_is_cut_off_is_not_guessed(packet: IP, captured: int, said: str) -> None:
    frame = bytes(ENDS / packet)
    line = summarise(linktype.ETHERNET, frame[: 14 + captured], len(frame))
    assert line.partition(": ")[2] == said


def test_packets_longer_than_their_frame_say_how_much_is_missing() -> None:
    frame = bytes(
        ENDS / IPv6(src="fd00::1", dst="fd00::2", plen=100) / UDP(sport=1, dport=2) / b"1"
    )
    said = "IP6 truncated-ip6 - 91 bytes missing! fd00::1.1 > fd00::2.2: UDP, length 1"
    assert summarise(linktype.ETHERNET, frame, len(frame)) == said


def test_length_of_a_super_packet_without_one_is_the_frames() -> None:
    frame = bytes(
        ENDS / IP(src="10.0.0.1", dst="10.0.0.2", len=0) / TCP(sport=1, dport=2) / b"data"
    )
    assert summarise(linktype.ETHERNET, frame, len(frame)).endswith("length 4")


def test_bridges_other_messages_are_no_spanning_tree() -> None:
    frame = bytes(Dot3(src=ENDS.src, dst=ENDS.dst) / LLC(dsap=0x42, ssap=0x42, ctrl=0xF3) / b"test")
    assert summarise(linktype.ETHERNET, frame, len(frame)) == "802.3 STP, length 7"
