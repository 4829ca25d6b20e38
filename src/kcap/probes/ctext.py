# SPDX-License-Identifier: Apache-2.0
"""C declarations as in the kernel's format files: ``const char * filename``, ``u8 b[4]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kcap.sema.types import UINT8, VOID, Array, Integer, Pointer, Space, Type

if TYPE_CHECKING:
    from kcap.sema.kerneltypes import KernelTypes

_QUALIFIERS = frozenset(("const", "volatile", "restrict", "__user", "__rcu", "__percpu", "__iomem"))
_UNSIGNED_TYPEDEFS = ("u8", "u16", "u32", "u64", "uint", "unsigned")


@dataclass(frozen=True, slots=True)
class Declaration:
    """A parsed declaration.

    :param name: what it declares.
    :param base: the words of the type without qualifiers, stars and brackets.
    :param stars: how many pointers there are around it.
    :param is_array: whether there are brackets; how many elements follows from the size.
    :param location: ``__data_loc`` or ``__rel_loc`` where the value stands elsewhere, or ''.
    """

    name: str
    base: tuple[str, ...]
    stars: int
    is_array: bool
    location: str


def parse_declaration(text: str) -> Declaration:
    """Take ``text`` (without the semicolon) apart."""
    is_array = "[" in text
    while "[" in text:
        before, _, rest = text.partition("[")
        text = f"{before} {rest.partition(']')[2]}"
    stars = text.count("*")
    words = [w for w in text.replace("*", " ").split() if w not in _QUALIFIERS]
    location = ""
    if words and words[0] in ("__data_loc", "__rel_loc"):
        location = words.pop(0)
    name = words.pop() if words else ""
    return Declaration(name, tuple(words), stars, is_array, location)


def type_of(found: Declaration, size: int, signed: bool, types: KernelTypes, space: Space) -> Type:
    """The language's type of a declared field.

    :param size: its bytes as the format file says.
    :param signed: whether it is signed as the format file says, for types that nobody knows.
    :param space: where its pointers point.
    """
    base = _base_type(found.base, types)
    if found.stars:
        pointer: Type = Pointer(base if base is not None else VOID, space)
        for _ in range(found.stars - 1):
            pointer = Pointer(pointer, space)
        base = pointer
    if found.is_array:
        element = base if base is not None and base.size else UINT8
        if size % element.size:
            element = UINT8
        return Array(element, size // element.size)
    return _of_size(base, found, size, signed)


def _of_size(base: Type | None, found: Declaration, size: int, signed: bool) -> Type:
    """``base`` if it has the size that the field has, else an integer (or bytes) that has."""
    if base is not None and base.size == size:
        return base
    if size not in (1, 2, 4, 8):
        return Array(UINT8, size)
    # System call arguments take 8 bytes whatever their type.
    if isinstance(base, Integer):
        signed = base.signed
    elif found.base[:1] and found.base[0].startswith(_UNSIGNED_TYPEDEFS):
        signed = False
    return Integer(size, signed)


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
