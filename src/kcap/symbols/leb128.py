# SPDX-License-Identifier: Apache-2.0
"""Numbers of variable length, as DWARF has them (section 7.6 of the DWARF 5 standard)."""

from __future__ import annotations


def uleb128(data: bytes, at: int) -> tuple[int, int]:
    """(an unsigned number, the place behind it).

    :raises IndexError: the data ends in the middle of it.
    """
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def sleb128(data: bytes, at: int) -> tuple[int, int]:
    """(a signed number, the place behind it).

    :raises IndexError: the data ends in the middle of it.
    """
    value, behind = uleb128(data, at)
    bits = 7 * (behind - at)
    return value - (1 << bits) if value >> (bits - 1) else value, behind
