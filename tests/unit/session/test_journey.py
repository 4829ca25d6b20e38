# SPDX-License-Identifier: Apache-2.0
"""Ways of packets are put together from sights of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP

from kcap.packet import linktype
from kcap.packet.decode import Packet
from kcap.session.follow_conntrack import connection
from kcap.session.follow_text import TextWays, as_json, duration
from kcap.session.journey import Copied, Freed, Function, Journey, Stacked, Tracked, Tracker
from kcap.session.namespaces import NetnsNames

NAMES = {1: ("ip_rcv", ""), 2: ("nf_nat_packet", "nf_nat"), 3: ("__udp_enqueue_schedule_skb", ""),
         5: ("kfree_skb_partial", ""), 6: ("tpacket_rcv", ""), 7: ("packet_rcv", ""),
         8: ("packet_recvmsg", ""), 9: ("skb_release_data", ""),
         10: ("__packet_rcv_has_room", "")}  # fmt: skip
REALTIME = 1_700_000_000_000_000_000


def symbol(address: int) -> tuple[Function, int]:
    name, module = NAMES.get(address & 0xFF, ("free_it", ""))
    return Function(name, module), address >> 8


def sight(at: int, where: int, skb: int = 0x10, source: str = "10.0.0.1", mark: int = 0) -> Packet:
    data = bytes(IP(src=source, dst="10.0.0.2", id=1) / UDP(sport=1, dport=2))
    return Packet(
        time_ns=REALTIME + at, mono_ns=at, site=0, path="", probe="", function="first",
        link_type=linktype.RAW, data=data, original_length=len(data), interface="eth0", ifindex=2,
        netns=40, direction="in", protocol=0x800, vlan=None, mark=mark, queue=0, skb=skb, pid=7,
        tid=7, comm="ping", cpu=1, made_header=False, linear_only=True, address=where,
    )  # fmt: skip


def ended(tracker: Tracker, freed: Freed) -> Journey:
    """The way of a packet that is on its way until it is freed."""
    journey = tracker.freed(freed)
    assert journey is not None
    return journey


def test_way_has_functions_times_and_changes() -> None:
    tracker = Tracker(symbol)
    tracker.seen(sight(1000, 1))
    tracker.seen(sight(3000, 2, source="192.0.2.1", mark=5))
    journey = ended(tracker, Freed(4500, 0x10, "dropped", "NO_SOCKET", 0x1F04))
    assert [(step.delta_ns, step.function, list(map(str, step.changes)))
            for step in journey.steps] == [
        (0, ("ip_rcv", ""), []),
        (2000, ("nf_nat_packet", "nf_nat"), ["ip.src 10.0.0.1 -> 192.0.2.1", "mark 0x0 -> 0x5"]),
    ]  # fmt: skip
    assert str(journey.end) == "dropped: NO_SOCKET at free_it+31"
    assert journey.what == "IP 10.0.0.1.1 > 10.0.0.2.2: UDP, length 0"
    assert tracker.active == {}


def test_queued_packet_was_handed_to_a_socket_whoever_frees_it() -> None:
    tracker = Tracker(symbol)
    tracker.seen(sight(1000, 3))
    journey = ended(tracker, Freed(9000, 0x10, "consumed", "", 4))
    assert str(journey.end) == "handed to a socket by __udp_enqueue_schedule_skb"


def test_packet_whose_data_became_anothers_was_joined() -> None:
    tracker = Tracker(symbol)
    tracker.seen(sight(1000, 1))
    journey = ended(tracker, Freed(9000, 0x10, "freed", "", 0x405))
    assert str(journey.end) == "joined to another packet at kfree_skb_partial"


def test_headers_that_are_being_made_are_no_differences() -> None:
    tracker = Tracker(symbol)
    for at, (length, source_port) in enumerate([(0, 0), (0, 9), (28, 9), (28, 7)]):
        made = sight(at, 1)
        headers = IP(src="10.0.0.1", dst="10.0.0.2", len=length) / UDP(sport=source_port, dport=53)
        made.link_type, made.made_header = linktype.ETHERNET, True
        made.data = bytes(12) + b"\x08\x00" + bytes(headers)
        made.original_length = len(made.data)
        tracker.seen(made)
    (journey,) = tracker.rest()
    changed = [list(map(str, step.changes)) for step in journey.steps]
    assert changed == [[], [], [], ["udp.src 9 -> 7"]]
    assert journey.what == "IP 10.0.0.1.9 > 10.0.0.2.53: UDP, length 0"


def made_here(at: int, protocol: int, headers: bytes) -> Packet:
    """A packet that is being made, with no Ethernet header yet."""
    made = sight(at, 1)
    made.link_type, made.made_header, made.protocol = linktype.ETHERNET, True, protocol
    made.data = bytes(12) + protocol.to_bytes(2) + headers
    made.original_length = len(made.data)
    return made


@pytest.mark.parametrize(
    ("protocol", "early", "whole", "what"),
    [
        (linktype.ETH_P_ARP, bytes(28), bytes(ARP(psrc="10.0.0.1", pdst="10.0.0.2")),
         "ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28"),
        (linktype.ETH_P_IPV6, bytes(IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=0, dport=0)),
         bytes(IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=1, dport=2)),
         "IP6 fd00::1.1 > fd00::2.2: UDP, length 0"),
        (linktype.ETH_P_IP, b"", bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2)),
         "IP 10.0.0.1.1 > 10.0.0.2.2: UDP, length 0"),
    ],
)  # fmt: skip
def test_packet_is_told_by_the_headers_it_gets_last(
    protocol: int, early: bytes, whole: bytes, what: str
) -> None:
    tracker = Tracker(symbol)
    tracker.seen(made_here(1000, protocol, early))
    tracker.seen(made_here(2000, protocol, whole))
    (journey,) = tracker.rest()
    assert journey.what == what
    assert [step.changes for step in journey.steps] == [[], []]


def test_outer_header_is_no_difference_of_arp_that_is_put_into_a_tunnel() -> None:
    """udp_tunnel_xmit_skb() hands on what is not yet a packet of IP by skb->protocol."""
    arp, outer = bytes(ARP(psrc="10.0.0.1")), bytes(IP(dst="10.9.0.2") / UDP() / bytes(40))
    tracker = Tracker(symbol)
    for at, data in enumerate((arp, outer, arp)):
        tracker.seen(made_here(at, linktype.ETH_P_ARP, data))
    (journey,) = tracker.rest()
    assert [step.changes for step in journey.steps] == [[], [], []]


def test_packet_that_a_tap_looked_at_goes_on() -> None:
    tracker = Tracker(symbol)
    tracker.seen(sight(1000, 6))
    tracker.seen(sight(2000, 1))
    journey = ended(tracker, Freed(9000, 0x10, "consumed", "", 0x104))
    assert str(journey.end) == "consumed at free_it+1"
    tracker.seen(sight(1000, 6))
    tracker.seen(sight(2000, 0xA))
    journey = ended(tracker, Freed(9000, 0x10, "consumed", "", 0x106))
    assert str(journey.end) == "handed to a socket by tpacket_rcv"


def test_copy_for_a_packet_socket_is_handed_to_it() -> None:
    tracker = Tracker(symbol)
    tracker.seen(sight(1000, 7))
    tracker.copied(Copied(2000, 0x10, 0x20))
    copy = ended(tracker, Freed(3500, 0x20, "consumed"))
    assert str(copy.end) == "handed to a socket by packet_rcv"
    original = ended(tracker, Freed(3500, 0x10, "consumed", "", 0x104))
    assert str(original.end) == "consumed at free_it+1"
    tracker.seen(sight(4000, 7))
    read = ended(tracker, Freed(4500, 0x10, "consumed", "", 0x108))
    assert str(read.end) == "handed to a socket by packet_recvmsg"


def test_fragments_of_a_whole_packet_are_joined_though_older_kernels_drop_them() -> None:
    """Up to 6.1 skb_release_data() frees what hangs on a packet by kfree_skb_list()."""
    for reason, end in (("NOT_SPECIFIED", "joined"), ("", "joined"), ("NO_SOCKET", "dropped")):
        tracker = Tracker(symbol)
        tracker.seen(sight(1000, 1))
        journey = ended(tracker, Freed(2000, 0x10, "dropped", reason, 0x109))
        assert journey.end.kind == end


def test_part_of_a_tunnels_header_is_no_difference() -> None:
    """vxlan_build_skb() pushes its 8 bytes long before there is an outer packet."""
    whole, part = sight(1000, 1), sight(2000, 2)
    part.data = bytes.fromhex("0800000000002a00") + whole.data
    part.link_type = linktype.ETHERNET
    tracker = Tracker(symbol)
    for one in (whole, part, sight(3000, 1), sight(4000, 2, source="192.0.2.1")):
        tracker.seen(one)
    (journey,) = tracker.rest()
    changed = [list(map(str, step.changes)) for step in journey.steps]
    assert changed == [[], [], [], ["ip.src 10.0.0.1 -> 192.0.2.1"]]


def test_what_connection_tracking_knows_is_a_change() -> None:
    tracker = Tracker(symbol)
    one, two, nine = ((2, bytes([10, 0, 0, n]).ljust(16, b"\0")) for n in (1, 2, 9))
    flow = [2, 1 << 3, 0, 17, one, 9, two, 53, two, 53, one, 9]
    natted = [2, 1 << 3 | 1 << 5, 7, 17, *flow[4:8], nine, 5353, *flow[10:]]
    tracker.tracked(Tracked(500, 0x10, connection(flow)))
    tracker.seen(sight(1000, 1))
    tracker.tracked(Tracked(1500, 0x10, connection(flow)))
    tracker.seen(sight(2000, 1))
    tracker.tracked(Tracked(2500, 0x10, connection(natted)))
    tracker.seen(sight(3000, 2))
    tracker.tracked(Tracked(3500, 0x10, connection([0])))
    tracker.seen(sight(4000, 1))
    (journey,) = tracker.rest()
    assert [step.delta_ns for step in journey.steps] == [0, 1000, 2000, 3000]
    assert [list(map(str, step.changes)) for step in journey.steps] == [
        ["+ ct new udp 10.0.0.1.9 > 10.0.0.2.53, reply 10.0.0.2.53 > 10.0.0.1.9"],
        [],
        [
            "ct.reply 10.0.0.2.53 > 10.0.0.1.9 -> 10.0.0.9.5353 > 10.0.0.1.9",
            "ct.status confirmed -> confirmed,dst-nat",
            "ct.mark 0x0 -> 0x7",
        ],
        ["- ct new udp 10.0.0.1.9 > 10.0.0.2.53, reply 10.0.0.9.5353 > 10.0.0.1.9"],
    ]


def test_call_stack_belongs_to_the_next_sight() -> None:
    tracker = Tracker(symbol)
    tracker.seen(sight(1000, 1))
    tracker.stacked(Stacked(1500, 0x10, ["ip_rcv+1", "process_backlog+2"]))
    tracker.seen(sight(2000, 2))
    (journey,) = tracker.rest()
    assert [step.stack for step in journey.steps] == [(), ["ip_rcv+1", "process_backlog+2"]]
    assert [line.strip() for line in TextWays().lines(journey)][-3:-1] == [
        "ip_rcv+1", "process_backlog+2",
    ]  # fmt: skip
    assert as_json(journey)["steps"][1]["stack"] == ["ip_rcv+1", "process_backlog+2"]


def test_copy_has_a_way_of_its_own() -> None:
    tracker = Tracker(symbol)
    tracker.seen(sight(1000, 1))
    tracker.copied(Copied(2000, 0x10, 0x20))
    tracker.seen(sight(3000, 2, skb=0x20))
    copy = ended(tracker, Freed(3500, 0x20, "consumed"))
    assert (copy.id, copy.copy_of, copy.sights, copy.what) == (
        2, 1, 1, "IP 10.0.0.1.1 > 10.0.0.2.2: UDP, length 0",
    )  # fmt: skip
    (rest,) = tracker.rest()
    assert [step.copy for step in rest.steps] == [0, 2]
    assert str(rest.end) == "still on its way"


def test_address_is_another_packets_once_it_was_freed() -> None:
    tracker = Tracker(symbol)
    tracker.seen(sight(1000, 1))
    tracker.freed(Freed(1500, 0x10, "freed"))
    tracker.seen(sight(2000, 1))
    assert [journey.id for journey in tracker.rest()] == [2]
    assert tracker.freed(Freed(2500, 0x99, "dropped")) is None


def test_text_is_a_block_a_packet() -> None:
    tracker = Tracker(symbol)
    tracker.seen(sight(1000, 1))
    tracker.seen(sight(3500, 2, source="192.0.2.1"))
    journey = ended(tracker, Freed(4500, 0x10, "dropped", "NO_SOCKET", 0x1F04))
    head, *lines = TextWays().lines(journey)
    assert head.startswith("packet 1: IP 10.0.0.1.1 > 10.0.0.2.2: UDP, length 0  ")
    assert [line.split() for line in lines] == [
        ["0.0", "us", "+0.0", "us", "ip_rcv", "eth0", "netns", "40", "cpu", "1", "ping[7]"],
        ["2.5", "us", "+2.5", "us", "nf_nat_packet", "[nf_nat]"],
        ["~", "ip.src", "10.0.0.1", "->", "192.0.2.1"],
        ["3.5", "us", "=", "dropped:", "NO_SOCKET", "at", "free_it+31"],
    ]
    assert "\x1b" not in "".join(lines)
    assert "\x1b[1;31m= dropped" in "".join(TextWays(colours=True).lines(journey))


def test_brief_text_has_what_is_new() -> None:
    tracker = Tracker(symbol)
    for at in range(1000, 5000, 1000):
        tracker.seen(sight(at, 1))
    tracker.seen(sight(5000, 2, source="192.0.2.1"))
    tracker.copied(Copied(6000, 0x10, 0x20))
    for at in range(7000, 10000, 1000):
        tracker.seen(sight(at, 1, source="192.0.2.1"))
    (journey, _) = tracker.rest()
    _, *lines = TextWays(brief=True).lines(journey)
    assert [" ".join(line.split()) for line in lines] == [
        "0.0 us +0.0 us ip_rcv eth0 netns 40 cpu 1 ping[7]", "... 3 more",
        "4.0 us +4.0 us nf_nat_packet [nf_nat]", "~ ip.src 10.0.0.1 -> 192.0.2.1",
        "5.0 us +1.0 us copied: the copy is packet 2", "... 2 more",
        "8.0 us +3.0 us ip_rcv", "= still on its way",
    ]  # fmt: skip


def test_namespaces_have_their_names(tmp_path: Path) -> None:
    web = tmp_path / "web"
    web.touch()
    tracker = Tracker(symbol)
    for at, netns in ((1000, 40), (2000, web.stat().st_ino)):
        one = sight(at, 1)
        one.netns = netns
        tracker.seen(one)
    (journey,) = tracker.rest()
    _, *lines = TextWays(netns=NetnsNames(str(tmp_path))).lines(journey)
    assert lines[1].endswith("eth0 netns web cpu 1 ping[7]")
    assert lines[2].endswith("~ netns 40 -> web")


def test_json_says_the_same() -> None:
    tracker = Tracker(symbol)
    tracker.seen(sight(1000, 1))
    journey = ended(tracker, Freed(4500, 0x10, "dropped", "NO_SOCKET", 0x1F04))
    said = as_json(journey)
    assert said["end"] == {
        "kind": "dropped", "reason": "NO_SOCKET", "place": "free_it+31", "delta": 3500,
        "text": "dropped: NO_SOCKET at free_it+31",
    }  # fmt: skip
    assert said["steps"][0] == {
        "delta": 0, "function": "ip_rcv", "module": None, "interface": "eth0", "netns": 40,
        "mark": 0, "length": 28, "cpu": 1, "pid": 7, "comm": "ping", "changes": [], "stack": None,
    }  # fmt: skip
    assert (said["packet"], said["copy_of"], said["skb"]) == (1, None, "0x10")


def test_spans_have_units_that_suit_them() -> None:
    assert [duration(n) for n in (150, 2_500_000, 25_000_000, 12_000_000_000)] == [
        "0.1 us", "2500.0 us", "25.0 ms", "12.0 s",
    ]  # fmt: skip
