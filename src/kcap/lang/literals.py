# SPDX-License-Identifier: Apache-2.0
"""The values of integer and string literals."""

from __future__ import annotations

import re

MAX_UINT64 = 0xFFFF_FFFF_FFFF_FFFF

#: Nanoseconds of each duration suffix.
DURATIONS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
    "d": 24 * 3600 * 1_000_000_000,
}

_INTEGER = re.compile(
    r"0[xX](?P<hex>[0-9A-Fa-f_]+?)(?P<hexsuffix>[uUlL]{0,3})"
    r"|(?P<digits>[0-9][0-9_]*)(?:[eE](?P<exponent>[0-9]+))?"
    r"(?P<suffix>[uUlL]{1,3}|ns|us|ms|s|m|h|d)?"
)
_C_SUFFIXES = frozenset({"", "u", "l", "ul", "lu", "ll", "ull", "llu"})
# 2**64 has 20 decimal and 22 octal digits: longer ones need no conversion to be refused.
_MOST_DIGITS = 23


class LiteralError(ValueError):
    """A literal that has no value.

    :param message: what is wrong, for a diagnostic's title.
    :param start: where in the literal's text, in characters.
    :param end: the end of that place.
    :param replacement: what to write instead of that place, if that is known.
    """

    def __init__(
        self, message: str, start: int, end: int, *, replacement: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.start = start
        self.end = end
        self.replacement = replacement


def integer_value(text: str) -> tuple[int, str]:
    """The value and the suffix (lower case) of an integer literal.

    >>> integer_value("1_000"), integer_value("2e3"), integer_value("0x1fUL"), integer_value("5ms")
    ((1000, ''), (2000, ''), (31, 'ul'), (5000000, 'ms'))

    :raises LiteralError: if it is malformed or does not fit 64 bits.
    """
    found = _INTEGER.fullmatch(text)
    if found is None:
        raise _malformed(text)
    too_large = LiteralError("this integer does not fit in 64 bits", 0, len(text))
    if found["hex"] is not None:
        digits = found["hex"].replace("_", "").lstrip("0")
        suffix = found["hexsuffix"].lower()
        if len(digits) > 16:
            raise too_large
        value = int(digits or "0", 16)
    else:
        suffix = found["suffix"] or ""
        suffix = suffix if suffix in DURATIONS else suffix.lower()
        value = _decimal_or_octal(text, found["digits"], found["exponent"], too_large)
        value *= DURATIONS.get(suffix, 1)
    if suffix not in _C_SUFFIXES and suffix not in DURATIONS:
        start = len(text) - len(suffix)
        raise LiteralError(f"`{text[start:]}` is no integer suffix", start, len(text))
    if value > MAX_UINT64:
        raise too_large
    return value, suffix


def _decimal_or_octal(text: str, digits: str, exponent: str | None, too_large: LiteralError) -> int:
    plain = digits.replace("_", "")
    if len(plain) > 1 and plain[0] == "0" and exponent is None:
        wrong = next((i for i, c in enumerate(digits) if c in "89"), None)
        if wrong is not None:
            raise LiteralError(
                f"`{digits[wrong]}` is no octal digit: a leading 0 makes an integer octal",
                wrong,
                wrong + 1,
            )
        if len(plain.lstrip("0")) > _MOST_DIGITS:
            raise too_large
        return int(plain, 8)
    plain = plain.lstrip("0") or "0"
    power = 0
    if exponent is not None and plain != "0":
        shown = exponent.lstrip("0") or "0"
        power = int(shown) if len(shown) <= 2 else 99
    if len(plain) + power > _MOST_DIGITS:
        raise too_large
    return int(plain + "0" * power)


def _malformed(text: str) -> LiteralError:
    prefix = text[:2].lower()
    if prefix == "0o" and text[2:].isdigit():
        return LiteralError(
            "octal integers are written with a plain leading 0", 0, 2, replacement="0"
        )
    if prefix == "0b":
        return LiteralError("there are no binary integers in the language", 0, len(text))
    if prefix == "0x":
        return LiteralError("this is no hexadecimal integer", 0, len(text))
    digits = re.match(r"[0-9_]+", text)
    start = digits.end() if digits else 0
    if text[start:].lower() == "e":
        return LiteralError("an exponent needs digits and can't be negative", 0, len(text))
    return LiteralError(f"`{text[start:]}` is no integer suffix", start, len(text))


_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|([\s\S]))")
_SIMPLE_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}
# Escapes of C that the language lacks, and the same character as it can be written.
_FOREIGN_ESCAPES = {"a": "\\x07", "b": "\\x08", "e": "\\x1b", "f": "\\x0c", "v": "\\x0b"}


def string_value(text: str) -> str:
    """The value of a string literal given with its quotes.

    Octal and hexadecimal escapes are bytes; together with the rest they are read as UTF-8, and
    bytes that are not UTF-8 become ``surrogateescape`` characters.

    :raises LiteralError: for an unknown escape.
    """
    inside = text[1:-1]
    if "\\" not in inside and inside.isascii():
        return inside
    out = bytearray()
    at = 0
    for found in _ESCAPE.finditer(inside):
        out += _utf8(inside[at : found.start()])
        octal, hexadecimal, other = found.groups()
        if octal is not None:
            out.append(int(octal, 8) & 0xFF)
        elif hexadecimal is not None:
            out.append(int(hexadecimal, 16))
        elif other in _SIMPLE_ESCAPES:
            out += _SIMPLE_ESCAPES[other].encode()
        else:
            raise LiteralError(
                f"`{found[0]}` is no escape sequence of the language",
                found.start() + 1,
                found.end() + 1,
                replacement=_FOREIGN_ESCAPES.get(other),
            )
        at = found.end()
    out += _utf8(inside[at:])
    return out.decode("utf-8", "surrogateescape")


def _utf8(text: str) -> bytes:
    # Lone surrogates other than surrogateescape's can only come from a program that made them.
    return text.encode("utf-8", "surrogateescape" if _escapes_only(text) else "surrogatepass")


def _escapes_only(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" for c in text)


def quote(value: str) -> str:
    """A string literal whose value is ``value``.

    >>> quote('a"b\\n')
    '"a\\\\"b\\\\n"'
    """
    out = []
    for char in value:
        code = ord(char)
        if char in _QUOTED:
            out.append(_QUOTED[char])
        elif code < 0x20 or code == 0x7F:
            out.append(f"\\x{code:02x}")
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


_QUOTED = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", '"': '\\"'}
