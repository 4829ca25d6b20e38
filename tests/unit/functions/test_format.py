# SPDX-License-Identifier: Apache-2.0
"""printf formats: what they accept, and the exact text that they print."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.codegen.environment import Environment
from kcap.functions.format import Conversion, Format, FormatError, accepts, parse, type_word
from kcap.functions.gfp import gfp_text
from kcap.functions.network import Inet, MacAddress
from kcap.sema.config import Config
from kcap.sema.types import (
    BOOL,
    INT8,
    INT32,
    INT64,
    UINT8,
    UINT32,
    UINT64,
    VOID,
    Buffer,
    Enum,
    Integer,
    Pointer,
    String,
    Tuple,
    Type,
)

ENVIRONMENT = Environment(Config())
FOO = Enum("Foo", 4, False, {1: "ONE", 2: "TWO", 99999: "OTHER"})


def pack(types: Sequence[Type], values: Any) -> Any:
    """The bytes that a BPF program would send for values of the types."""
    payload = Tuple(tuple(types))
    data = bytearray(payload.size)
    for type_, offset, value in zip(payload.elements, payload.offsets, values, strict=True):
        if isinstance(type_, String):
            raw = value.encode("utf-8", "surrogateescape")
        elif isinstance(type_, Buffer):
            raw = struct.pack("<I", len(value)) + value
        elif isinstance(value, bytes):
            raw = value
        else:
            raw = (value & ((1 << 8 * type_.size) - 1)).to_bytes(type_.size, "little")
        data[offset : offset + len(raw)] = raw
    return bytes(data)


def printed(
    text: str, types: Sequence[Type], values: Any, environment: Environment = ENVIRONMENT
) -> Any:
    """What both ways of formatting print; they have to agree."""
    format_ = Format(text, list(types))
    data = b"header.." + pack(types, values)
    fast = format_.compile(environment)(data, 8)
    assert format_.format(format_.payload.decode(data, 8), environment) == fast
    return fast


def test_text_without_conversions_is_printed_as_it_is() -> None:
    assert printed("hi! 100%%\n", [], []) == "hi! 100%\n"


def test_length_modifiers_cut_integers_as_c_does() -> None:
    x = 0x12345678ABCDEF
    assert printed("%hhx %hx %x %jx\n", [INT64] * 4, [x] * 4) == "ef cdef 78abcdef 12345678abcdef\n"


def test_d_prints_the_low_32_bits_as_a_signed_number() -> None:
    assert printed("%d %ld", [UINT64, UINT64], [2**64 - 1, 2**64 - 1]) == "-1 -1"


def test_u_prints_negative_numbers_as_unsigned_of_its_width() -> None:
    assert printed("%u %lu %hhu", [INT32, INT8, INT8], [-1, -1, -2]) == (
        "4294967295 18446744073709551615 254"
    )


def test_narrow_values_keep_their_sign_in_wide_conversions() -> None:
    assert printed("%d %lld %d", [INT8, INT8, UINT8], [-5, -5, 200]) == "-5 -5 200"


def test_width_flags_and_precision() -> None:
    assert printed("%5s|%04x|%-6d|%+d|%.3d", [String(8), INT32, INT32, INT32, INT32],
                   ["ba", 2, 42, 7, 5]) == "   ba|0002|42    |+7|005"  # fmt: skip


def test_hexadecimal_and_octal_with_prefix() -> None:
    assert printed("%#x %o %#o %X", [INT32] * 4, [255, 8, 8, 255]) == "0xff 10 010 FF"


def test_characters() -> None:
    assert printed("%c%c%c%c", [UINT8, INT64, INT8, UINT8], [0x41, 0x42, 0x43, 0x44]) == "ABCD"


def test_enums_print_their_name_and_their_number() -> None:
    assert printed("%d %s %-5s|%s", [FOO] * 4, [1, 1, 2, 100]) == "1 ONE TWO  |100"


def test_pointers_print_in_hexadecimal() -> None:
    assert printed("%p %p", [Pointer(VOID), UINT64], [0xFFFF888000000010, 0]) == (
        "0xffff888000000010 0"
    )


def test_buffers_print_escaped_hex_and_spaced_hex() -> None:
    raw = b"Hello\0"
    assert printed("%r", [Buffer(6)], [raw]) == "Hello\\x00"
    assert printed("%rx", [Buffer(6)], [raw]) == "\\x48\\x65\\x6c\\x6c\\x6f\\x00"
    assert printed("%rh", [Buffer(8)], [raw]) == "48 65 6c 6c 6f 00"


def test_a_string_ends_at_its_nul_and_keeps_bytes_that_are_not_utf8() -> None:
    data = Format("%s!", [String(8)]).compile(ENVIRONMENT)(b"ab\xff\0rest", 0)
    assert data.encode("utf-8", "surrogateescape") == b"ab\xff!"


def test_a_string_that_fills_its_buffer_gets_the_trailer() -> None:
    environment = Environment(Config(max_strlen=5, str_trunc_trailer=".."))
    assert printed("P: %s", [String(6)], ["/bin/"], environment) == "P: /bin/.."
    assert printed("P: %s", [String(6)], ["/bin"], environment) == "P: /bin"
    assert printed("P: %s", [String(5)], ["/bin"], environment) == "P: /bin"


def test_booleans_print_as_words_and_as_numbers() -> None:
    assert printed("%s %d", [BOOL, BOOL], [1, 1]) == "true 1"


def test_tuples_and_addresses_print_with_s() -> None:
    inet = struct.pack("<I", 2) + bytes([127, 0, 0, 1]) + bytes(12)
    assert printed("%s %s", [Inet(), MacAddress()], [inet, bytes([5, 4, 3, 2, 1, 0xAB])]) == (
        "127.0.0.1 05:04:03:02:01:AB"
    )


def test_gfp_flags_by_name() -> None:
    assert printed("GFP flags: %gr", [UINT32], [1]) == "GFP flags: GFP_DMA"
    assert gfp_text(0xCC0) == "GFP_KERNEL"
    assert gfp_text(0xDC0) == "GFP_KERNEL|__GFP_ZERO"
    assert gfp_text(0) == "0"
    assert gfp_text(0x800) == "__GFP_KSWAPD_RECLAIM"


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        ("%#x", 0, "0"),
        ("%#o", 0, "0"),
        ("%#x", 255, "0xff"),
        ("%#X", 255, "0XFF"),
        ("%#o", 8, "010"),
        ("[%#8x]", 255, "[    0xff]"),
        ("[%-#8x]", 255, "[0xff    ]"),
        ("[%#08x]", 255, "[0x0000ff]"),
        ("[%#.4x]", 255, "[0x00ff]"),
    ],
)
def test_prefixes_of_integers_are_those_of_c(text: str, value: int, shown: str) -> None:
    assert printed(text, [UINT64], [value]) == shown


def test_percent_signs_of_arguments_stay() -> None:
    assert printed("%s%%", [String(8)], ["100%d"]) == "100%d%"


@pytest.mark.parametrize(
    ("text", "start", "end"), [("a %y", 2, 4), ("%", 0, 1), ("%lk", 0, 3), ("%llld", 0, 5)]
)
def test_unknown_conversions_are_refused_with_their_place(text: str, start: int, end: int) -> None:
    with pytest.raises(FormatError) as caught:
        parse(text)
    assert (caught.value.start, caught.value.end) == (start, end)


def test_parse_keeps_every_part() -> None:
    literal, conversion, rest = parse("a%% %-8.3lld!")
    assert (literal, rest) == ("a% ", "!")
    assert conversion == Conversion("-", "8", ".3", "ll", "d", 4, 12)
    assert str(conversion) == "%-8.3lld"


@pytest.mark.parametrize(
    ("conversion", "type_", "ok"),
    [
        ("%d", INT64, True), ("%d", String(4), False), ("%s", String(4), True),
        ("%s", INT64, False), ("%s", FOO, True), ("%d", Pointer(VOID), True),
        ("%p", INT64, True), ("%p", String(4), False), ("%r", Buffer(4), True),
        ("%r", String(4), False), ("%s", Tuple((INT8,)), True), ("%c", UINT8, True),
        ("%s", VOID, False),
    ],
)  # fmt: skip
def test_conversions_take_the_types_that_they_can_print(
    conversion: str, type_: Type, ok: bool
) -> None:
    (parsed,) = parse(conversion)
    assert not isinstance(parsed, str)
    assert accepts(parsed, type_) is ok


def test_type_words_of_messages() -> None:
    assert [type_word(t) for t in (INT8, FOO, BOOL, VOID, String(3), Pointer(VOID))] == [
        "integer", "integer", "bool", "none", "string", "pointer",
    ]  # fmt: skip


@given(
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([1, 2, 4, 8]),
    st.booleans(),
    st.sampled_from(["hh", "h", "", "l", "ll"]),
    st.sampled_from("duxXo"),
)
def test_the_fast_and_the_plain_way_agree_with_c(
    value: Any, size: int, signed: bool, length: str, kind: str
) -> None:
    type_ = Integer(size, signed)
    bits = {"hh": 8, "h": 16, "": 32}.get(length, 64)
    stored = type_.decode((value & ((1 << 64) - 1)).to_bytes(8, "little"))
    cut = stored & ((1 << bits) - 1)
    if kind == "d" and cut >> (bits - 1):
        cut -= 1 << bits
    expected = {"d": "%d", "u": "%d", "x": "%x", "X": "%X", "o": "%o"}[kind] % cut
    assert printed(f"%{length}{kind}", [type_], [value]) == expected


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        ("[%8s]", "été", "[   été]"),
        ("[%-8s]", "été", "[été   ]"),
        ("[%.3s]", "été", "[ét]"),
        ("é[%6s]é", "€", "é[   €]é"),
        ("[%4s]", "\udcff", "[   \udcff]"),
        ("[%4s]", "abcdé", "[abcdé]"),
        ("[%5s]", "abc", "[  abc]"),
    ],
)
def test_widths_and_precisions_count_bytes(text: str, value: str, shown: str) -> None:
    assert printed(text, [String(16)], [value]) == shown
