# SPDX-License-Identifier: Apache-2.0
"""The remaining expressions, and which function analyses which kind of node."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kcap.lang import ast
from kcap.sema import calls, casts, operators, places, statements, tree, typenames
from kcap.sema.coerce import coerce
from kcap.sema.conversion import as_integer, literal_type, promote
from kcap.sema.errors import SemaError
from kcap.sema.types import (
    VOID,
    Tuple,
    Unresolved,
    Void,
)

if TYPE_CHECKING:
    from kcap.sema.program import Analyzer


# --- literals and variables -----------------------------------------------------------------


def integer(a: Analyzer, node: ast.Integer) -> tree.Expr:
    """An integer literal."""
    return tree.IntegerLiteral(node.span, literal_type(node.value), node.value)


def string(a: Analyzer, node: ast.String) -> tree.Expr:
    """A string literal."""
    return operators.string_literal(node, node.data)


def variable(a: Analyzer, node: ast.Variable) -> tree.Expr:
    """``$x``."""
    local = a.scopes.find(node.name)
    if local is None:
        raise calls.undefined(a, node)
    if local.broken and isinstance(local.facts.type, Unresolved):
        raise a.consequential(node.span)
    if not local.assigned and not a.meta_depth and local.origin == "declaration":
        a.warn(
            "used-before-assigned",
            node.span,
            f"Variable used before it was assigned: {node.name}",
            help=["it is zero here"],
        )
    type_ = a.known(local.facts.type, node.span, node.name)
    return tree.VariableRef(node.span, type_, local.variable)


def map_(a: Analyzer, node: ast.Map | ast.MapAccess) -> tree.Expr:
    """``@x`` or ``@x[key]``."""
    facts, key = a.map_element(node)
    if facts.broken and isinstance(facts.map.value, Unresolved):
        raise a.consequential(node.span)
    type_ = a.known(facts.map.value, node.span, facts.map.name)
    return tree.MapRead(node.span, type_, facts.map, key)


# --- several parts --------------------------------------------------------------------------


def tuple_(a: Analyzer, node: ast.Tuple) -> tree.Expr:
    """``(a, b)``."""
    elements = [_element(a, element, "tuple") for element in node.elements]
    type_ = Tuple(tuple(element.type for element in elements))
    return tree.TupleExpr(node.span, type_, elements)


def record(a: Analyzer, node: ast.Record) -> tree.Expr:
    """``(name=value, …)``."""
    names = [item.name.text for item in node.fields]
    for index, item in enumerate(node.fields):
        if item.name.text in names[:index]:
            title = f"the record has two fields named '{item.name.text}'"
            raise a.fail("duplicate-field", item.name.span, title)
    elements = [_element(a, item.value, "record") for item in node.fields]
    type_ = Tuple(tuple(element.type for element in elements), tuple(names))
    return tree.TupleExpr(node.span, type_, elements)


def _element(a: Analyzer, node: ast.Expr, what: str) -> tree.Expr:
    expr = a.rvalue(node)
    if isinstance(expr.type, Void):
        raise a.fail("no-value", node.span, f"a {what} can't hold what has no value")
    return expr


# --- choices --------------------------------------------------------------------------------


def ternary(a: Analyzer, node: ast.Ternary) -> tree.Expr:
    """``condition ? then : otherwise``; without ``then`` it is the condition's value."""
    test = a.rvalue(node.condition)
    operators.check_condition(a, test, "condition")
    if node.then is None:
        return _or_else(a, node, test)
    then, otherwise = a.as_branch(node.then), a.as_branch(node.otherwise)
    return choose(a, node, test, then, otherwise)


def _or_else(a: Analyzer, node: ast.Ternary, test: tree.Expr) -> tree.Expr:
    variable_ = tree.Variable("$condition", test.type)
    first = tree.AssignVariable(test.span, variable_, test)
    value = tree.VariableRef(test.span, test.type, variable_)
    chosen = choose(a, node, value, value, a.as_branch(node.otherwise))
    if isinstance(chosen, tree.Ternary):
        return tree.BlockExpr(node.span, chosen.type, [first], chosen)
    return chosen


def choose(
    a: Analyzer, node: ast.Expr, test: tree.Expr, then: tree.Expr, otherwise: tree.Expr
) -> tree.Expr:
    """One of two values, both converted to the type that holds either."""
    if isinstance(then.type, Void) and isinstance(otherwise.type, Void):
        return tree.Ternary(node.span, VOID, test, then, otherwise)
    common = promote(then.type, otherwise.type)
    first = coerce(then, common) if common is not None else None
    second = coerce(otherwise, common) if common is not None else None
    if common is None or first is None or second is None:
        if common is not None and as_integer(common) is not None:  # int64 with uint64
            first = coerce(then, common, narrow=True)
            second = coerce(otherwise, common, narrow=True)
        if common is None or first is None or second is None:
            raise _different(a, node, then, otherwise)
    if isinstance(test, tree.IntegerLiteral):
        return first if test.value else second
    return tree.Ternary(node.span, common, test, first, second)


