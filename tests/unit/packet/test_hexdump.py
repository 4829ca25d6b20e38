# SPDX-License-Identifier: Apache-2.0
"""Bytes of packets under their lines: tcpdump prints the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet
from scapy.utils import wrpcap

from kcap.packet import linktype
from kcap.packet.hexdump import ascii_text, behind_link_header, hex_lines

HTTP = b"GET / HTTP/1.1\r\nHost:\ta\r\n\r\n\x00\xff\x7f odd"
ENDS = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
INNER = IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2, flags="PA") / HTTP


def tcpdumps(packet: Packet, option: str, directory: Path) -> str:
    """What tcpdump prints under the line of a packet."""
    path = str(directory / "one.pcap")
    wrpcap(path, [packet])
    command = ["tcpdump", "-n", "-t", option, "-r", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.partition("\n")[2]


@pytest.mark.parametrize("packet", [ENDS / INNER, ENDS / Dot1Q(vlan=5) / INNER])
def test_bytes_are_those_of_tcpdump(packet: Packet, tmp_path: Path) -> None:
    frame = bytes(packet)
    inner = behind_link_header(linktype.ETHERNET, frame)
    assert "\n".join([*hex_lines(inner), ""]) == tcpdumps(packet, "-x", tmp_path)
    assert "\n".join([*hex_lines(frame), ""]) == tcpdumps(packet, "-xx", tmp_path)
    both = "\n".join([*hex_lines(inner, ascii_too=True), ""])
    assert both == tcpdumps(packet, "-X", tmp_path)
    both = "\n".join([*hex_lines(frame, ascii_too=True), ""])
    assert both == tcpdumps(packet, "-XX", tmp_path)
    assert ascii_text(inner) + "\n" == tcpdumps(packet, "-A", tmp_path)


def test_raw_ip_has_no_link_header_to_leave_out() -> None:
    assert behind_link_header(linktype.RAW, bytes(INNER)) == bytes(INNER)
    assert list(hex_lines(b"")) == []
