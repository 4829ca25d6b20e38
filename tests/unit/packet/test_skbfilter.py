# SPDX-License-Identifier: Apache-2.0
"""skbfilter() says of every packet what libpcap's interpreter says of its captured frame.

The program is compiled for a small kernel and run by a BPF machine written in Python. With
``KCAP_FILTER_PACKETS=N`` there are N random packets for each expression instead of a few.
"""

from __future__ import annotations

import os
import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcap.functions import skb_record as layout
from kcap.functions.pcap_filter import (
    DLT_EN10MB,
    FilterError,
    Instruction,
    LibraryMissingError,
    compile_filter,
    library,
)
from kcap.lang.diagnostic import ScriptError
from unit.packet import skb_samples as s
from unit.packet.filtered import Interpreter, compiled, compiled_program, frame_of, matches
from unit.packet.situations import (
    ALL,
    ARP4,
    OUTER,
    PING4,
    PING6,
    TAGGED,
    TCP4,
    TUN,
    TWICE,
    UDP4,
    tag_of,
    untagged,
)  # fmt: skip

PACKETS = int(os.environ.get("KCAP_FILTER_PACKETS", "12"))

EXPRESSIONS = (
    "",
    "ip",
    "ip6",
    "arp",
    "rarp",
    "icmp",
    "icmp6",
    "tcp",
    "udp",
    "tcp port 4001",
    "udp port 4000",
    "port 4001 and not tcp",
    "src port 4000 or dst port 22",
    "portrange 3990-4000",
    "tcp portrange 1-65535",
    "host 10.0.0.1",
    "src host 10.0.0.2",
    "net 10.0.0.0/24",
    "dst net 192.0.2.0 mask 255.255.255.0",
    "host fd00::1",
    "ip6 net fd00::/16",
    "ether host 02:00:00:00:00:01",
    "ether dst 02:00:00:00:00:02",
    "ether broadcast",
    "ether multicast",
    "ether proto 0x88b5",
    "vlan",
    "vlan 5",
    "vlan 5 and ip",
    "vlan and vlan 5 and udp port 4001",
    "greater 60",
    "less 60",
    "len = 46",
    "len > 50 and ip",
    "ip[9] = 17",
    "ip[2:2] > 30",
    "ip[12:4] = 0x0a000001",
    "ip6[6] = 58",
    "ether[12:2] = 0x8100",
    "ether[0] & 1 != 0",
    "tcp[tcpflags] & tcp-syn != 0",
    "tcp[tcpflags] & (tcp-push|tcp-ack) = tcp-push|tcp-ack",
    "icmp[icmptype] = icmp-echo",
    "icmp6[icmp6type] = icmp6-echo",
    "udp[8:4] = 0x68656c6c",
    "udp[4:2] / 2 > 6",
    "ip[0] << 2 & 60 = 20",
    "ether[len - 1] = 0x6f",
    "ether[200:4] = 0x01020304",
    "ether[1000:2] > 100",
    "ip[ip[3]] > 10",
    "ip proto 17",
    "tcp or (udp and host 10.0.0.2 and (port 1 or port 4001))",
    "ip host 10.0.0.1 and ip host 10.0.0.2",
    "mpls",
    "pppoes",
    "stp",
    "isis",
    "llc",
)

FRAMES = (UDP4, TCP4, PING4, PING6, ARP4, TAGGED, TWICE, OUTER)


def random_skb(rng: random.Random) -> s.Skb:
    """A packet of these tests with bytes changed, cut or appended, somewhere in the stack."""
    frame = bytearray(rng.choice(FRAMES))
    for _ in range(rng.choice((0, 0, 1, 2, 8))):
        frame[rng.randrange(len(frame))] = rng.randrange(256)
    if rng.random() < 0.3:
        frame = frame[: rng.randrange(14, len(frame))]
    if rng.random() < 0.3:
        frame += rng.randbytes(rng.randrange(1, 1600))
    whole = bytes(frame)
    where = rng.randrange(6)
    if where == 0:
        skb = s.sent(whole)
    elif where == 1:
        skb = s.sent(whole, mac=66)
    elif where == 2:
        skb = s.received(whole).pulled(rng.randrange(0, 41) if len(whole) > 60 else 0)
    elif where == 3 and len(whole) > 15:
        skb = s.at_network(whole[14:], dev=rng.choice((None, s.Device(), TUN)))
    elif where == 4 and whole[12:14] == b"\x81\x00" and len(whole) > 30:
        make = rng.choice((s.sent, s.received))
        skb = replace(make(untagged(whole)), vlan=tag_of(whole))
    else:
        skb = s.received(whole)
    if rng.random() < 0.2 and skb.vlan is None:
        skb = replace(skb, vlan=(0x8100, rng.randrange(1 << 16)))
    return skb


def expected(interpreter: Interpreter, skb: s.Skb, linear: int | None = None) -> bool:
    frame = frame_of(skb)
    data = frame.data
    if linear is not None:
        data = data[: max(len(data) - max(skb.len - linear, 0), 0)]
    return interpreter(data, frame.original_length)


