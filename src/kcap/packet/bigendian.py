# SPDX-License-Identifier: Apache-2.0
"""Numbers in network order; of what is cut off, those of the bytes that are there."""

from __future__ import annotations


def u16(data: bytes, at: int) -> int:
    """The two bytes from a place on."""
    return int.from_bytes(data[at : at + 2])


def u32(data: bytes, at: int) -> int:
    """The four bytes from a place on."""
    return int.from_bytes(data[at : at + 4])