def _different(a: Analyzer, node: ast.Expr, then: tree.Expr, otherwise: tree.Expr) -> SemaError:
    return a.fail(
        "branch-types",
        node.span,
        "Branches must return the same type or compatible types: "
        f"have '{then.type}' and '{otherwise.type}'",
        labels=[(then.span, f"'{then.type}'"), (otherwise.span, f"'{otherwise.type}'")],
    )


def if_(a: Analyzer, node: ast.If) -> tree.Expr:
    """``if`` as an expression."""
    if isinstance(node.condition, ast.Comptime):
        chosen = node.then if statements.comptime(a, node.condition) else node.otherwise
        if chosen is None:
            return tree.BlockExpr(node.span, VOID, [], None)
        return if_(a, chosen) if isinstance(chosen, ast.If) else block_value(a, chosen)
    test = a.rvalue(node.condition)
    operators.check_condition(a, test, "condition")
    then = block_value(a, node.then)
    if node.otherwise is None:
        empty = tree.BlockExpr(node.span, VOID, [], None)
        return tree.Ternary(node.span, VOID, test, _without_value(then), empty)
    if isinstance(node.otherwise, ast.If):
        otherwise = if_(a, node.otherwise)
    else:
        otherwise = block_value(a, node.otherwise)
    return choose(a, node, test, then, otherwise)


def _without_value(expr: tree.Expr) -> tree.Expr:
    if isinstance(expr.type, Void):
        return expr
    return tree.BlockExpr(expr.span, VOID, [tree.ExprStmt(expr.span, expr)], None)


def block(a: Analyzer, node: ast.BlockExpr) -> tree.Expr:
    """``{ …; value }``."""
    return block_value(a, node.block)


def block_value(a: Analyzer, node: ast.Block) -> tree.Expr:
    """A block with its value; Void without one."""
    a.scopes.push()
    try:
        body = a.statements(node.statements)
        if node.value is None:
            return tree.BlockExpr(node.span, VOID, body, None)
        value = a.as_branch(node.value)
    finally:
        a.end_scope()
    if isinstance(value.type, Void):
        body.append(tree.ExprStmt(value.span, value))
        return tree.BlockExpr(node.span, VOID, body, None)
    if not body and isinstance(value, tree.IntegerLiteral | tree.StringLiteral):
        return value
    return tree.BlockExpr(node.span, value.type, body, value)


def comptime(a: Analyzer, node: ast.Comptime) -> tree.Expr:
    """``comptime expression``: has to fold to a literal."""
    value = a.rvalue(node.operand)
    if not isinstance(value, tree.IntegerLiteral | tree.StringLiteral):
        raise a.fail("not-constant", node.span, "Unable to resolve comptime expression")
    return value


def type_argument(a: Analyzer, node: ast.Typeof) -> tree.Expr:
    """``typeof(x)`` where a value is needed."""
    raise a.fail(
        "type-as-value",
        node.span,
        "typeof() is a type; a value is needed here",
        help=["typeof() may stand in casts, declarations, sizeof() and calls of macros"],
    )


def range_(a: Analyzer, node: ast.Range) -> tree.Expr:
    """``a..b`` outside of a ``for``."""
    raise a.fail("range-as-value", node.span, "a range may only stand in a for loop")


EXPRESSIONS: dict[type[ast.Expr], Callable[[Any, Any], tree.Expr]] = {
    ast.ArrayAccess: places.array_access,
    ast.Binary: operators.binary,
    ast.BlockExpr: block,
    ast.Boolean: lambda _, node: typenames.boolean(node),
    ast.Call: calls.call,
    ast.Cast: casts.cast,
    ast.Comptime: comptime,
    ast.FieldAccess: places.field,
    ast.Identifier: calls.identifier,
    ast.If: if_,
    ast.Integer: integer,
    ast.Map: map_,
    ast.MapAccess: map_,
    ast.Offsetof: typenames.offsetof,
    ast.PositionalCount: calls.positional_count,
    ast.PositionalParam: calls.positional,
    ast.Range: range_,
    ast.Record: record,
    ast.Sizeof: typenames.sizeof,
    ast.Step: operators.step,
    ast.String: string,
    ast.Ternary: ternary,
    ast.Tuple: tuple_,
    ast.TupleAccess: places.tuple_access,
    ast.Typeinfo: typenames.typeinfo,
    ast.Typeof: type_argument,
    ast.Unary: operators.unary,
    ast.Variable: variable,
}

STATEMENTS: dict[type[ast.Stmt], Callable[[Any, Any], list[tree.Stmt]]] = {
    ast.Assign: statements.assign,
    ast.Break: statements.jump,
    ast.Continue: statements.jump,
    ast.Discard: statements.discard,
    ast.ExprStatement: statements.expression,
    ast.For: statements.for_,
    ast.Import: statements.import_,
    ast.Let: statements.let,
    ast.Return: statements.return_,
    ast.Unroll: statements.unroll,
    ast.While: statements.while_,
}
