# SPDX-License-Identifier: Apache-2.0
"""How structs are aligned within tuples."""

from __future__ import annotations

from kcap.sema.types import INT8, INT32, INT64, Field, Struct, Tuple, Type


def struct(size: int, *members: tuple[int, Type]) -> Struct:
    """A struct of a size, with members at offsets."""
    fields = tuple(Field(f"f{at}", at, type_) for at, type_ in members)
    return Struct("struct", "s", size, "test", {f.name: f for f in fields}.get, lambda: fields)


def test_a_struct_is_aligned_as_its_widest_member() -> None:
    assert struct(8, (0, INT32), (4, INT32)).align == 4
    assert struct(16, (0, INT64), (8, INT32)).align == 8
    assert struct(8, (0, INT8)).align == 1
    assert Tuple((INT32, struct(8, (0, INT32), (4, INT32)))).size == 12


def test_members_of_a_packed_struct_that_stand_askew_do_not_align_it() -> None:
    assert struct(12, (0, INT32), (4, INT64)).align == 4
    assert struct(9, (0, INT8), (1, INT64)).align == 1


def test_a_struct_of_unknown_members_is_aligned_by_its_size() -> None:
    assert struct(24).align == 8