#: Where a filter can't see the frame as it is written (docs/filters.md).
OTHERWISE = re.compile("eth_type_trans in|in front of a frame with a tag")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_packet_matches_as_its_frame_does_in_libpcap(expression: str) -> None:
    interpreter = Interpreter(compile_filter(expression))
    made = compiled(expression)
    rng = random.Random(expression)  # the same packets in every run
    skbs = [each.skb for each in ALL if not OTHERWISE.search(each.name)]
    skbs += [random_skb(rng) for _ in range(PACKETS)]
    wrong = [skb for skb in skbs if matches(made, skb) != expected(interpreter, skb)]
    assert wrong == []


@pytest.mark.parametrize("expression", ["tcp port 4001", "vlan 5", "len > 400", "udp[20:4] = 5"])
def test_bytes_in_fragments_are_not_there_but_counted(expression: str) -> None:
    interpreter = Interpreter(compile_filter(expression))
    made = compiled(expression)
    rng = random.Random(1)
    for _ in range(PACKETS):
        skb = random_skb(rng)
        linear = rng.randrange(12, skb.len + 1) if skb.len > 12 else skb.len
        wanted = expected(interpreter, skb, linear)
        assert matches(made, skb, linear=linear) == wanted, (skb, linear)


def test_tag_is_seen_up_to_6_1_and_a_stale_one_is_not() -> None:
    made = compiled("vlan 5 and icmp", vlan_all=False)
    tagged = replace(s.received(PING4), vlan=(0x8100, 5))
    assert matches(made, tagged, vlan_all=False)
    assert not matches(made, s.received(PING4), vlan_all=False)


def test_frame_at_eth_type_trans_starts_at_its_mac_header() -> None:
    skb = s.sent(UDP4, mac=layout.MAC_UNSET, network=0)
    assert matches(compiled("udp port 4001", function="eth_type_trans"), skb)
    assert not matches(compiled("udp port 4001"), skb)


def test_no_skb_matches_nothing() -> None:
    from unit.packet.emitted import machine_for

    machine = machine_for(s.received(UDP4), made=compiled(""))
    machine.run(0)
    assert machine.element("AT_hit", bytes(8))[0] == 0


# --- classic BPF beyond what expressions make ---

LD_W_ABS, LD_H_ABS, LD_B_ABS, LD_W_IND, LD_H_IND, LD_B_IND = 0x20, 0x28, 0x30, 0x40, 0x48, 0x50
LD_IMM, LD_MEM, LD_LEN = 0x00, 0x60, 0x80
LDX_IMM, LDX_MEM, LDX_LEN, LDX_MSH = 0x01, 0x61, 0x81, 0xB1
ST, STX, TAX, TXA, RET_K, RET_A, JA, NEG = 0x02, 0x03, 0x07, 0x87, 0x06, 0x16, 0x05, 0x84
ALU = (0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0x94, 0xA4)
CONDITIONS = (0x15, 0x25, 0x35, 0x45, 0x1D, 0x2D, 0x3D, 0x4D)
VALUES = st.sampled_from([0, 1, 2, 14, 31, 32, 33, 250, 1 << 31, (1 << 32) - 1]) | st.integers(
    0, (1 << 32) - 1
)
OFFSETS = st.integers(0, 60) | st.sampled_from([221, 222, 240, 1500, (1 << 31), (1 << 32) - 4097])


@st.composite
def programs(draw: st.DrawFn) -> tuple[Instruction, ...]:
    """Valid programs: forward jumps only, no constant division by zero, a return at the end."""
    count = draw(st.integers(1, 24))
    made = []
    for left in range(count - 1, -1, -1):
        kind = draw(st.sampled_from(["load", "memory", "alu", "alu", "jump", "misc", "x"]))
        if kind == "load":
            code = draw(
                st.sampled_from(
                    [LD_W_ABS, LD_H_ABS, LD_B_ABS, LD_W_IND, LD_H_IND, LD_B_IND, LDX_MSH]
                )
            )
            each = Instruction(code, 0, 0, draw(OFFSETS))
        elif kind == "memory":
            code = draw(st.sampled_from([LD_MEM, LDX_MEM, ST, STX]))
            each = Instruction(code, 0, 0, draw(st.integers(0, 15)))
        elif kind == "alu":
            by_x = draw(st.sampled_from([0, 8]))
            code, k = draw(st.sampled_from(ALU)) | by_x, draw(VALUES)
            if code in (0x34, 0x94):
                k = k or 1
            if code in (0x64, 0x74):
                k &= 31
            each = Instruction(code, 0, 0, k)
        elif kind == "jump":
            jumps = st.integers(0, left)
            each = Instruction(
                draw(st.sampled_from(CONDITIONS)), draw(jumps), draw(jumps), draw(VALUES)
            )
        elif kind == "x":
            each = Instruction(
                draw(st.sampled_from([LDX_IMM, LDX_LEN, LD_IMM, LD_LEN])), 0, 0, draw(OFFSETS)
            )
        else:
            each = Instruction(draw(st.sampled_from([TAX, TXA, NEG])), 0, 0, 0)
        made.append(each)
    stores = [Instruction(ST, 0, 0, cell) for cell in range(16)]  # nobody zeroes M[] in libpcap
    return (*stores, *made, Instruction(RET_A, 0, 0, 0))


