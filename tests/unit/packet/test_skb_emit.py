# SPDX-License-Identifier: Apache-2.0
"""The program that is emitted for skboutput() against the algorithm's reference, without a kernel.

The program is compiled for a small kernel and run by a BPF machine written in Python. What the
verifier says of it is for the live tests to ask.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcap.codegen.module import LOST
from kcap.functions import packet_site
from kcap.functions import skb_record as layout
from kcap.packet.frame import finish
from kcap.packet.record import unpack
from unit.packet import skb_samples as s
from unit.packet.emitted import DEVICE, NET, SKB, compiled, machine_for
from unit.packet.situations import ALL, PING6, PPP, TAGGED, TUN, TWICE, UDP4, VLAN, Situation


def sent(skb: s.Skb, *, length: str = "args.skb.len", offset: int = 0, vlan_all: bool) -> bytes:
    """The one sample that the program sends."""
    machine = machine_for(skb, length=length, offset=offset, vlan_all=vlan_all)
    machine.run(SKB)
    (sample,) = machine.samples
    return sample


def expected(skb: s.Skb, *, length: str = "args.skb.len", offset: int = 0) -> bytes:
    """The reference's sample."""
    number = skb.len if length == "args.skb.len" else int(length)
    skb = replace(skb, address=SKB)
    return s.sample(skb, site=0, probe=0, cpu=3, length=number, offset=offset)


def comparable(sample: bytes) -> tuple[dict[str, object], bytes]:
    """Fields and bytes, without what need not agree: a thread, a tag that is not valid."""
    record = unpack(sample)._asdict()
    del record["tid"]
    if not record["flags"] & layout.FLAG_VLAN_VALID:
        del record["vlan_tci"], record["vlan_proto"]
    return record, sample[layout.FIXED_SIZE :]


@pytest.mark.parametrize("vlan_all", [True, False], ids=["6.2 and later", "up to 6.1"])
@pytest.mark.parametrize("situation", ALL, ids=lambda each: each.name)
def test_every_situation_gives_the_record_of_the_reference(
    situation: Situation, vlan_all: bool
) -> None:
    sample = sent(situation.skb, vlan_all=vlan_all)
    assert comparable(sample) == comparable(expected(situation.skb))
    assert finish(sample, unpack(sample)).data == situation.frame


@pytest.mark.parametrize(
    ("length", "offset"), [("0", 0), ("10", 0), ("30", 14), ("100000", 0), ("20", 70000)]
)
@pytest.mark.parametrize("situation", ALL[::5], ids=lambda each: each.name)
def test_length_and_offset_are_clamped_as_in_the_reference(
    situation: Situation, length: str, offset: int
) -> None:
    sample = sent(situation.skb, length=length, offset=offset, vlan_all=True)
    assert comparable(sample) == comparable(expected(situation.skb, length=length, offset=offset))


def near(headroom: int) -> st.SearchStrategy[int]:
    telling = (0, 0xFFFF, headroom, *(headroom + length for length in layout.MAC_LENGTHS))
    return st.integers(max(headroom - 140, 0), headroom + 140) | st.sampled_from(telling)


#: Packets that start as a place may be told by, or as nothing.
PAYLOADS = st.builds(
    bytes.__add__,
    st.sampled_from((b"", UDP4[14:], PING6[14:], TAGGED[:18], TWICE[:22])),
    st.binary(max_size=200),
)


@st.composite
def skbs(draw: st.DrawFn) -> s.Skb:
    headroom = draw(st.integers(0, 300))
    payload = draw(PAYLOADS)
    head = bytes(number * 7 & 0xFF for number in range(headroom)) + payload
    devices = [None, s.Device(), TUN, PPP, VLAN, s.Device(type=772)]
    return s.Skb(
        head,
        headroom,
        draw(near(headroom)) & 0xFFFF,
        draw(near(headroom)) & 0xFFFF,
        draw(st.sampled_from([0, 4, 0x0600, 0x0800, 0x86DD])),
        draw(st.sampled_from(devices)),
        draw(st.none() | st.tuples(st.sampled_from([0x8100, 0x88A8]), st.integers(0, 0xFFFF))),
        mark=draw(st.integers(0, 0xFFFFFFFF)),
        skb_iif=draw(st.integers(0, 0x7FFFFFFF)),
        queue=draw(st.integers(0, 0xFFFF)),
        sk=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=300)
@given(skbs(), st.booleans())
def test_any_skb_gives_the_record_of_the_reference(skb: s.Skb, vlan_all: bool) -> None:
    assert comparable(sent(skb, vlan_all=vlan_all)) == comparable(expected(skb))


@pytest.mark.parametrize("headroom", [0xFFFF, 0x10000, 0x10002])
def test_data_too_far_from_head_for_a_header_have_an_unknown_position(headroom: int) -> None:
    skb = s.Skb(bytes(headroom) + UDP4, headroom, headroom & 0xFFFF, headroom - 20 & 0xFFFF)
    assert comparable(sent(skb, vlan_all=True)) == comparable(expected(skb))


def test_large_packet_is_cut_to_the_largest_sample() -> None:
    skb = s.received(UDP4 + bytes(100_000))
    sample = sent(skb, vlan_all=True)
    assert comparable(sample) == comparable(expected(skb))
    record = unpack(sample)
    size = layout.PREFIX_OFFSET + record.prefix_len + record.payload_len
    assert size <= layout.MAX_SAMPLE


@pytest.mark.parametrize(
    "device",
    [
        struct.pack("<16siHHQ", b"rubbish", 0, 1, 14, NET),
        struct.pack("<16siHHQ", b"rubbish", -5, 1, 14, NET),
        struct.pack("<16siHHQ", b"rubbish", 7, 1, 14, NET + 0x1000),
        b"",
    ],
    ids=["ifindex 0", "negative ifindex", "no namespace", "not readable"],
)
def test_rubbish_in_the_place_of_the_device_is_no_device(device: bytes) -> None:
    skb = s.at_network(UDP4[14:], dev=None)
    machine = machine_for(skb)
    machine.memory.write(SKB, DEVICE.to_bytes(8, "little"))
    machine.memory.add(DEVICE, device)
    machine.memory.add(NET, struct.pack("<8xII", 0, 4026531840))
    machine.run(SKB)
    assert comparable(machine.samples[0]) == comparable(expected(skb))


def test_full_ring_is_counted() -> None:
    machine = machine_for(s.received(UDP4))
    machine.full = True
    machine.run(SKB)
    assert machine.samples == []
    counter = machine.values[LOST]
    assert machine.memory.read(counter, 8) == (1).to_bytes(8, "little")


def test_maps_are_those_that_user_space_looks_for() -> None:
    machine = machine_for(s.received(UDP4))
    assert {packet_site.PACKETS_MAP, packet_site.REALTIME_MAP} <= set(machine.values)


def narrow_instructions(*, vlan_all: bool) -> int:
    """How many instructions of skboutput()'s program are of 32 bits (classes ALU and JMP32)."""
    (program,) = compiled("args.skb.len", 0, vlan_all).programs
    swaps = (0xD4, 0xDC)  # of bytes: of class ALU, however wide
    opcodes = program.spec.insns[::8]
    return sum(opcode & 7 in (4, 6) and opcode not in swaps for opcode in opcodes)


def test_programs_of_old_kernels_have_whole_registers_only() -> None:
    assert narrow_instructions(vlan_all=True) > 50
    assert narrow_instructions(vlan_all=False) == 0
