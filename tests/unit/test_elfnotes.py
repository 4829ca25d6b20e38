# SPDX-License-Identifier: Apache-2.0
"""Notes of ELF files."""

from __future__ import annotations

from struct import pack

import pytest

from kcap.elfnotes import Note, build_id, notes


def note(owner: bytes, kind: int, description: bytes) -> bytes:
    filled = [part + bytes(-len(part) % 4) for part in (owner, description)]
    return pack("<III", len(owner), len(description), kind) + b"".join(filled)


def test_names_and_descriptions_are_filled_up_to_four_bytes() -> None:
    data = note(b"stapsdt\0", 3, b"12345") + note(b"GNU\0", 1, b"") + note(b"Linux\0", 257, b"ab")
    assert list(notes(data)) == [
        Note(b"stapsdt\0", 3, b"12345"),
        Note(b"GNU\0", 1, b""),
        Note(b"Linux\0", 257, b"ab"),
    ]


def test_less_than_a_header_at_the_end_is_no_note() -> None:
    assert list(notes(note(b"GNU\0", 1, b"abcd") + bytes(11))) == [Note(b"GNU\0", 1, b"abcd")]


def test_a_note_that_ends_behind_its_section_is_refused_where_it_is_met() -> None:
    whole = note(b"GNU\0", 1, b"abcd")
    found = notes(whole + pack("<III", 4, 5, 3) + b"GNU\0abcd")
    assert next(found) == Note(b"GNU\0", 1, b"abcd")
    with pytest.raises(ValueError, match="the note at 0x14 ends behind its section"):
        next(found)


def test_a_build_id_has_any_length_and_is_not_another_owners() -> None:
    other = note(b"FreeBSD\0", 3, b"zzzz")
    assert build_id(other + note(b"GNU\0", 3, bytes(range(16)))) == bytes(range(16)).hex()
    assert build_id(other) == ""


def test_a_cut_build_id_is_none() -> None:
    assert build_id(note(b"GNU\0", 3, bytes(20))[:-1]) == ""
