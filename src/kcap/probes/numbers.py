# SPDX-License-Identifier: Apache-2.0
"""Numbers and times in attach points: ``1e6``, ``0x10000000``, ``1_000``, ``5ms``."""

from __future__ import annotations

UNITS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
"""Nanoseconds of the units that a duration may have."""

_DECIMAL = frozenset("0123456789_")
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF_")


def parse_integer(text: str) -> int | None:
    """The value of an unsigned integer as the language writes it, or None if it is none.

    Decimal with underscores or an exponent (``1e6``), or hexadecimal.
    """
    if text[:2] in ("0x", "0X"):
        digits = text[2:]
        return int(digits, 16) if _are(digits, _HEXADECIMAL) else None
    mantissa, exponent_sign, exponent = text.partition("e")
    if not _are(mantissa, _DECIMAL):
        return None
    if not exponent_sign:
        return int(mantissa)
    if not (exponent.isdecimal() and exponent.isascii() and len(exponent) <= 2):
        return None
    return int(mantissa) * int(10 ** int(exponent))


def _are(digits: str, allowed: frozenset[str]) -> bool:
    well_placed = digits[:1] != "_" and digits[-1:] != "_" and "__" not in digits
    return bool(digits) and well_placed and allowed.issuperset(digits)


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a duration (``5ms``; a bare number is nanoseconds), None if it is none."""
    digits = text.rstrip("nusmhd")
    unit = text[len(digits) :]
    if text[:2] in ("0x", "0X"):
        digits, unit = text, ""
    value = parse_integer(digits)
    if value is None or (unit and unit not in UNITS):
        return None
    return value * UNITS[unit or "ns"]
