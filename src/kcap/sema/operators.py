# SPDX-License-Identifier: Apache-2.0
"""Operators: what operands they take, the type of the result, and folding of literals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from kcap.lang import ast
from kcap.sema import tree
from kcap.sema.coerce import cast as cast_to
from kcap.sema.coerce import coerce, is_literal, value_of, with_value
from kcap.sema.conversion import (
    arithmetic_type,
    as_integer,
    comparison_type,
    promote,
    same,
)
from kcap.sema.fold import COMPARISONS, FoldError, fold, invert, negate
from kcap.sema.types import (
    BOOL,
    INT8,
    INT64,
    UINT64,
    Aggregate,
    Array,
    Boolean,
    Buffer,
    Integer,
    Opaque,
    Pointer,
    String,
    Struct,
    Tuple,
    Type,
    Void,
)

if TYPE_CHECKING:
    from kcap.sema.errors import SemaError
    from kcap.sema.program import Analyzer

BITWISE = ("&", "|", "^")


def is_condition(type_: Type) -> bool:
    """Whether it is true or false: integers, booleans, enums, pointers."""
    return as_integer(type_) is not None or isinstance(type_, Pointer)


# --- two operands ---------------------------------------------------------------------------


def binary(a: Analyzer, node: ast.Binary) -> tree.Expr:
    """``left op right``."""
    left, right = a.rvalue(node.left), a.rvalue(node.right)
    return operate(a, node.op, node, left, right)


def operate(a: Analyzer, op: str, node: ast.Node, left: tree.Expr, right: tree.Expr) -> tree.Expr:
    """``left op right`` of typed operands; ``node`` is what the result stands for."""
    if op in ("&&", "||"):
        return _logical(a, op, node, left, right)
    folded = _fold(a, op, node, left, right)
    if folded is not None:
        return folded
    if isinstance(left.type, Pointer) or isinstance(right.type, Pointer):
        return _pointers(a, op, node, left, right)
    left_int, right_int = as_integer(left.type), as_integer(right.type)
    if left_int is not None and right_int is not None:
        return _integers(op, node, left, right)
    if op in COMPARISONS:
        return _compare(a, op, node, left, right)
    raise _not_for(a, op, node, left, right)


def _logical(a: Analyzer, op: str, node: ast.Node, left: tree.Expr, right: tree.Expr) -> tree.Expr:
    for operand in (left, right):
        check_condition(a, operand, f"operand of {op}")
    if isinstance(left, tree.IntegerLiteral) and isinstance(right, tree.IntegerLiteral):
        both = bool(left.value) and bool(right.value)
        either = bool(left.value) or bool(right.value)
        return tree.IntegerLiteral(node.span, BOOL, int(both if op == "&&" else either))
    return tree.Logical(node.span, BOOL, cast(Literal["&&", "||"], op), left, right)


def check_condition(a: Analyzer, expr: tree.Expr, what: str) -> None:
    """Refuse what is neither true nor false.

    :param what: for the message: 'condition', 'operand of &&'.
    :raises SemaError: it is a string, a struct, …
    """
    if not is_condition(expr.type):
        raise a.fail(
            "not-a-condition",
            expr.span,
            f"a {what} has to be an integer, a boolean or a pointer, not '{expr.type}'",
            help=['compare it, such as != ""'] if isinstance(expr.type, String) else (),
        )


def _fold(
    a: Analyzer, op: str, node: ast.Node, left: tree.Expr, right: tree.Expr
) -> tree.Expr | None:
    if isinstance(left, tree.StringLiteral):
        return _fold_strings(op, node, left, right)
    if not (isinstance(left, tree.IntegerLiteral) and isinstance(right, tree.IntegerLiteral)):
        return None
    if not (is_literal(left) and is_literal(right)):
        return None
    if op in COMPARISONS:
        return tree.IntegerLiteral(node.span, BOOL, int(COMPARISONS[op](left.value, right.value)))
    try:
        value = fold(op, left.value, right.value)
    except FoldError as error:
        raise a.fail("constant-overflow", node.span, str(error)) from None
    if op in BITWISE and left.type == right.type == BOOL:
        return tree.IntegerLiteral(node.span, BOOL, value)
    return with_value(tree.Expr(node.span, INT64), value)


def _fold_strings(
    op: str, node: ast.Node, left: tree.StringLiteral, right: tree.Expr
) -> tree.Expr | None:
    if isinstance(right, tree.StringLiteral):
        if op == "+":
            return string_literal(node, left.value + right.value)
        if op in ("==", "!="):
            equal = left.value == right.value
            return tree.IntegerLiteral(node.span, BOOL, int(equal == (op == "==")))
    if op == "+" and isinstance(right, tree.IntegerLiteral) and right.value >= 0:
        return string_literal(node, left.value[right.value :])
    return None


def string_literal(node: ast.Node, value: bytes) -> tree.StringLiteral:
    """A string constant in the place of ``node``."""
    return tree.StringLiteral(node.span, String(len(value) + 1), value)


def _integers(op: str, node: ast.Node, left: tree.Expr, right: tree.Expr) -> tree.Expr:
    left_int, right_int = as_integer(left.type), as_integer(right.type)
    assert left_int is not None
    assert right_int is not None
    operator = cast(tree.BinaryOp, op)
    if op in COMPARISONS:
        common: Type = comparison_type(left_int, right_int)
        operands = (_as(left, common), _as(right, common))
        return tree.Binary(node.span, BOOL, operator, *operands)
    if op in BITWISE and isinstance(left.type, Boolean) and isinstance(right.type, Boolean):
        return tree.Binary(node.span, BOOL, operator, left, right)
    result = arithmetic_type(left_int, right_int, op)
    return tree.Binary(node.span, result, operator, _as(left, result), _as(right, result))


def _as(expr: tree.Expr, type_: Type) -> tree.Expr:
    """An integer operand as the type that the operation is done in."""
    return coerce(expr, type_) or cast_to(expr, type_)


def _compare(a: Analyzer, op: str, node: ast.Node, left: tree.Expr, right: tree.Expr) -> tree.Expr:
    operator = cast(tree.BinaryOp, op)
    if type(left.type) is not type(right.type) or promote(left.type, right.type) is None:
        raise a.fail(
            "type-mismatch",
            node.span,
            f"Type mismatch for '{op}': comparing {left.type} with {right.type}",
            labels=[(left.span, f"left ({left.type})"), (right.span, f"right ({right.type})")],
        )
    if op not in ("==", "!=") or not _has_equality(left.type):
        raise _not_for(a, op, node, left, right)
    if isinstance(left.type, Tuple):
        common = promote(left.type, right.type)
        assert common is not None
        left, right = coerce(left, common) or left, coerce(right, common) or right
    return tree.Binary(node.span, BOOL, operator, left, right)


def _has_equality(type_: Type) -> bool:
    if isinstance(type_, Array):
        return as_integer(type_.element) is not None
    return isinstance(type_, String | Buffer | Tuple | Opaque)


def _not_for(a: Analyzer, op: str, node: ast.Node, left: tree.Expr, right: tree.Expr) -> SemaError:
    return a.fail(
        "invalid-operands",
        node.span,
        f"The {op} operator can not be used on expressions of types {left.type}, {right.type}",
        labels=[(left.span, str(left.type)), (right.span, str(right.type))],
    )


# --- pointers -------------------------------------------------------------------------------


def _pointers(a: Analyzer, op: str, node: ast.Node, left: tree.Expr, right: tree.Expr) -> tree.Expr:
    pointer, other = (left, right) if isinstance(left.type, Pointer) else (right, left)
    assert isinstance(pointer.type, Pointer)
    if op in COMPARISONS:
        return _compare_pointers(a, op, node, left, right)
    if as_integer(other.type) is None or op not in ("+", "-"):
        raise _not_for(a, op, node, left, right)
    if op == "-":
        if pointer is right:
            raise _not_for(a, op, node, left, right)
        other = _negated(other)
    return pointer_offset(node, pointer, other)


def _negated(index: tree.Expr) -> tree.Expr:
    if isinstance(index, tree.IntegerLiteral):
        return with_value(index, -index.value, INT64)
    return tree.Unary(index.span, INT64, "-", _as(index, INT64))


def pointer_offset(node: ast.Node, pointer: tree.Expr, index: tree.Expr) -> tree.Expr:
    """``pointer + index``; a void pointer counts bytes. The result is not tracked."""
    type_ = pointer.type
    assert isinstance(type_, Pointer)
    result = Pointer(type_.target, type_.space)
    index = _as(index, INT64)
    if not isinstance(type_.target, Void):
        return tree.PointerOffset(node.span, result, pointer, index)
    bytes_ = Pointer(INT8, type_.space)
    moved = tree.PointerOffset(node.span, bytes_, cast_to(pointer, bytes_), index)
    return tree.Cast(node.span, result, moved)


def _compare_pointers(
    a: Analyzer, op: str, node: ast.Node, left: tree.Expr, right: tree.Expr
) -> tree.Expr:
    operator = cast(tree.BinaryOp, op)
    if isinstance(left.type, Pointer) and isinstance(right.type, Pointer):
        targets = (left.type.target, right.type.target)
        if not same(*targets) and Void not in map(type, targets):
            title = f"comparison of distinct pointer types: {targets[0]}, {targets[1]}"
            a.warn("distinct-pointers", node.span, title)
            right = tree.Cast(right.span, left.type, right)
        return tree.Binary(node.span, BOOL, operator, left, right)
    for operand in (left, right):
        if not isinstance(operand.type, Pointer) and as_integer(operand.type) is None:
            raise _not_for(a, op, node, left, right)
    return tree.Binary(node.span, BOOL, operator, _as(left, UINT64), _as(right, UINT64))


# --- one operand ----------------------------------------------------------------------------


def unary(a: Analyzer, node: ast.Unary) -> tree.Expr:
    """``-x``, ``~x``, ``!x``, ``*x``, ``&x``. What is unsigned keeps its width."""
    if node.op == "*":
        return dereference(a, node, a.expr(node.operand))
    if node.op == "&":
        return _address(a, node)
    operand = a.rvalue(node.operand)
    if node.op == "!":
        return _not(a, node, operand)
    integer = as_integer(operand.type)
    if integer is None or isinstance(operand.type, Boolean):
        raise a.fail(
            "invalid-operands",
            node.span,
            f"The {node.op} operator can not be used on expressions of type '{operand.type}'",
        )
    if isinstance(operand, tree.IntegerLiteral) and is_literal(operand):
        try:
            value = negate(operand.value) if node.op == "-" else invert(operand.value)
        except FoldError as error:
            raise a.fail("constant-overflow", node.span, str(error)) from None
        return with_value(tree.Expr(node.span, INT64), value)
    result = Integer(8, integer.signed, space=integer.space)
    computed = tree.Unary(node.span, result, node.op, _as(operand, result))
    return (
        computed
        if integer.signed
        else cast_to(computed, Integer(integer.bytes, False, space=integer.space))
    )


def _not(a: Analyzer, node: ast.Unary, operand: tree.Expr) -> tree.Expr:
    check_condition(a, operand, "operand of !")
    if isinstance(operand, tree.IntegerLiteral) and is_literal(operand):
        return tree.IntegerLiteral(node.span, BOOL, int(not operand.value))
    return tree.Unary(node.span, BOOL, "!", operand)


def dereference(a: Analyzer, node: ast.Node, operand: tree.Expr) -> tree.Expr:
    """``*operand``; ``*args`` is ``args``, and an integer counts as a pointer to uint64."""
    type_ = operand.type
    if isinstance(type_, Aggregate):
        operand = value_of(operand)
        type_ = operand.type
    if isinstance(type_, Struct) and type_.keyword == "args":
        return operand
    if isinstance(type_, Integer):
        type_ = Pointer(UINT64, a.space(type_.space))
        operand = tree.Cast(operand.span, type_, operand)
    if not isinstance(type_, Pointer):
        raise a.fail(
            "not-a-pointer",
            node.span,
            f"Can not dereference type '{type_}'. It is not a pointer.",
            label=f"this is '{type_}'",
        )
    if type_.target.size == 0 and not isinstance(type_.target, Array):
        raise a.fail(
            "unknown-size",
            node.span,
            f"Can not dereference '{type_}': what it points to is not known",
            help=["cast it to a pointer to a type first, such as (uint64 *)"],
        )
    return tree.Deref(node.span, a.loaded(type_.target, type_.space, False), operand)


def _address(a: Analyzer, node: ast.Unary) -> tree.Expr:
    place = a.expr(node.operand)
    addressable = (tree.VariableRef, tree.MapRead, tree.FieldAccess, tree.Deref, tree.Index)
    if not isinstance(place, addressable):
        raise a.fail(
            "no-address",
            node.span,
            "& takes the address of a variable, a map, or a field; this is none",
        )
    if isinstance(place, tree.VariableRef):
        a.scopes.mark_assigned(place.variable.name)
    return tree.AddressOf(node.span, Pointer(place.type, a.space_of(place)), place)


def step(a: Analyzer, node: ast.Step) -> tree.Expr:
    """``++x``, ``x++``, ``--x``, ``x--``: grows the target to 64 bits."""
    target = a.expr(node.target)
    if not isinstance(target, tree.VariableRef | tree.MapRead):
        raise a.fail(
            "not-assignable",
            node.span,
            f"The {node.op} operator must be applied to a map or variable",
        )
    type_ = target.type
    integer = as_integer(type_)
    if integer is None and not isinstance(type_, Pointer):
        raise a.fail(
            "invalid-operands",
            node.span,
            f"The {node.op} operator can not be used on expressions of type '{type_}'",
        )
    if integer is not None:
        wide = Integer(8, integer.signed or node.op == "--")
        type_ = a.grow(target, wide, node.span)
        target.type = type_
    return tree.IncDec(node.span, type_, target, node.op, node.prefix)
