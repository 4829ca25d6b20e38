# SPDX-License-Identifier: Apache-2.0
"""Questions about types that take more than one record: sizes, qualifiers, members by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.btf import types as t
from kcap.btf.errors import BtfError
from kcap.records import dataclass

if TYPE_CHECKING:
    from kcap.btf.btf import Btf

POINTER_SIZE = 8
"""Bytes of a pointer: kcap runs on 64-bit kernels only."""

_STRIPPED = (*t.MODIFIERS, t.Typedef)


def strip_modifiers(btf: Btf, type_id: int) -> t.Type:
    """The type behind ``const``, ``volatile``, ``restrict`` and type tags; typedefs stay."""
    found = btf.type(type_id)
    while isinstance(found, t.MODIFIERS):
        found = btf.type(found.type_id)
    return found


def resolve(btf: Btf, type_id: int) -> t.Type:
    """The type behind qualifiers, type tags and typedefs."""
    found = btf.type(type_id)
    while isinstance(found, _STRIPPED):
        found = btf.type(found.type_id)
    return found


def type_tags(btf: Btf, type_id: int) -> tuple[str, ...]:
    """The type tags (``user``, ``percpu``, ``rcu``) on a type, the outermost first.

    A tag on a pointer stands on what it points to: ask for the pointer's ``type_id``.
    """
    tags = []
    found = btf.type(type_id)
    while isinstance(found, _STRIPPED):
        if isinstance(found, t.TypeTag):
            tags.append(found.name)
        found = btf.type(found.type_id)
    return tuple(tags)


def size_of(btf: Btf, type_id: int) -> int:
    """Size of a type in bytes.

    :raises BtfError: the type has no size (``void``, a function, a forward declaration).
    """
    count = 1
    found = resolve(btf, type_id)
    while isinstance(found, t.Array):
        count *= found.length
        found = resolve(btf, found.type_id)
    if isinstance(found, t.Ptr):
        return count * POINTER_SIZE
    if isinstance(found, t.Int | t.Composite | t.Enum | t.Float | t.Datasec):
        return count * found.size
    if isinstance(found, t.Var):
        return count * size_of(btf, found.type_id)
    raise BtfError(f"{type(found).__name__} {found.name or found.id} has no size")


@dataclass(slots=True, eq=False)
class FoundMember:
    """A member found by name, perhaps inside anonymous structs and unions.

    :param member: the member as declared.
    :param bit_offset: from the start of the outermost struct, in bits.
    :param parent: the innermost struct or union, the one that declares it.
    """

    member: t.Member
    bit_offset: int
    parent: t.Composite

    @property
    def offset(self) -> int:
        """Offset in whole bytes (of the byte the first bit lies in)."""
        return self.bit_offset >> 3


def find_member(btf: Btf, composite: t.Composite, name: str) -> FoundMember | None:
    """A member by name, looked for in anonymous structs and unions too, as C does.

    :return: None if there is no such member.
    """
    for member in composite.members:
        if member.name == name:
            return FoundMember(member, member.bit_offset, composite)
        if not member.name:
            inner = strip_modifiers(btf, member.type_id)
            if isinstance(inner, t.Composite):
                found = find_member(btf, inner, name)
                if found is not None:
                    found.bit_offset += member.bit_offset
                    return found
    return None


def member_names(btf: Btf, composite: t.Composite) -> list[str]:
    """Names of all members that ``find_member`` can find, in the order of declaration."""
    names: list[str] = []
    for member in composite.members:
        if member.name:
            names.append(member.name)
            continue
        inner = strip_modifiers(btf, member.type_id)
        if isinstance(inner, t.Composite):
            names += member_names(btf, inner)
    return names


def tracepoint_prototype(btf: Btf, event: str) -> t.FuncProto | None:
    """The arguments of a raw tracepoint, without the leading ``void *__data``.

    The typedef ``btf_trace_EVENT`` that the verifier reads has no parameter names; the function
    ``__traceiter_EVENT`` (5.10 and later, include/linux/tracepoint.h) has them, where present.

    :return: None if the BTF has no such tracepoint.
    """
    typedef = btf.find(f"btf_trace_{event}", t.Typedef)
    pointer = resolve(btf, typedef.type_id) if typedef is not None else None
    proto = resolve(btf, pointer.type_id) if isinstance(pointer, t.Ptr) else None
    if not isinstance(proto, t.FuncProto):
        return None
    function = btf.find(f"__traceiter_{event}", t.Func)
    if function is not None:
        named = btf.prototype(function)
        if len(named.params) == len(proto.params):
            proto = named
    return t.FuncProto(proto.id, "", 0, proto.params[1:], proto.variadic)
