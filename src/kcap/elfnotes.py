# SPDX-License-Identifier: Apache-2.0
"""Notes of ELF files and of the kernel (System V ABI, chapter 5; little-endian).

A note is three words (sizes of its name and of its description, its type), then both, each filled
up to a multiple of four bytes.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = Struct("<III")
_NT_GNU_BUILD_ID = 3


class Note(NamedTuple):
    """One note.

    :ivar owner: who says what its type means, with its NUL: ``GNU\\0``.
    :ivar kind: its type.
    :ivar description: its content.
    """

    owner: bytes
    kind: int
    description: bytes


def notes(data: bytes) -> Iterator[Note]:
    """The notes of a section, or of ``/sys/kernel/notes``, in their order.

    :raises ValueError: one of them ends behind the data.
    """
    at = 0
    while at + _HEADER.size <= len(data):
        name_size, size, kind = _HEADER.unpack_from(data, at)
        name = at + _HEADER.size
        start = name + (name_size + 3 & ~3)
        if start + size > len(data):
            raise ValueError(f"the note at {at:#x} ends behind its section")
        yield Note(data[name : name + name_size], kind, data[start : start + size])
        at = start + (size + 3 & ~3)


def build_id(data: bytes) -> str:
    """The build id among notes, in hexadecimal; '' if none is there, or they are damaged."""
    try:
        for note in notes(data):
            if note.owner == b"GNU\0" and note.kind == _NT_GNU_BUILD_ID:
                return note.description.hex()
    except ValueError:  # then they tell nothing
        pass
    return ""
