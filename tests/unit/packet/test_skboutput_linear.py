# SPDX-License-Identifier: Apache-2.0
"""skboutput_linear() sends the record that skboutput() sends, as far as the linear data go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kcap.codegen.module import LOST
from kcap.functions import skb_record as layout
from kcap.functions.registry import all_functions
from kcap.functions.skb_emit import LINEAR_MAX
from kcap.kernel.helpers import Helper
from kcap.packet.decode import PacketDecoder
from kcap.packet.frame import finish
from kcap.packet.record import Names, Site, unpack
from unit.packet import skb_samples as s
from unit.packet.emitted import SKB, compiled, machine_for
from unit.packet.situations import ALL, UDP4, Situation


def sent(skb: s.Skb, *, linear: int | None = None, length: str = "args.skb.len") -> bytes:
    """The one sample that the program sends."""
    made = compiled(length, 0, True, "skboutput_linear")
    machine = machine_for(skb, made=made, linear=linear)
    machine.run(SKB)
    (sample,) = machine.samples
    return sample


@pytest.mark.parametrize("situation", ALL, ids=lambda each: each.name)
def test_every_situation_gives_the_frame_of_the_reference(situation: Situation) -> None:
    sample = sent(situation.skb)
    record = unpack(sample)
    reference = s.sample(replace(situation.skb, address=SKB), site=0, probe=0, cpu=3)
    wanted = unpack(reference)
    assert record.flags == wanted.flags | layout.FLAG_LINEAR_ONLY
    assert finish(sample, record).data == situation.frame


def test_bytes_in_fragments_are_left_out_and_counted() -> None:
    sample = sent(s.received(UDP4), linear=20)
    packet = PacketDecoder([Site(0, "a.pcap")], Names({0: "kprobe:ip_rcv"})).decode(sample)
    assert packet.data == UDP4[: 14 + 20]
    assert packet.original_length == len(UDP4)
    assert packet.linear_only


def test_no_more_is_copied_than_there_is_room_for() -> None:
    frame = UDP4 + bytes(60000)
    record = unpack(sent(s.received(frame)))
    assert record.payload_len == LINEAR_MAX
    assert record.origlen == len(frame)


def test_length_is_kept_to() -> None:
    assert unpack(sent(s.received(UDP4), length="10")).payload_len == 10


def test_a_full_ring_is_counted() -> None:
    made = compiled("args.skb.len", 0, True, "skboutput_linear")
    machine = machine_for(s.received(UDP4), made=made)
    machine.full = True
    machine.run(SKB)
    counter = machine.values[LOST]
    assert machine.memory.read(counter, 8) == (1).to_bytes(8, "little")


def test_it_calls_only_what_every_program_type_may_call() -> None:
    function = all_functions()["skboutput_linear"]
    assert function.helpers == {Helper.perf_event_output, Helper.probe_read_kernel}
