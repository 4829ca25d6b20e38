# SPDX-License-Identifier: Apache-2.0
"""From records to frames: every situation, the offset argument, other files' link types."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.functions import skb_record as layout
from kcap.packet import linktype
from kcap.packet.decode import PacketDecoder
from kcap.packet.frame import Frame, convert, ethernet_header, finish
from kcap.packet.record import Names, RecordError, Site, unpack
from unit.packet import skb_samples as s
from unit.packet.situations import (
    ALL,
    ARP4,
    PING4,
    PPP,
    TAGGED,
    TUN,
    TWICE,
    UDP4,
    Situation,
    made,
    tag_of,
    untagged,
)


def frame_of(skb: s.Skb, function: str = "", **more: int) -> Frame:
    sample = s.sample(skb, **more)  # type: ignore[arg-type]
    return finish(sample, unpack(sample), function)


@pytest.mark.parametrize("situation", ALL, ids=lambda each: each.name)
def test_frame_is_ethernet_with_every_byte_and_its_length(situation: Situation) -> None:
    frame = frame_of(situation.skb)
    assert frame == Frame(linktype.ETHERNET, situation.frame, len(situation.frame))


@pytest.mark.parametrize("situation", ALL, ids=lambda each: each.name)
def test_frame_cut_short_keeps_its_original_length(situation: Situation) -> None:
    frame = frame_of(situation.skb, length=30)
    assert frame.original_length == len(situation.frame)
    assert situation.frame.startswith(frame.data)
    assert len(frame.data) <= len(situation.frame)


def test_vlan_tag_is_left_out_when_the_capture_ends_inside_the_addresses() -> None:
    skb = replace(s.sent(untagged(TAGGED)), vlan=tag_of(TAGGED))
    assert frame_of(skb, length=11).data == TAGGED[:11]
    assert frame_of(skb, length=12).data == TAGGED[:16]


def test_function_tells_where_data_stand_when_the_skb_does_not() -> None:
    skb = s.Skb(bytes(66) + UDP4, 66, layout.MAC_UNSET, 0, 0, None)
    assert frame_of(skb, "eth_type_trans").data == UDP4
    assert frame_of(skb, "consume_skb").data == made(0x88B5, UDP4)


def test_llc_behind_a_made_header_gets_its_length_as_the_type_field() -> None:
    llc = bytes.fromhex("424203") + bytes(35)
    skb = replace(s.at_network(llc), protocol=0x0004)
    assert frame_of(skb).data == bytes(12) + (38).to_bytes(2) + llc


class TestOffsetArgument:
    def test_of_14_at_the_mac_header_gives_raw_ip(self) -> None:
        frame = frame_of(s.sent(UDP4), offset=14)
        assert frame == Frame(linktype.RAW, UDP4[14:], len(UDP4) - 14)

    def test_counts_the_length_from_where_the_capture_starts(self) -> None:
        frame = frame_of(s.sent(UDP4), offset=14, length=20)
        assert frame == Frame(linktype.RAW, UDP4[14:34], len(UDP4) - 14)

    def test_behind_a_tag_in_the_data_gives_raw_ip(self) -> None:
        skb = s.sent(TAGGED, network=66 + 18)
        assert frame_of(skb, offset=18) == Frame(linktype.RAW, TAGGED[18:], len(TAGGED) - 18)

    def test_that_ends_in_a_tag_is_called_user_defined(self) -> None:
        skb = s.sent(TAGGED, network=66 + 18)
        assert frame_of(skb, offset=14) == Frame(linktype.USER0, TAGGED[14:], len(TAGGED) - 14)

    def test_with_an_offloaded_tag_gives_raw_ip(self) -> None:
        skb = replace(s.sent(untagged(TAGGED)), vlan=tag_of(TAGGED))
        assert frame_of(skb, offset=14).data == TAGGED[18:]

    def test_at_the_network_header_of_arp_gets_a_made_ethernet_header(self) -> None:
        frame = frame_of(s.sent(ARP4), offset=14)
        assert frame == Frame(linktype.ETHERNET, made(0x0806, ARP4[14:]), len(ARP4))

    def test_behind_a_foreign_link_header_gives_raw_ip(self) -> None:
        skb = replace(
            s.at_network(b"\xff\x03\x00\x21" + UDP4[14:], dev=PPP, network=84), protocol=0x0800
        )
        assert frame_of(skb, offset=4) == Frame(linktype.RAW, UDP4[14:], len(UDP4) - 14)

    def test_behind_the_network_header_is_called_user_defined(self) -> None:
        assert frame_of(s.received(UDP4), offset=14).link_type == linktype.USER0
        assert frame_of(s.received(PING4).pulled(20), offset=8).link_type == linktype.USER0
        assert frame_of(s.at_network(UDP4[14:], dev=TUN), offset=20).data == UDP4[34:]

    def test_that_leads_to_the_mac_header_gives_ethernet(self) -> None:
        skb = s.Skb(bytes(66) + b"TUNL" + UDP4, 66, 70, 84)
        assert frame_of(skb, offset=4) == Frame(linktype.ETHERNET, UDP4, len(UDP4))

    def test_beyond_the_end_gives_no_bytes(self) -> None:
        assert frame_of(s.sent(UDP4), offset=5000) == Frame(linktype.USER0, b"", 0)

    def test_at_an_unknown_position_is_called_user_defined(self) -> None:
        skb = s.Skb(b"\x14\0\0\0netlink", 0, layout.MAC_UNSET, 0, 0, None)
        assert frame_of(skb, offset=4) == Frame(linktype.USER0, b"netlink", 7)

    def test_in_a_driver_before_headers_are_set_gives_raw_ip(self) -> None:
        skb = s.Skb(bytes(66) + UDP4, 66, layout.MAC_UNSET, 0, 0, None)
        assert frame_of(skb, "eth_type_trans", offset=14).link_type == linktype.RAW


class TestConvert:
    def test_raw_ip_gets_a_made_header_in_an_ethernet_file(self) -> None:
        raw = Frame(linktype.RAW, UDP4[14:], 100)
        expected = Frame(linktype.ETHERNET, made(0x0800, UDP4[14:]), 114)
        assert convert(raw, linktype.ETHERNET) == expected

    def test_ethernet_and_its_tags_are_taken_off_in_a_raw_file(self) -> None:
        frame = Frame(linktype.ETHERNET, TWICE, len(TWICE))
        assert convert(frame, linktype.RAW) == Frame(linktype.RAW, TWICE[22:], len(TWICE) - 22)

    def test_arp_does_not_fit_a_raw_file(self) -> None:
        assert convert(Frame(linktype.ETHERNET, ARP4, len(ARP4)), linktype.RAW) is None

    def test_an_undescribed_position_is_experimental_data_in_an_ethernet_file(self) -> None:
        frame = convert(Frame(linktype.USER0, b"xyz", 9), linktype.ETHERNET)
        assert frame == Frame(linktype.ETHERNET, made(0x88B5, b"xyz"), 23)

    def test_nothing_becomes_user_defined(self) -> None:
        assert convert(Frame(linktype.RAW, UDP4[14:], 9), linktype.USER0) is None

    @given(
        st.sampled_from([linktype.ETHERNET, linktype.RAW, linktype.USER0]),
        st.binary(max_size=80),
        st.sampled_from([linktype.ETHERNET, linktype.RAW, linktype.USER0]),
    )
    def test_never_claims_more_bytes_than_the_packet_had(
        self, kind: int, data: bytes, target: int
    ) -> None:
        frame = convert(Frame(kind, data, len(data)), target)
        assert frame is None or (
            frame.link_type == target and frame.original_length >= len(frame.data)
        )


@pytest.mark.parametrize(
    ("data", "expected"),
    [(UDP4, (14, 0x0800)), (TAGGED, (18, 0x0800)), (TWICE, (22, 0x0800)), (b"short", (14, 0)),
     (TAGGED[:15], (18, 0))],
)  # fmt: skip
def test_ethernet_header_is_measured_with_its_tags(data: bytes, expected: tuple[int, int]) -> None:
    assert ethernet_header(data) == expected


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_decoded_but_never_crashes(garbage: bytes) -> None:
    decoder = PacketDecoder([], Names({}))
    try:
        decoder.decode(garbage)
    except RecordError:
        assert True


@given(st.data())
def test_any_bit_flips_in_the_fixed_part_still_give_a_frame(data: st.DataObject) -> None:
    sample = bytearray(s.sample(s.received(UDP4)))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(18, layout.FIXED_SIZE - 1))
        sample[at] = data.draw(st.integers(0, 255))
    frame = finish(bytes(sample), unpack(bytes(sample)))
    assert frame.link_type in linktype.NAMES


class TestDecoder:
    decoder = PacketDecoder(
        [Site(1, "a.pcap")], Names({1: "fentry:ip_rcv"}, symbol=lambda address: "ip_rcv_core")
    )

    def test_packet_carries_what_the_kernel_knew(self) -> None:
        skb = s.received(UDP4, mark=0x10, skb_iif=7, queue=3, vlan=(0x8100, 5))
        packet = self.decoder.decode(s.sample(skb, mono_ns=5, cpu=1))
        assert packet.time_ns == s.REALTIME_OFFSET + 5
        assert packet.mono_ns == 5
        assert (packet.site, packet.path, packet.probe) == (1, "a.pcap", "fentry:ip_rcv")
        assert packet.function == "ip_rcv"
        assert (packet.interface, packet.ifindex, packet.netns) == ("veth0", 7, 4026531992)
        assert (packet.pid, packet.tid, packet.comm, packet.cpu) == (4242, 4242, "curl", 1)
        assert (packet.mark, packet.queue, packet.direction) == (0x10, 3, "in")
        assert (packet.protocol, packet.vlan) == (0x0800, (0x8100, 5))
        assert packet.skb == skb.address
        assert packet.data == UDP4[:12] + bytes.fromhex("81000005") + UDP4[12:]
        assert not packet.made_header
        assert not packet.linear_only

    def test_function_of_a_probe_on_many_is_named(self) -> None:
        packet = self.decoder.decode(s.sample(s.received(UDP4), func=0xFFFFFFFF81000000))
        assert packet.probe == "fentry:ip_rcv (ip_rcv_core)"
        assert packet.function == "ip_rcv_core"

    def test_stale_tag_that_is_not_valid_is_not_told(self) -> None:
        assert self.decoder.decode(s.sample(s.received(UDP4))).vlan is None

    @pytest.mark.parametrize(
        ("skb", "expected"),
        [
            (s.received(UDP4), "in"),
            (s.received(UDP4, skb_iif=7), "in"),
            (s.sent(UDP4, skb_iif=3), "out"),
            (s.sent(UDP4, sk=True), "out"),
            (s.sent(UDP4), ""),
            (s.at_network(UDP4[14:], dev=None, skb_iif=3), ""),
        ],
    )
    def test_direction_is_told_only_when_known(self, skb: s.Skb, expected: str) -> None:
        assert self.decoder.decode(s.sample(skb)).direction == expected

    @pytest.mark.parametrize(
        ("function", "skb", "expected"),
        [
            # br_pass_frame_up(): the device is the bridge, skb_iif still that of its port.
            ("netif_receive_skb", s.received(UDP4, skb_iif=3), "in"),
            ("__dev_queue_xmit", s.sent(UDP4), "out"),  # ARP: of no socket
            ("ip_rcv", s.received(UDP4), "in"),
        ],
    )
    def test_direction_is_that_of_functions_on_one_way(
        self, function: str, skb: s.Skb, expected: str
    ) -> None:
        decoder = PacketDecoder([], Names({1: f"fentry:{function}"}))
        assert decoder.decode(s.sample(skb)).direction == expected

    def test_sample_shorter_than_its_lengths_is_refused(self) -> None:
        sample = s.sample(s.received(UDP4))
        with pytest.raises(RecordError, match="claims to have"):
            self.decoder.decode(sample[:-16])
        with pytest.raises(RecordError, match="at least 152 expected"):
            self.decoder.decode(sample[:100])
