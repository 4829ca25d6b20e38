# SPDX-License-Identifier: Apache-2.0
"""Values of integer and string literals."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.lang.literals import LiteralError, integer_value, quote, string_value


@pytest.mark.parametrize(
    ("text", "value", "suffix"),
    [
        ("0", 0, ""),
        ("1_000_123_000", 1000123000, ""),
        ("0123", 0o123, ""),
        ("00", 0, ""),
        ("0x10", 16, ""),
        ("0XfFuL", 255, "ul"),
        ("0x1d", 29, ""),
        ("1e6", 1000000, ""),
        ("2E3", 2000, ""),
        ("0e99", 0, ""),
        ("123UL", 123, "ul"),
        ("123LL", 123, "ll"),
        ("123llu", 123, "llu"),
        ("7ns", 7, "ns"),
        ("7us", 7000, "us"),
        ("7ms", 7000000, "ms"),
        ("7s", 7000000000, "s"),
        ("1m", 60000000000, "m"),
        ("1h", 3600000000000, "h"),
        ("1d", 86400000000000, "d"),
        ("18446744073709551615", 2**64 - 1, ""),
        ("0xffff_ffff_ffff_ffff", 2**64 - 1, ""),
        ("01777777777777777777777", 2**64 - 1, ""),
    ],
)
def test_integers_have_their_value_and_suffix(text: str, value: Any, suffix: Any) -> None:
    assert integer_value(text) == (value, suffix)


@pytest.mark.parametrize(
    ("text", "message", "start", "end"),
    [
        ("18446744073709551616", "this integer does not fit in 64 bits", 0, 20),
        ("1e20", "this integer does not fit in 64 bits", 0, 4),
        ("1e99999999999999999", "this integer does not fit in 64 bits", 0, 19),
        ("9" * 5000, "this integer does not fit in 64 bits", 0, 5000),
        ("0x1_0000_0000_0000_0000", "this integer does not fit in 64 bits", 0, 23),
        ("300000d", "this integer does not fit in 64 bits", 0, 7),
        ("08", "`8` is no octal digit: a leading 0 makes an integer octal", 1, 2),
        ("5x", "`x` is no integer suffix", 1, 2),
        ("5lul", "`lul` is no integer suffix", 1, 4),
        ("0x", "this is no hexadecimal integer", 0, 2),
        ("0b101", "there are no binary integers in the language", 0, 5),
        ("1e", "an exponent needs digits and can't be negative", 0, 2),
    ],
)
def test_a_bad_integer_says_what_is_wrong_and_where(
    text: str, message: str, start: int, end: int
) -> None:
    with pytest.raises(LiteralError) as caught:
        integer_value(text)
    assert (caught.value.message, caught.value.start, caught.value.end) == (message, start, end)


def test_a_python_octal_can_be_rewritten() -> None:
    with pytest.raises(LiteralError) as caught:
        integer_value("0o17")
    error = caught.value
    assert (error.start, error.end, error.replacement) == (0, 2, "0")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('""', ""),
        ('"abc"', "abc"),
        (r'"a\n\t\r\"\\"', 'a\n\t\r"\\'),
        (r'"\033[0m"', "\033[0m"),
        (r'"\x1b[0m"', "\x1b[0m"),
        (r'"\101\x4"', "A\x04"),
        (r'"\xc3\xa9"', "é"),
        (r'"\xff"', "\udcff"),
        ('"é"', "é"),
    ],
)
def test_strings_are_decoded(text: str, value: Any) -> None:
    assert string_value(text) == value


@pytest.mark.parametrize(
    ("text", "start", "replacement"), [(r'"a\q"', 2, None), (r'"\e"', 1, r"\x1b")]
)
def test_an_unknown_escape_is_refused_with_a_replacement_where_there_is_one(
    text: str, start: int, replacement: str
) -> None:
    with pytest.raises(LiteralError, match="is no escape sequence of the language") as caught:
        string_value(text)
    error = caught.value
    assert (error.start, error.end, error.replacement) == (start, start + 2, replacement)


@given(st.binary())
def test_quote_makes_a_literal_with_the_same_bytes(data: bytes) -> None:
    value = data.decode("utf-8", "surrogateescape")
    assert string_value(quote(value)) == value


@given(st.integers(0, 2**64 - 1))
def test_decimal_hexadecimal_and_octal_forms_mean_the_same(number: int) -> None:
    texts = (str(number), hex(number), f"0{number:o}")
    assert {integer_value(text)[0] for text in texts} == {number}
