# SPDX-License-Identifier: Apache-2.0
"""How types go together: promotion of what is assigned to one variable, and what fits into what.

The rules are those of bpftrace 0.27 (docs/language.md, "Data Types" and docs/type_resolution.md).
All of this is about types alone; :mod:`kcap.sema.coerce` turns it into nodes.
"""

from __future__ import annotations

from kcap.records import replace
from kcap.sema.types import (
    INT64,
    Aggregate,
    Array,
    Boolean,
    Buffer,
    Enum,
    Integer,
    Pointer,
    Space,
    String,
    Struct,
    Tuple,
    Type,
    Unresolved,
    Void,
)


def literal_type(value: int) -> Integer:
    """The type of an integer literal: the smallest signed one, uint64 above the largest int64.

    Non-negative ones are flexible: ``$a = 1; $a = (uint64)2`` makes ``$a`` a uint64.

    :param value: -2**63 ≤ value < 2**64.
    """
    for size in (1, 2, 4, 8):
        if -(1 << (8 * size - 1)) <= value < 1 << (8 * size - 1):
            return Integer(size, True, flexible=value >= 0)
    return Integer(8, False)


def as_integer(type_: Type) -> Integer | None:
    """The integer type of the same representation, for what arithmetic takes; else None."""
    if isinstance(type_, Integer):
        return type_
    if isinstance(type_, Enum):
        return type_.integer
    if isinstance(type_, Boolean):
        return Integer(1, False, flexible=True)
    return None


def common_sign(left: Integer, right: Integer) -> tuple[Integer, Integer]:
    """Both, where a flexible one took the sign of one that is not."""
    if left.flexible and not right.flexible:
        left = replace(left, signed=right.signed, flexible=False)
    elif right.flexible and not left.flexible:
        right = replace(right, signed=left.signed, flexible=False)
    return left, right


def promote_integers(current: Integer, new: Integer) -> Integer:
    """The integer type that holds both; int64 where none does (uint64 with a signed one)."""
    space: Space = current.space if current.space == new.space else "unknown"
    left, right = common_sign(current, new)
    flexible = left.flexible and right.flexible
    if left.signed == right.signed:
        return Integer(max(left.bytes, right.bytes), left.signed, flexible, space)
    signed, unsigned = (left, right) if left.signed else (right, left)
    if signed.bytes > unsigned.bytes:
        return replace(signed, space=space)
    return Integer(2 * unsigned.bytes, True, space=space) if unsigned.bytes < 8 else INT64


def promote(current: Type, new: Type) -> Type | None:
    """The type of a variable of type ``current`` that something of type ``new`` is assigned to.

    :return: None if the two don't go together.
    """
    if isinstance(current, Unresolved):
        return new
    if isinstance(new, Unresolved):
        return current
    left, right = as_integer(current), as_integer(new)
    if left is not None and right is not None:
        if current == new and not isinstance(current, Integer):
            return current
        if isinstance(current, Enum) and isinstance(new, Enum) and current.name == new.name:
            return current if current.bytes >= new.bytes else new
        return promote_integers(left, right)
    if isinstance(current, Pointer) and isinstance(new, Pointer):
        return _promote_pointers(current, new)
    if isinstance(current, String) and isinstance(new, String):
        return String(max(current.length, new.length))
    if isinstance(current, Buffer) and isinstance(new, Buffer):
        return Buffer(max(current.capacity, new.capacity))
    if isinstance(current, Tuple) and isinstance(new, Tuple):
        return _promote_tuples(current, new)
    if isinstance(current, Aggregate) and isinstance(new, Aggregate):
        return current.merge(new)
    return current if same(current, new) else None


def _promote_pointers(current: Pointer, new: Pointer) -> Pointer | None:
    target = current.target
    if not same(target, new.target):
        if isinstance(target, Void):
            target = new.target
        elif not isinstance(new.target, Void):
            return None
    space = current.space if current.space == new.space else "unknown"
    return Pointer(target, space, current.tracked and new.tracked)


def _promote_tuples(current: Tuple, new: Tuple) -> Tuple | None:
    order = element_order(current, new)
    if order is None:
        return None
    elements = [
        promote(element, new.elements[at])
        for element, at in zip(current.elements, order, strict=True)
    ]
    found = [element for element in elements if element is not None]
    return Tuple(tuple(found), current.names) if len(found) == len(elements) else None


def element_order(target: Tuple, source: Tuple) -> list[int] | None:
    """For each element of ``target``, which element of ``source`` goes there.

    Records go by name, tuples by position; None if the shapes differ.
    """
    if len(target.elements) != len(source.elements):
        return None
    if target.names is None or source.names is None:
        return list(range(len(target.elements))) if target.names == source.names else None
    if set(target.names) != set(source.names):
        return None
    return [source.names.index(name) for name in target.names]


def same(left: Type, right: Type) -> bool:
    """Whether two types are the same, however they were found (struct types by their tag)."""
    if left == right:
        return True
    if isinstance(left, Struct) and isinstance(right, Struct):
        return bool(left.name) and str(left) == str(right)
    if isinstance(left, Pointer) and isinstance(right, Pointer):
        return same(left.target, right.target)
    if isinstance(left, Array) and isinstance(right, Array):
        return left.length == right.length and same(left.element, right.element)
    return False


def identical(left: Type, right: Type) -> bool:
    """Whether two types are equal in what comparing them leaves out, too (flexible, tracked)."""
    if left is right or left != right:
        return left is right
    if isinstance(left, Integer) and isinstance(right, Integer):
        return left.flexible == right.flexible and left.space == right.space
    if isinstance(left, Tuple) and isinstance(right, Tuple):
        return all(map(identical, left.elements, right.elements))
    return repr(left) == repr(right)


def integer_fits(source: Integer, target: Integer) -> bool:
    """Whether every value of ``source`` is one of ``target``."""
    return target.minimum <= source.minimum and source.maximum <= target.maximum


def arithmetic_type(left: Integer, right: Integer, op: str) -> Integer:
    """The type of ``left op right``: 64 bits, signed if an operand is or for a subtraction."""
    left, right = common_sign(left, right)
    space = left.space if left.space != "unknown" else right.space
    return Integer(8, left.signed or right.signed or op == "-", space=space)


def comparison_type(left: Integer, right: Integer) -> Integer:
    """The type that both are compared as: one that holds both, int64 if none does."""
    return promote_integers(*common_sign(left, right))


def is_string_like(type_: Type) -> bool:
    """Whether it is an array of chars, which the language takes for a string."""
    if not isinstance(type_, Array) or type_.length == 0:
        return False
    element = type_.element
    return isinstance(element, Integer) and element.bytes == 1 and element.signed
