# SPDX-License-Identifier: Apache-2.0
"""C types as the kernel's format files write them: ``const char *``, ``long unsigned int``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.records import replace
from kcap.sema.types import UINT8, VOID, Array, Integer, Pointer, Space, Type

if TYPE_CHECKING:
    from kcap.kernel.tracefs import Field
    from kcap.sema.kerneltypes import KernelTypes

_QUALIFIERS = frozenset(("const", "volatile", "restrict", "__user", "__rcu", "__percpu", "__iomem"))
MOST_LOCATED = 256
"""Bytes that are read of an array of unknown length (``__data_loc``); strings end before."""

_UNSIGNED_TYPEDEFS = ("u8", "u16", "u32", "u64", "uint", "unsigned")


def type_of(field: Field, types: KernelTypes, space: Space) -> Type:
    """The language's type of an event's field.

    :param space: where its pointers point, and what addresses in its integers are read as.
    """
    found = _type_of(field, types, space)
    return replace(found, space=space) if isinstance(found, Integer) else found


def _type_of(field: Field, types: KernelTypes, space: Space) -> Type:
    stars = field.type.count("*")
    words = tuple(w for w in field.type.replace("*", " ").split() if w not in _QUALIFIERS)
    base = _base_type(words, types)
    if stars:
        pointer: Type = Pointer(base if base is not None else VOID, space)
        for _ in range(stars - 1):
            pointer = Pointer(pointer, space)
        base = pointer
    if field.is_array:
        element = base if base is not None and base.size else UINT8
        size = MOST_LOCATED if field.location else field.size
        return Array(element, size // element.size) if size % element.size == 0 else _bytes(size)
    return _of_size(base, words, field)


def _bytes(size: int) -> Array:
    return Array(UINT8, size)


def _of_size(base: Type | None, words: tuple[str, ...], field: Field) -> Type:
    """``base`` if it has the size that the field has, else an integer (or bytes) that has."""
    if base is not None and base.size == field.size:
        return base
    if field.size not in (1, 2, 4, 8):
        return _bytes(field.size)
    # System call arguments take 8 bytes whatever their type.
    signed = field.signed
    if isinstance(base, Integer):
        signed = base.signed
    elif words and words[0].startswith(_UNSIGNED_TYPEDEFS):
        signed = False
    return Integer(field.size, signed)


def _base_type(words: tuple[str, ...], types: KernelTypes) -> Type | None:
    if not words:
        return None
    if words[0] == "struct":
        return types.struct(words[-1])
    if words[0] == "union":
        return types.union(words[-1])
    if words[0] == "enum":
        return types.enum(words[-1])
    return types.named(_canonical(words))


def _canonical(words: tuple[str, ...]) -> str:
    """``long unsigned int`` and the like as C's shortest spelling."""
    if set(words) <= {"long", "unsigned", "signed", "int", "short", "char"} and len(words) > 1:
        unsigned = "unsigned " if "unsigned" in words else ""
        if "char" in words:
            return f"{unsigned or ('signed ' if 'signed' in words else '')}char"
        for kind in ("short", "long"):
            if kind in words:
                return unsigned + kind
        return f"{unsigned}int"
    return " ".join(words)