@settings(max_examples=int(os.environ.get("KCAP_FILTER_PROGRAMS", "25")), deadline=None)
@given(programs(), st.integers(0, 1 << 30))
def test_every_program_does_what_libpcaps_interpreter_does(
    program: tuple[Instruction, ...], seed: int
) -> None:
    interpreter, made = Interpreter(program), compiled_program(program)
    rng = random.Random(seed)
    for skb in (s.received(UDP4), random_skb(rng), random_skb(rng), random_skb(rng)):
        assert matches(made, skb) == expected(interpreter, skb)


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        ([(LDX_IMM, 0, 0, 0), (LD_IMM, 0, 0, 7), (0x3C, 0, 0, 0), (RET_K, 0, 0, 1)], False),
        ([(LDX_IMM, 0, 0, 0), (LD_IMM, 0, 0, 7), (0x9C, 0, 0, 0), (RET_K, 0, 0, 1)], False),
        ([(LDX_IMM, 0, 0, 2), (LD_IMM, 0, 0, 7), (0x3C, 0, 0, 0), (RET_A, 0, 0, 0)], True),
        ([(LD_IMM, 0, 0, 1), (0x64, 0, 0, 31), (RET_A, 0, 0, 0)], True),
        ([(LDX_IMM, 0, 0, 32), (LD_IMM, 0, 0, 1), (0x6C, 0, 0, 0), (RET_A, 0, 0, 0)], False),
        ([(LD_B_ABS, 0, 0, 46), (RET_K, 0, 0, 1)], True),
        ([(LD_B_ABS, 0, 0, 47), (RET_K, 0, 0, 1)], False),
        ([(LD_W_ABS, 0, 0, 44), (RET_K, 0, 0, 1)], False),
        ([(LDX_IMM, 0, 0, (1 << 32) - 1), (LD_B_IND, 0, 0, 2), (RET_K, 0, 0, 1)], False),
        ([(LDX_MSH, 0, 0, 14), (TXA, 0, 0, 0), (0x15, 0, 1, 20), (RET_K, 0, 0, 1),
          (RET_K, 0, 0, 0)], True),
        ([(JA, 0, 0, 1), (RET_K, 0, 0, 0), (RET_K, 0, 0, 1)], True),
    ],
    ids=["division by zero", "modulo by zero", "division", "shift by 31", "shift by 32",
         "last byte", "byte behind the last", "word over the end", "offset that wraps", "MSH",
         "jump"],
)  # fmt: skip
def test_classic_bpf_is_exact_at_its_edges(
    program: list[tuple[int, int, int, int]], wanted: bool
) -> None:
    assert len(UDP4) == 47
    instructions = tuple(Instruction(*each) for each in program)
    skb = s.received(UDP4)
    assert matches(compiled_program(instructions), skb) is wanted
    assert expected(Interpreter(instructions), skb) is wanted


# --- what is wrong with an expression ---


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("tcp port 80 adn udp", "syntax error", "adn"),
        ("tcp)", "syntax error", ")"),
        ("host and port 80", "syntax error", "and"),
        ("port nosuchport", "unknown port 'nosuchport'", "nosuchport"),
        ("ether proto nosuch", "unknown ether proto 'nosuch'", "nosuch"),
        ("vlan 5000", "VLAN tag 5000 greater than maximum 4095", "5000"),
        ("ip broadcast", "netmask not known, so 'ip broadcast' not supported", "ip broadcast"),
        ("ip6 protochain 17", "protochain makes a loop, which a filter in the kernel cannot have",
         "protochain"),
        ("inbound", "part of this filter asks for what only a socket knows, not the packet",
         "inbound"),
    ],
)  # fmt: skip
def test_error_points_at_the_word(text: str, message: str, place: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(text)
    assert str(caught.value) == message
    assert text[caught.value.start : caught.value.end] == place


def test_something_that_is_missing_is_missing_at_the_end() -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter("tcp port")
    assert (caught.value.start, caught.value.end) == (8, 8)


def test_diagnostic_points_into_the_script() -> None:
    with pytest.raises(ScriptError) as caught:
        compiled("tcp prot 80")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.title == "libpcap does not take this packet filter: syntax error"
    assert diagnostic.span is not None
    assert diagnostic.span.text == "prot"


def test_direction_is_the_places_to_tell() -> None:
    with pytest.raises(ScriptError) as caught:
        compiled("tcp and inbound")
    (help_,) = caught.value.diagnostics[0].help
    assert "net:netif_receive_skb receives" in help_


def test_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kcap.functions.pcap_filter.LIBRARIES", ("libpcap-that-is-not.so",))
    library.cache_clear()
    try:
        with pytest.raises(LibraryMissingError, match="libpcap, which cannot be loaded") as caught:
            library()
    finally:
        library.cache_clear()
    assert "libpcap0.8" in (caught.value.hint or "")


def test_the_library_is_loaded_only_for_a_filter() -> None:
    assert compile_filter("ip", DLT_EN10MB)[0] == Instruction(LD_H_ABS, 0, 0, 12)
