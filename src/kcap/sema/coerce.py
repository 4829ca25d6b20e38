# SPDX-License-Identifier: Apache-2.0
"""Implicit conversions as nodes of the typed tree."""

from __future__ import annotations

from kcap.records import replace
from kcap.sema import tree
from kcap.sema.conversion import (
    as_integer,
    common_sign,
    element_order,
    integer_fits,
    is_string_like,
    literal_type,
    same,
)
from kcap.sema.types import (
    Aggregate,
    Array,
    Boolean,
    Buffer,
    Enum,
    Integer,
    Pointer,
    String,
    Tuple,
    Type,
    Void,
)


def cast(expr: tree.Expr, type_: Type) -> tree.Expr:
    """``expr`` as ``type_``: itself if it is that already, else under a Cast."""
    return expr if expr.type == type_ else tree.Cast(expr.span, type_, expr)


def is_literal(expr: tree.Expr) -> bool:
    """Whether it is an integer or boolean written as such (or folded), not an enum constant."""
    return isinstance(expr, tree.IntegerLiteral) and not isinstance(expr.type, Enum)


def with_value(expr: tree.Expr, value: int, type_: Type | None = None) -> tree.IntegerLiteral:
    """A literal in the place of ``expr``; its type is the smallest that holds the value."""
    return tree.IntegerLiteral(expr.span, type_ or literal_type(value), value)


def value_of(expr: tree.Expr) -> tree.Expr:
    """What an expression is worth where a value is needed.

    Char arrays in memory become strings, and aggregates the integer they stand for, where they
    have one. What was cast to an array of chars stays one.
    """
    type_ = expr.type
    if is_string_like(type_) and isinstance(expr, tree.FieldAccess | tree.Deref | tree.Index):
        assert isinstance(type_, Array)
        return tree.Cast(expr.span, String(type_.length), expr)
    if isinstance(type_, Aggregate) and type_.castable is not None:
        return tree.Cast(expr.span, type_.castable, expr)
    return expr


def coerce(expr: tree.Expr, target: Type, *, narrow: bool = False) -> tree.Expr | None:
    """``expr`` implicitly converted to ``target``.

    :param narrow: whether an integer may lose bits (compound assignments to a declared type).
    :return: None if there is no such conversion.
    """
    expr = value_of(expr)
    source = expr.type
    if source == target:
        return expr
    integer = as_integer(source)
    if integer is not None and isinstance(target, Integer | Boolean | Enum):
        return _coerce_integer(expr, integer, target, narrow)
    if isinstance(source, String) and isinstance(target, String):
        return _coerce_string(expr, source, target)
    if isinstance(source, Tuple) and isinstance(target, Tuple):
        return _coerce_tuple(expr, source, target)
    if isinstance(source, Buffer) and isinstance(target, Buffer):
        return cast(expr, target) if source.capacity <= target.capacity else None
    if isinstance(source, Pointer) and isinstance(target, Pointer):
        fits = same(source.target, target.target) or Void in (
            type(source.target),
            type(target.target),
        )
        return tree.Cast(expr.span, target, expr) if fits else None
    return expr if same(source, target) else None


def _coerce_integer(
    expr: tree.Expr, source: Integer, target: Integer | Boolean | Enum, narrow: bool
) -> tree.Expr | None:
    wanted = as_integer(target)
    assert wanted is not None
    if isinstance(expr, tree.IntegerLiteral):
        limits = (0, 1) if isinstance(target, Boolean) else (wanted.minimum, wanted.maximum)
        if not narrow and not limits[0] <= expr.value <= limits[1]:
            return None
        if limits[0] <= expr.value <= limits[1]:
            plain = replace(target, flexible=False) if isinstance(target, Integer) else target
            return with_value(expr, expr.value, plain)
    if not narrow and not isinstance(target, Boolean) and source.bytes > wanted.bytes:
        return None
    return cast(expr, target)


def _coerce_string(expr: tree.Expr, source: String, target: String) -> tree.Expr | None:
    if source.length > target.length:
        return None
    if isinstance(expr, tree.StringLiteral):
        return tree.StringLiteral(expr.span, target, expr.value)
    return cast(expr, target)


def _coerce_tuple(expr: tree.Expr, source: Tuple, target: Tuple) -> tree.Expr | None:
    order = element_order(target, source)
    if order is None:
        return None
    if order != sorted(order):
        return _reordered(expr, source, target, order)
    if not isinstance(expr, tree.TupleExpr):
        pairs = zip(source.elements, target.elements, strict=True)
        placeholders = (tree.Expr(expr.span, have) for have, _ in pairs)
        if any(coerce(p, t) is None for p, t in zip(placeholders, target.elements, strict=True)):
            return None
        return tree.Cast(expr.span, target, expr)
    elements = [coerce(e, t) for e, t in zip(expr.elements, target.elements, strict=True)]
    found = [element for element in elements if element is not None]
    return tree.TupleExpr(expr.span, target, found) if len(found) == len(elements) else None


def _reordered(expr: tree.Expr, source: Tuple, target: Tuple, order: list[int]) -> tree.Expr | None:
    """A record whose fields stand in another order: evaluated as written, then put in order."""
    variable = tree.Variable("$record", source)
    body: list[tree.Stmt] = [tree.AssignVariable(expr.span, variable, expr)]
    whole = tree.VariableRef(expr.span, source, variable)
    elements: list[tree.Expr] = []
    for at, type_ in zip(order, target.elements, strict=True):
        element = coerce(tree.TupleElement(expr.span, source.elements[at], whole, at), type_)
        if element is None:
            return None
        elements.append(element)
    result = tree.TupleExpr(expr.span, target, elements)
    return tree.BlockExpr(expr.span, target, body, result)


def changes_sign(source: Type, target: Type) -> bool:
    """Whether a value may turn from negative to positive or back when it is converted."""
    left, right = as_integer(source), as_integer(target)
    if left is None or right is None or left.flexible:
        return False
    left, right = common_sign(left, right)
    return left.signed != right.signed and not integer_fits(left, right)
