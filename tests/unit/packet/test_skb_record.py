# SPDX-License-Identifier: Apache-2.0
"""The record's layout, and where the algorithm finds an skb's data to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.functions import skb_record as layout
from kcap.packet.record import Record
from unit.packet import skb_samples as s
from unit.packet.situations import ALL, Situation


def test_fields_follow_each_other_without_gaps_and_aligned() -> None:
    at = 0
    for field in layout.FIELDS.values():
        assert field.offset == at
        assert field.offset % min(field.size, 8) == 0
        at += field.size
    assert at == layout.FIXED_SIZE


def test_pcap_header_and_tag_in_the_prefix_are_aligned() -> None:
    assert layout.PCAP_HEADER_OFFSET % 8 == 0
    assert (layout.PREFIX_OFFSET + 12) % 4 == 0


def test_fixed_part_and_longest_prefix_fit_a_small_scratch_buffer() -> None:
    assert layout.FIXED_SIZE <= 160
    assert layout.METADATA_MAX <= 320


def test_reader_names_the_fields_as_the_layout_does() -> None:
    assert Record._fields[: len(layout.FIELDS)] == tuple(layout.FIELDS)
    assert Record._fields[len(layout.FIELDS) :] == ("sec", "nsec", "caplen", "origlen")


@pytest.mark.parametrize("situation", ALL, ids=lambda each: each.name)
def test_position_of_data_is_found(situation: Situation) -> None:
    assert layout.place(s.state_of(situation.skb)).position == situation.position


STATES = st.builds(
    layout.SkbState,
    headroom=st.integers(0, 0x12000),
    mac_header=st.integers(0, 0xFFFF),
    network_header=st.integers(0, 0xFFFF),
    dev_valid=st.booleans(),
    dev_type=st.sampled_from([1, 772, 65534, 512, 768]),
    hard_header_len=st.sampled_from([0, 4, 14, 18, 20]),
    vlan=st.booleans(),
    protocol=st.sampled_from([0, 4, 0x0800, 0x86DD, 0x0806]),
    arg_offset=st.sampled_from([0, 14]),
)
NEAR = st.integers(0, 400).flatmap(
    lambda headroom: st.builds(
        layout.SkbState,
        headroom=st.just(headroom),
        mac_header=st.integers(max(headroom - 150, 0), headroom + 50),
        network_header=st.integers(max(headroom - 150, 0), headroom + 150),
        dev_type=st.sampled_from([1, 772, 65534]),
        hard_header_len=st.sampled_from([0, 14, 18]),
        vlan=st.booleans(),
    )
)


@given(STATES | NEAR)
def test_prefix_never_outgrows_its_room_and_only_copies_what_stands_before_data(
    state: layout.SkbState,
) -> None:
    placed = layout.place(state)
    assert 0 <= placed.prefix_len <= layout.MAX_PREFIX
    assert placed.copy_len >= 0
    assert placed.copy_from + placed.copy_len == state.headroom
    assert placed.made == bool(placed.flags & layout.FLAG_MADE_HEADER)


@given(STATES | NEAR)
def test_user_space_only_copies_when_an_ethernet_header_is_in_the_record(
    state: layout.SkbState,
) -> None:
    placed = layout.place(state)
    if not placed.flags & layout.FLAG_FIXUP:
        assert placed.position == layout.POSITION_MAC or placed.prefix_len >= layout.ETH_HLEN
