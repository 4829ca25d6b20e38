# SPDX-License-Identifier: Apache-2.0
"""The lines of ``kcap capture``: times and bytes as tcpdump's options have them."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from kcap.cli.capture import _parser
from kcap.cli.packet_lines import PacketLines
from kcap.packet.decode import Packet
from kcap.records import replace

FRAME = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(
    src="10.0.0.1", dst="10.0.0.2"
) / UDP(sport=1, dport=2) / b"hello"  # fmt: skip
PACKET = Packet(
    time_ns=1_700_000_000_000_001_000, mono_ns=1, site=0, path="", probe="", function="ip_rcv",
    link_type=1, data=bytes(FRAME), original_length=len(FRAME), interface="eth0", ifindex=2,
    netns=40, direction="in", protocol=0x800, vlan=None, mark=5, queue=0, skb=0xF00, pid=7, tid=7,
    comm="nc", cpu=1, made_header=False, linear_only=False,
)  # fmt: skip
SAID = "eth0 in ip_rcv nc[7] IP 10.0.0.1.1 > 10.0.0.2.2: UDP, length 5"


def lines(*options: str) -> PacketLines:
    return PacketLines(_parser().parse_args(["ip_rcv", *options]))


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(
    ("option", "first", "second"),
    [
        ("-n", "22:13:20.000001 ", "22:13:21.500001 "),
        ("-t", "", ""),
        ("-tt", "1700000000.000001 ", "1700000001.500001 "),
        ("-ttt", "00:00:00.000000 ", "00:00:01.500000 "),
        ("-tttt", "2023-11-14 22:13:20.000001 ", "2023-11-14 22:13:21.500001 "),
        ("-ttttt", "00:00:00.000000 ", "00:00:01.500000 "),
    ],
)
def test_times_are_those_of_tcpdump(option: str, first: str, second: str) -> None:
    made = lines(option)
    later = replace(PACKET, time_ns=PACKET.time_ns + 1_500_000_000)
    assert made.text(PACKET) == f"{first}{SAID}\n"
    assert made.text(later) == f"{second}{SAID}\n"
    back = made.text(PACKET)
    assert back == f"{'-00:00:01.500000 ' if option == '-ttt' else first}{SAID}\n"


@pytest.mark.parametrize("option", ["-x", "-xx", "-X", "-XX", "-A"])
def test_bytes_stand_below_the_line(option: str) -> None:
    head, *rest = lines("-t", option).text(PACKET).splitlines()
    assert head == SAID
    if option == "-A":
        assert "hello" in "\n".join(rest)
        return
    shown = bytes.fromhex("".join(line[9:50] for line in rest))
    assert shown == PACKET.data[0 if len(option) == 3 else 14 :]
    assert ("E..!" in rest[0]) == (option == "-X")


def test_made_header_is_not_shown_as_if_it_were_the_packets() -> None:
    made = replace(PACKET, made_header=True)
    assert lines("-t", "-e", "-xx").text(made) == lines("-t", "-x").text(PACKET)


def test_missing_fragments_are_said_only_where_bytes_are_missing() -> None:
    linear = replace(PACKET, linear_only=True)
    assert lines("-t").text(linear) == f"{SAID}\n"
    linear.original_length += 1000
    assert lines("-t").text(linear).endswith(" (without the 1000 bytes in fragments)\n")
    assert lines("-t", "-s", "64").text(linear) == f"{SAID}\n"


def test_link_layer_and_details_are_said_if_wanted() -> None:
    assert lines("-t", "-e", "-v").text(PACKET) == (
        "eth0 in ip_rcv nc[7] 02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype IPv4 (0x0800), "
        "length 47: IP 10.0.0.1.1 > 10.0.0.2.2: UDP, length 5 | cpu 1 netns 40 mark 0x5 0xf00\n"
    )
