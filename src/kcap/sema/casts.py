# SPDX-License-Identifier: Apache-2.0
"""Explicit casts: ``(type)operand``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.lang import ast
from kcap.lang.diagnostic import Edit
from kcap.records import replace
from kcap.sema import tree
from kcap.sema.coerce import cast as cast_to
from kcap.sema.coerce import coerce, value_of
from kcap.sema.conversion import as_integer, is_string_like, same
from kcap.sema.places import TRACING_PROGRAMS
from kcap.sema.typenames import resolve
from kcap.sema.types import (
    Aggregate,
    Array,
    Boolean,
    Buffer,
    Enum,
    Integer,
    Opaque,
    Pointer,
    String,
    Struct,
    Type,
)

if TYPE_CHECKING:
    from kcap.sema.errors import SemaError
    from kcap.sema.program import Analyzer


def cast(a: Analyzer, node: ast.Cast) -> tree.Expr:
    """``(type)operand``."""
    target = resolve(a, node.type)
    operand = a.expr(node.operand)
    if isinstance(operand.type, Aggregate):
        operand = _read_aggregate(a, node, operand)
    result = _convert(a, node, operand, target)
    if result is None:
        raise _impossible(a, node, operand.type, target)
    if result is operand:  # (T)x of a T is an expression of its own, and no literal
        result = tree.Cast(node.span, target if operand.type == target else operand.type, operand)
    result.span = node.span
    return result


def _read_aggregate(a: Analyzer, node: ast.Cast, operand: tree.Expr) -> tree.Expr:
    value = value_of(operand)
    if value is operand:
        raise a.fail(
            "no-value",
            node.operand.span,
            f"'{operand.type}' has no value of its own in an expression; print the map instead",
        )
    return value


def _convert(a: Analyzer, node: ast.Cast, operand: tree.Expr, target: Type) -> tree.Expr | None:
    if isinstance(target, Array):
        return _to_array(a, node, operand, target)
    if isinstance(operand.type, Array) and isinstance(target, Integer):
        return _array_to_integer(operand, operand.type, target)
    if isinstance(target, Pointer):
        return _to_pointer(a, node, operand, target)
    if isinstance(target, Integer | Boolean | Enum):
        return _to_scalar(a, node, operand, target)
    if isinstance(target, String):
        return _to_string(a, node, operand, target)
    if isinstance(target, Buffer) and isinstance(operand.type, Buffer):
        return operand if not target.capacity else coerce(operand, target)
    return operand if same(operand.type, target) else None


def _to_scalar(
    a: Analyzer, node: ast.Cast, operand: tree.Expr, target: Integer | Boolean | Enum
) -> tree.Expr | None:
    source = operand.type
    if as_integer(source) is None and not isinstance(source, Pointer | Opaque):
        return None
    if isinstance(source, Opaque) and not source.is_scalar:
        return None
    if isinstance(target, Enum) and isinstance(operand, tree.IntegerLiteral):
        if operand.value not in target.values:
            raise a.fail(
                "not-in-enum",
                node.span,
                f"Enum: {target.name} doesn't contain a variant value of {operand.value}",
            )
        return tree.IntegerLiteral(node.span, target, operand.value)
    if isinstance(target, Integer):
        space = source.space if isinstance(source, Integer | Pointer) else "unknown"
        target = replace(target, space=space)
    return tree.Cast(node.span, target, operand)


def _to_pointer(
    a: Analyzer, node: ast.Cast, operand: tree.Expr, target: Pointer
) -> tree.Expr | None:
    source = operand.type
    if isinstance(source, Pointer):
        tracked = source.tracked and same(source.target, target.target)
        type_ = Pointer(target.target, source.space, tracked)
        return tree.Cast(node.span, type_, operand)
    integer = as_integer(source)
    if integer is None:
        return None
    tracked = _is_argument_of(a, operand, target.target)
    type_ = Pointer(target.target, a.space(integer.space), tracked)
    # A pointer is 64 bits wide: what is narrower is extended by its own sign first.
    return tree.Cast(node.span, type_, operand)


def _is_argument_of(a: Analyzer, operand: tree.Expr, target: Type) -> bool:
    """Whether it is ``argN`` of a tracing program whose argument N points to ``target``.

    To the verifier, a load from that slot of the context is the BTF-typed pointer, too.
    """
    args = a.context.args
    if not isinstance(operand, tree.Call) or args is None:
        return False
    name = operand.function.name
    if a.context.program_type not in TRACING_PROGRAMS or not name[3:].isdigit():
        return False
    if not name.startswith("arg"):
        return False
    offset = 8 * int(name[3:])
    found = next((f.type for f in args.all_fields() if f.offset == offset), None)
    return isinstance(found, Pointer) and found.tracked and same(found.target, target)


def _to_string(a: Analyzer, node: ast.Cast, operand: tree.Expr, target: String) -> tree.Expr | None:
    value = value_of(operand) if is_string_like(operand.type) else operand
    if not isinstance(value.type, String):
        return None
    if target.length > a.config.max_strlen and target.length > value.type.length:
        raise a.fail(
            "string-too-long",
            node.type.span,
            f"String type is too long (over {a.config.max_strlen} bytes): {target}",
            help=["Increase BPFTRACE_MAX_STRLEN."],
        )
    return value if not target.length else coerce(value, target)


def _to_array(a: Analyzer, node: ast.Cast, operand: tree.Expr, target: Array) -> tree.Expr | None:
    source, element = operand.type, target.element
    if isinstance(source, Struct) or (as_integer(element) is None and not same(source, target)):
        return None
    if not target.length:
        target = _sized(a, node, source, element)
    target = replace(target, numbers=True)
    if as_integer(source) is not None:
        if target.size not in (1, 2, 4, 8) or target.size < source.size:
            return None
        integer = as_integer(source)
        assert integer is not None
        wide = Integer(target.size, integer.signed)
        return tree.Cast(node.span, target, cast_to(operand, wide))
    if isinstance(source, String | Array) and source.size == target.size:
        return tree.Cast(node.span, target, operand)
    return None


def _sized(a: Analyzer, node: ast.Cast, source: Type, element: Type) -> Array:
    if source.size % element.size:
        raise a.fail(
            "array-size",
            node.span,
            "Cannot determine array size: the element size is incompatible with the cast "
            "integer size",
        )
    return Array(element, source.size // element.size)


def _array_to_integer(operand: tree.Expr, source: Array, target: Integer) -> tree.Expr | None:
    if as_integer(source.element) is None or source.size != target.size:
        return None
    return tree.Cast(operand.span, target, operand)


def _impossible(a: Analyzer, node: ast.Cast, source: Type, target: Type) -> SemaError:
    help_: list[str] = []
    edits: list[Edit] = []
    address = isinstance(source, Integer | Pointer)
    if address and isinstance(target, String | Buffer):
        reads = _reading_call(node, target)
        help_, edits = [f"to read from an address, write {reads}"], [Edit(node.span, reads)]
    elif isinstance(source, Array | String) and isinstance(target, Integer):
        help_ = [f"the sizes have to be equal: {source.size} and {target.size} bytes"]
    elif isinstance(target, Struct):
        help_ = [f"cast to a pointer and read through it: *({target} *)…"]
    return a.fail(
        "invalid-cast",
        node.span,
        f'Cannot cast from "{source}" to "{target}"',
        help=help_,
        edits=edits,
    )


def _reading_call(node: ast.Cast, target: String | Buffer) -> str:
    """What reads a string or bytes from the address that a cast is applied to."""
    name, size = ("str", target.length) if isinstance(target, String) else ("buf", target.capacity)
    given = isinstance(node.type, ast.NamedType) and node.type.size is not None
    limit = f", {size}" if given else ""
    return f"{name}({node.operand.span.text}{limit})"
