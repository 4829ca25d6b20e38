# SPDX-License-Identifier: Apache-2.0
"""Fields, elements and ``args``: expressions that stand for a place in some memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.lang import ast
from kcap.lang.diagnostic import Edit
from kcap.sema import tree
from kcap.sema.coerce import cast as cast_to
from kcap.sema.coerce import value_of
from kcap.sema.conversion import as_integer
from kcap.sema.operators import dereference, pointer_offset
from kcap.sema.types import (
    INT8,
    UINT64,
    Aggregate,
    Array,
    Field,
    Pointer,
    String,
    Struct,
    Tuple,
    Type,
    Void,
)
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from kcap.sema.errors import SemaError
    from kcap.sema.program import Analyzer

TRACING_PROGRAMS = (26, 29)
"""BPF_PROG_TYPE_TRACING and BPF_PROG_TYPE_LSM: their arguments are BTF-typed pointers."""


def args(a: Analyzer, node: ast.Identifier) -> tree.Expr:
    """``args``."""
    found = a.context.args
    if found is None:
        raise a.fail(
            "no-args",
            node.span,
            f"args is not available in {a.context.provider} probes"
            if not a.context.args_missing
            else a.context.args_missing,
            label="there is no args here",
        )
    return tree.Args(node.span, found)


def field(a: Analyzer, node: ast.FieldAccess) -> tree.Expr:
    """``object.field`` and ``object->field``; pointers are followed as often as needed."""
    place = a.expr(node.object)
    while isinstance(place.type, Pointer):
        place = dereference(a, node.object, place)
    type_ = place.type
    if isinstance(type_, Tuple) and type_.names is not None:
        return _record_field(a, node, place, type_)
    if not isinstance(type_, Struct):
        raise _no_fields(a, node, type_)
    found = type_.find(node.field.text)
    if found is None:
        raise _unknown_field(a, node, type_)
    if isinstance(found.type, Void):
        raise a.fail(
            "no-value",
            node.field.span,
            f"Field '{found.name}' of '{type_}' has a type that the language has no values of",
            notes=["there are no floating-point numbers in BPF"],
        )
    tracked = not found.in_union and is_tracked(a, place)
    loaded = a.loaded(found.type, a.space_of(place), tracked)
    return tree.FieldAccess(node.span, loaded, place, found)


def is_tracked(a: Analyzer, place: tree.Expr) -> bool:
    """Whether the verifier knows the BTF type of what stands at a place."""
    if isinstance(place, tree.Args):
        known = a.context.program_type in TRACING_PROGRAMS
        return known and not a.context.extra.get("untyped", False)
    if isinstance(place, tree.Deref):
        return isinstance(place.pointer.type, Pointer) and place.pointer.type.tracked
    if isinstance(place, tree.FieldAccess):
        inside = isinstance(place.type, Struct) and place.type.keyword == "struct"
        return inside and not place.field.in_union and is_tracked(a, place.object)
    return False


def _record_field(a: Analyzer, node: ast.FieldAccess, place: tree.Expr, type_: Tuple) -> tree.Expr:
    assert type_.names is not None
    name = node.field.text
    if name not in type_.names:
        raise a.fail(
            "unknown-field",
            node.field.span,
            f"Record does not contain a field named '{name}'",
            notes=[f"it has {', '.join(type_.names)}"],
        )
    return element(node, place, type_.names.index(name))


def element(node: ast.Node, place: tree.Expr, index: int) -> tree.Expr:
    """An element of a tuple; of a tuple of literals, the literal."""
    assert isinstance(place.type, Tuple)
    if isinstance(place, tree.TupleExpr):
        found = place.elements[index]
        if isinstance(found, tree.IntegerLiteral | tree.StringLiteral):
            return found
    return tree.TupleElement(node.span, place.type.elements[index], place, index)


def _no_fields(a: Analyzer, node: ast.FieldAccess, type_: Type) -> SemaError:
    name = node.field.text
    help_: list[str] = []
    if as_integer(type_) is not None:
        text = node.object.span.text
        help_ = [f"say what it points to: ((struct NAME *){text}).{name}"]
    elif isinstance(type_, Tuple):
        help_ = ["the elements of a tuple are .0, .1, …"]
    return a.fail(
        "no-fields",
        node.span,
        f"Can not access field '{name}' on expression of type '{type_}'",
        labels=[(node.object.span, f"this is '{type_}'")],
        help=help_,
    )


def _unknown_field(a: Analyzer, node: ast.FieldAccess, type_: Struct) -> SemaError:
    name = node.field.text
    if type_.keyword == "args":
        title = f"Can't find function parameter {name}"
    else:
        title = f"Struct/union of type '{type_}' does not contain a field named '{name}'"
    return _no_such_field(a, node.field, type_, title)


def _no_such_field(a: Analyzer, field: ast.Name, type_: Struct, title: str) -> SemaError:
    from kcap.sema.renamedfields import other_name

    name, names = field.text, [item.name for item in type_.all_fields()]
    near = nearest(name, names)
    notes = []
    if not names:
        notes = [f"'{type_}' is only declared: its fields are not known"]
    elif len(names) <= 12:
        who = type_.name if type_.keyword == "args" else "it"
        notes = [f"{who} has {', '.join(names)}"]
    renamed = other_name(type_.name, name, names)
    if renamed is not None:
        near, notes = [renamed[0]], [renamed[1]]
    return a.fail(
        "unknown-field",
        field.span,
        title,
        label="no such field",
        notes=notes,
        help=[f"did you mean {' or '.join(near)}?"] if near else (),
        edits=[Edit(field.span, near[0])] if near else (),
    )


def tuple_access(a: Analyzer, node: ast.TupleAccess) -> tree.Expr:
    """``object.0``."""
    place = a.expr(node.object)
    return _tuple_element(a, node, place, node.index)


def _tuple_element(a: Analyzer, node: ast.Expr, place: tree.Expr, index: int) -> tree.Expr:
    type_ = place.type
    if not isinstance(type_, Tuple):
        raise _no_tuple(a, node, index, type_)
    if index >= len(type_.elements):
        raise a.fail(
            "index-out-of-range",
            node.span,
            f"Invalid tuple index: {index}. Found {len(type_.elements)} elements in tuple.",
        )
    return element(node, place, index)


def _no_tuple(a: Analyzer, node: ast.Expr, index: int, type_: Type) -> SemaError:
    title = f"Can not access index '{index}' on expression of type '{type_}'"
    if isinstance(node, ast.TupleAccess) and isinstance(node.object, ast.Integer):
        help_ = ["there are only integers: write 1500 with a smaller unit instead of 1.5"]
        return a.fail("not-a-tuple", node.span, title, label="no number", help=help_)
    return a.fail("not-a-tuple", node.span, title, help=_by_name(type_))


def _by_name(type_: Type) -> list[str]:
    """What to say to who gives the number of an argument."""
    if not isinstance(type_, Struct) or type_.keyword != "args":
        return []
    return [f"arguments have names: args.{field.name}" for field in type_.all_fields()[:1]]


def array_access(a: Analyzer, node: ast.ArrayAccess) -> tree.Expr:
    """``object[index]`` of an array, a pointer, a string or a tuple."""
    place, index = a.expr(node.object), a.rvalue(node.index)
    if isinstance(place.type, Aggregate):
        place = value_of(place)
    type_ = place.type
    if isinstance(type_, Tuple):
        if not isinstance(index, tree.IntegerLiteral) or index.value < 0:
            raise a.fail("index-not-constant", node.index.span, "A tuple's index is a literal")
        return _tuple_element(a, node, place, index.value)
    if as_integer(index.type) is None:
        raise a.fail(
            "invalid-index",
            node.index.span,
            "The array index operator [] only accepts non-negative integer indices. "
            f"Got: {index.type}",
        )
    if isinstance(type_, Pointer):
        moved = pointer_offset(node, place, index)
        return dereference(a, node, moved)
    if isinstance(type_, String):
        return _string_element(a, node, place, type_, index)
    if not isinstance(type_, Array):
        raise a.fail(
            "not-an-array",
            node.span,
            "The array index operator [] can only be used on arrays, pointers, and tuples, "
            f"found {type_}.",
            help=_by_name(type_),
        )
    return _array_element(a, node, place, type_, index)


def _string_element(
    a: Analyzer, node: ast.ArrayAccess, place: tree.Expr, type_: String, index: tree.Expr
) -> tree.Expr:
    if isinstance(place, tree.StringLiteral) and isinstance(index, tree.IntegerLiteral):
        data = place.value + b"\0"
        if 0 <= index.value < len(data):
            value = int.from_bytes(data[index.value : index.value + 1], "little", signed=True)
            return tree.IntegerLiteral(node.span, INT8, value)
    chars = Array(INT8, type_.length)
    return _array_element(a, node, tree.Cast(place.span, chars, place), chars, index)


def _array_element(
    a: Analyzer, node: ast.ArrayAccess, place: tree.Expr, type_: Array, index: tree.Expr
) -> tree.Expr:
    space = a.space_of(place)
    if type_.length == 0:  # a flexible array member: as far as the memory goes
        pointer = Pointer(type_.element, space)
        first = tree.Cast(place.span, pointer, tree.AddressOf(place.span, pointer, place))
        return dereference(a, node, pointer_offset(node, first, index))
    if isinstance(index, tree.IntegerLiteral) and not 0 <= index.value < type_.length:
        raise a.fail(
            "index-out-of-range",
            node.index.span,
            f"the index {index.value} is out of bounds for array of size {type_.length}",
        )
    element_type = a.loaded(type_.element, space, False)
    if not isinstance(index, tree.IntegerLiteral):
        index = cast_to(index, UINT64)
    return tree.Index(node.span, element_type, place, index)


def offset_of(a: Analyzer, type_: Type, names: list[ast.Name]) -> int:
    """``offsetof(type, a.b.c)`` in bytes.

    :raises SemaError: there is no such field, or it is a bit-field.
    """
    total = 0
    for name in names:
        found: Field | None = type_.find(name.text) if isinstance(type_, Struct) else None
        if found is None:
            title = f"'{type_}' has no field named '{name.text}'"
            if isinstance(type_, Struct):
                raise _no_such_field(a, name, type_, title)
            raise a.fail("unknown-field", name.span, title)
        if found.bit_size:
            title = f"'{name.text}' is a bit-field: it has no offset in bytes"
            raise a.fail("bit-field-offset", name.span, title)
        total += found.offset
        type_ = found.type
    return total
