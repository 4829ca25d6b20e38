# SPDX-License-Identifier: Apache-2.0
"""Statements: assignments, declarations, branches, loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kcap.lang import ast
from kcap.lang.diagnostic import Edit
from kcap.sema import calls, tree
from kcap.sema.coerce import changes_sign, coerce, value_of
from kcap.sema.conversion import as_integer, promote, promote_integers
from kcap.sema.endless import check_end
from kcap.sema.errors import PendingType, SemaError
from kcap.sema.operators import check_condition, operate
from kcap.sema.scopes import Local, Origin, mismatch
from kcap.sema.typenames import resolve
from kcap.sema.types import (
    INT64,
    UNRESOLVED,
    VOID,
    Aggregate,
    Integer,
    Pointer,
    String,
    Tuple,
    Type,
    Unresolved,
    Void,
)

if TYPE_CHECKING:
    from kcap.sema.program import Analyzer

MAX_UNROLL = 100


# --- variables ------------------------------------------------------------------------------


def assign(a: Analyzer, node: ast.Assign) -> list[tree.Stmt]:
    """``target = value`` and ``target += value`` and so on."""
    if isinstance(node.target, ast.Variable):
        return [_assign_variable(a, node, node.target)]
    return [_assign_map(a, node, node.target)]


def _assign_variable(a: Analyzer, node: ast.Assign, target: ast.Variable) -> tree.Stmt:
    if node.binary_op is not None:
        left = a.expr(target)
        value = operate(a, node.binary_op, node, left, a.rvalue(node.value))
        local = a.scopes.find(target.name)
        assert local is not None
        return store(a, local, value, narrow=True)
    try:
        value = a.rvalue(node.value)
    except SemaError:
        _break(a, target)
        raise
    return store(a, a.scopes.find(target.name) or declare(a, target, "assignment"), value)


def _break(a: Analyzer, target: ast.Variable) -> None:
    """Declare a variable whose first value is wrong, so that its uses aren't reported, too."""
    if a.scopes.find(target.name) is None:
        local = declare(a, target, "assignment")
        local.broken = local.assigned = True


def declare(a: Analyzer, node: ast.Variable, origin: Origin) -> Local:
    """A new variable in the innermost scope.

    :raises SemaError: an outer scope has one of that name.
    """
    earlier = a.scopes.find(node.name)
    if earlier is not None:
        what = (
            f"Loop declaration shadows existing variable: {node.name}"
            if origin == "loop variable"
            else f"Variable {node.name} was already declared. Variable shadowing is not allowed."
        )
        label = f"This is the initial {earlier.origin}."
        raise a.fail("shadowing", node.span, what, labels=[(earlier.span, label)])
    facts = a.variables.of((a.key, node))
    variable = tree.Variable(node.name, facts.type)
    local = Local(variable, facts, node.span, origin)
    a.scopes.add(local)
    return local


def store(a: Analyzer, local: Local, value: tree.Expr, *, narrow: bool = False) -> tree.Stmt:
    """``variable = value``: the variable's type grows, and the value is converted to it."""
    local.assigned = True
    type_ = value.type
    if local.named and str(type_) != local.named:
        raise mismatch(local, type_, value.span)
    if isinstance(type_, Pointer) and type_.tracked and local.origin == "declaration":
        type_ = Pointer(type_.target, type_.space)  # it may still hold the zero it started with
    target = a.variables.grow(local, type_, value.span)
    converted = coerce(value, target, narrow=narrow)
    if converted is None:
        raise mismatch(local, value.type, value.span)
    warn_sign(a, value, target)
    return tree.AssignVariable(value.span, local.variable, converted)


def warn_sign(a: Analyzer, value: tree.Expr, target: Type) -> None:
    """Warn of an implicit conversion that may turn a negative number into a positive one."""
    if not isinstance(value, tree.IntegerLiteral) and changes_sign(value.type, target):
        a.warn(
            "sign-mismatch",
            value.span,
            f"implicit cast from '{value.type}' to '{target}' may change the value's sign",
            help=[f"cast it to say that this is meant: ({target})"],
        )


def let(a: Analyzer, node: ast.Let) -> list[tree.Stmt]:
    """``let $x``, with or without a type and a value."""
    try:
        value = a.rvalue(node.value) if node.value is not None else None
        type_ = resolve(a, node.type) if node.type is not None else None
    except SemaError:
        _break(a, node.variable)
        raise
    if isinstance(type_, Aggregate | Void):
        assert node.type is not None
        title = f"Invalid variable declaration type: {type_}"
        raise a.fail("invalid-variable-type", node.type.span, title)
    local = declare(a, node.variable, "declaration" if value is None else "assignment")
    if type_ is not None:
        assert node.type is not None
        _check_string_size(a, node.type, type_)
        a.variables.set(local, promote(local.facts.type, type_) or type_, node.type.span)
        local.fixed = type_.size > 0
        if isinstance(type_, Unresolved) and isinstance(node.type, ast.NamedType):
            local.named = node.type.name
    if value is not None:
        return [store(a, local, value)]
    if isinstance(local.facts.type, Unresolved):  # nothing ever gives it a type, or uses it
        return []
    return [tree.AssignVariable(node.span, local.variable, None)]


def _check_string_size(a: Analyzer, node: ast.TypeNode, type_: Type) -> None:
    if isinstance(type_, String) and type_.length > a.config.max_strlen:
        raise a.fail(
            "string-too-long",
            node.span,
            f"String type is too long (over {a.config.max_strlen} bytes): {type_}",
            help=["Increase BPFTRACE_MAX_STRLEN."],
        )


# --- maps -----------------------------------------------------------------------------------


def _assign_map(a: Analyzer, node: ast.Assign, target: ast.Map | ast.MapAccess) -> tree.Stmt:
    if node.binary_op is not None:
        left = a.expr(target)
        if isinstance(left.type, Aggregate):
            left = value_of(left)
        value = operate(a, node.binary_op, node, left, a.rvalue(node.value))
    elif isinstance(node.value, ast.BlockExpr) and isinstance(node.value.block.value, ast.Call):
        return _assign_block(a, node, target, node.value.block, node.value.block.value)
    elif isinstance(node.value, ast.Call):
        call = node.value
        value = _map_value(a, target, lambda: calls.call(a, call, target=target))
        if isinstance(value.type, Aggregate) and isinstance(value, tree.Call):
            map_, key = a.set_map_value(target, value.type)
            return tree.UpdateAggregate(node.span, map_, key, value)
    else:
        value = _map_value(a, target, lambda: a.expr(node.value))
        _check_copy(a, node, target, value)
    return _store_map(a, node, target, a.as_value(value))


def _assign_block(
    a: Analyzer,
    node: ast.Assign,
    target: ast.Map | ast.MapAccess,
    block: ast.Block,
    call: ast.Call,
) -> tree.Stmt:
    """``@x = { …; count() }``: the call at the end may be one that updates the map."""
    a.scopes.push()
    try:
        body = a.statements(block.statements)
        value = _map_value(a, target, lambda: calls.call(a, call, target=target))
    finally:
        a.end_scope()
    if not isinstance(value.type, Aggregate):
        value = a.as_value(value)
        whole = tree.BlockExpr(node.value.span, value.type, body, value)
        return _store_map(a, node, target, whole)
    assert isinstance(value, tree.Call)
    map_, key = a.set_map_value(target, value.type)
    body.append(tree.UpdateAggregate(node.span, map_, key, value))
    return tree.ExprStmt(node.span, tree.BlockExpr(node.span, VOID, body, None))


def _map_value(
    a: Analyzer, target: ast.Map | ast.MapAccess, evaluate: Callable[[], tree.Expr]
) -> tree.Expr:
    """The value assigned to a map; with the key noted even if the value is not known yet."""
    try:
        return evaluate()
    except SemaError as error:
        facts, _ = a.map_element(target)
        if isinstance(error, PendingType):
            facts.pending = True
        else:
            facts.broken = True
        raise


def _check_copy(
    a: Analyzer, node: ast.Assign, target: ast.Map | ast.MapAccess, value: tree.Expr
) -> None:
    """Refuse an aggregate as the value of another map, unless that map holds integers."""
    if isinstance(value.type, Aggregate):
        current = a.maps.of(_map(target).name).map.value
        if value.type.castable is None or as_integer(current) is None:
            raise _aggregate_copy(a, node, target, value)


def _map(target: ast.Map | ast.MapAccess) -> ast.Map:
    return target if isinstance(target, ast.Map) else target.map


def _aggregate_copy(
    a: Analyzer, node: ast.Assign, target: ast.Map | ast.MapAccess, value: tree.Expr
) -> SemaError:
    help_ = []
    name = _map(target).name
    if isinstance(value.type, Aggregate) and value.type.castable is not None:
        help_ = [
            "Add a cast to integer if you want the value of the aggregate, "
            f"e.g. `{name} = (int64){node.value.span.text};`."
        ]
    return a.fail(
        "aggregate-copy",
        node.span,
        f"Map value '{value.type}' cannot be assigned from one map to another. "
        "The function that returns this type must be called directly",
        help=help_,
        edits=[Edit(node.value.span.at_start(), "(int64)")] if help_ else (),
    )


def _store_map(
    a: Analyzer, node: ast.Assign, target: ast.Map | ast.MapAccess, value: tree.Expr
) -> tree.Stmt:
    facts, key = a.map_element(target)
    if isinstance(facts.map.value, Aggregate):
        raise _over_aggregate(a, node, facts.map, value)
    if isinstance(value.type, Pointer) and value.type.tracked:
        # What comes back out of a map is a number to the verifier.
        value = tree.Cast(value.span, Pointer(value.type.target, value.type.space), value)
    type_ = a.maps.set_value(facts, value.type, value.span)
    converted = coerce(value, type_)
    if converted is None:
        raise a.fail(
            "type-mismatch",
            value.span,
            f"Type mismatch for {facts.map.name}: trying to assign value of type '{value.type}' "
            f"when map already has a type '{type_}'",
        )
    warn_sign(a, value, type_)
    return tree.AssignMap(node.span, facts.map, key, converted)


def _over_aggregate(a: Analyzer, node: ast.Assign, map_: tree.Map, value: tree.Expr) -> SemaError:
    return a.fail(
        "type-mismatch",
        value.span,
        f"Type mismatch for {map_.name}: trying to assign value of type '{value.type}' when map "
        f"already has a type '{map_.value}'",
        help=[f"clear({map_.name}) resets it"],
    )


# --- expressions as statements --------------------------------------------------------------


def expression(a: Analyzer, node: ast.ExprStatement) -> list[tree.Stmt]:
    """An expression whose value is not used: a warning, unless it has an effect or none."""
    inner = node.expression
    if isinstance(inner, ast.If):
        return branch(a, inner)
    if isinstance(inner, ast.BlockExpr) and inner.block.value is None:
        return [tree.ExprStmt(node.span, a.expr(inner))]
    try:
        expr = _unused(a, inner)
    except SemaError:  # ended with the first; a call may well have several variables
        for undefined in calls.undefined_variables(a, inner):
            a.note(undefined)
        raise
    quiet = isinstance(expr, tree.IncDec) or isinstance(expr.type, Void)
    if isinstance(expr, tree.Call) and expr.function.discardable:
        quiet = True
    if not quiet:
        title = "Return value discarded."
        edit = Edit(inner.span.at_start(), "_ = ")
        a.warn_edit("discarded", node.span, title, f"_ = {inner.span.text};", edit)
    return [tree.ExprStmt(node.span, expr)]


def _unused(a: Analyzer, node: ast.Expr) -> tree.Expr:
    if isinstance(node, ast.Call):
        return calls.call(a, node, statement=True)
    return a.expr(node)


def discard(a: Analyzer, node: ast.Discard) -> list[tree.Stmt]:
    """``_ = expression``."""
    return [tree.ExprStmt(node.span, a.expr(node.expression))]


def return_(a: Analyzer, node: ast.Return) -> list[tree.Stmt]:
    """``return`` and ``return value``, an integer."""
    if node.value is None:
        return [tree.Return(node.span, None)]
    value = a.rvalue(node.value)
    if as_integer(value.type) is None:
        raise a.fail(
            "return-type",
            node.value.span,
            f"Probe return values can only be integers. Found {value.type}",
        )
    return [tree.Return(node.span, coerce(value, INT64, narrow=True))]


# --- branches -------------------------------------------------------------------------------


def condition(a: Analyzer, node: ast.Expr, what: str) -> tree.Expr:
    """A condition; if it is wrong, that is noted, and what it guards is analysed all the same."""
    expr = a.attempt(lambda: a.rvalue(node))
    if expr is None:
        return tree.IntegerLiteral(node.span, INT64, 0)
    a.attempt(lambda: check_condition(a, expr, what))
    return expr


def branch(a: Analyzer, node: ast.If) -> list[tree.Stmt]:
    """``if`` as a statement; of ``if comptime`` only the branch that is taken."""
    if isinstance(node.condition, ast.Comptime):
        taken = comptime(a, node.condition)
        chosen = node.then if taken else node.otherwise
        if isinstance(chosen, ast.If):
            return branch(a, chosen)
        return a.block(chosen) if chosen is not None else []
    test = condition(a, node.condition, "condition")
    then = a.block(node.then)
    if isinstance(node.otherwise, ast.If):
        otherwise = a.guarded(lambda inner: branch(a, inner), node.otherwise)
    else:
        otherwise = a.block(node.otherwise) if node.otherwise is not None else []
    return [tree.If(node.span, test, then, otherwise)]


def comptime(a: Analyzer, node: ast.Comptime) -> bool:
    """Whether a condition that has to be known at compile time holds.

    It is decided when all types are known as far as they are without the branches: a variable that
    it asks about may be widened further down.

    :raises PendingType: that time has not come.
    :raises SemaError: it can't be known, or the branch that is taken changes the answer.
    """
    shared, key = a.shared, (a.key, node)
    if key not in shared.decided and not (a.final or shared.deciding):
        shared.undecided = True
        raise PendingType(a.fail("not-constant", node.span, "not decided yet").diagnostic)
    value = a.rvalue(node.operand)
    if not isinstance(value, tree.StringLiteral | tree.IntegerLiteral):
        raise a.fail("not-constant", node.span, "Unable to resolve comptime expression")
    holds = bool(value.value)
    if key not in shared.decided and not a.final:
        shared.decided[key] = holds
        raise PendingType(a.fail("not-constant", node.span, "decided just now").diagnostic)
    if holds != shared.decided.get(key, holds):
        raise a.fail(
            "comptime-changed",
            node.span,
            "this is no longer so once the branch that it chooses is compiled",
            notes=("the branch changes a type that the condition asks about",),
        )
    return holds


# --- loops ----------------------------------------------------------------------------------


def while_(a: Analyzer, node: ast.While) -> list[tree.Stmt]:
    """``while (condition) { … }``."""
    test = condition(a, node.condition, "condition")
    with a.loop():
        body = a.block(node.body)
    check_end(a, node.condition.span, test, body)
    return [tree.While(node.span, test, body)]


def unroll(a: Analyzer, node: ast.Unroll) -> list[tree.Stmt]:
    """``unroll (n) { … }``."""
    times = a.attempt(lambda: a.integer_literal(node.count, "the number of rounds of unroll"))
    if times is not None and times > MAX_UNROLL:
        a.note(a.fail("unroll-count", node.count.span, f"unroll maximum value is {MAX_UNROLL}"))
    elif times is not None and times < 1:
        a.note(a.fail("unroll-count", node.count.span, "unroll minimum value is 1"))
    body = a.block(node.body)
    return [tree.Unroll(node.span, times or 1, body)]


def for_(a: Analyzer, node: ast.For) -> list[tree.Stmt]:
    """``for ($kv : @map)`` and ``for ($i : a..b)``."""
    a.scopes.push()
    try:
        if isinstance(node.iterable, ast.Range):
            return [_for_range(a, node, node.iterable)]
        if isinstance(node.iterable, ast.Map):
            return [_for_map(a, node, node.iterable)]
    finally:
        a.end_scope()
    raise a.fail(
        "not-iterable",
        node.iterable.span,
        "a for loop goes over a map or a range of integers",
        help=["for ($kv : @map) { … }", "for ($i : 0..10) { … }"],
    )


def _for_range(a: Analyzer, node: ast.For, range_: ast.Range) -> tree.Stmt:
    start = a.attempt(lambda: _bound(a, range_.start, "start"))
    end = a.attempt(lambda: _bound(a, range_.end, "end"))
    type_: Type = UNRESOLVED
    if start is not None and end is not None:
        left, right = as_integer(start.type), as_integer(end.type)
        assert left is not None
        assert right is not None
        type_ = promote_integers(left, right)
    local, body = _loop_body(a, node, type_)
    zero = tree.IntegerLiteral(node.span, INT64, 0)
    type_ = local.facts.type
    first = coerce(start, type_, narrow=True) if start is not None else None
    last = coerce(end, type_, narrow=True) if end is not None else None
    return tree.ForRange(node.span, local.variable, first or zero, last or zero, body)


def _bound(a: Analyzer, node: ast.Expr, which: str) -> tree.Expr:
    value = a.rvalue(node)
    if as_integer(value.type) is None:
        title = f"Loop range requires an integer for the {which} value"
        raise a.fail("range-bound", node.span, title, label=f"this is '{value.type}'")
    return value


def _for_map(a: Analyzer, node: ast.For, iterable: ast.Map) -> tree.Stmt:
    facts = a.maps.of(iterable.name)
    facts.mentioned = True
    facts.mention_at = facts.mention_at or iterable.span
    if facts.keyed is False:
        a.note(
            a.fail(
                "scalar-map",
                iterable.span,
                f"{iterable.name} has no explicit keys (scalar map), and cannot be used for "
                "iteration",
                labels=[(facts.used_at, "used without a key here")] if facts.used_at else (),
            )
        )
    local, body = _loop_body(a, node, _element_type(a, iterable, facts.map))
    return tree.ForMap(node.span, local.variable, facts.map, body)


def _element_type(a: Analyzer, iterable: ast.Map, map_: tree.Map) -> Type:
    value = map_.value
    if isinstance(value, Aggregate):
        if value.castable is None:
            title = f"Loop expression does not support type: {value}"
            a.note(a.fail("not-iterable", iterable.span, title))
            return UNRESOLVED
        value = value.castable
    if map_.key is None or isinstance(value, Unresolved):
        return UNRESOLVED
    return Tuple((map_.key, value))


def _loop_body(a: Analyzer, node: ast.For, type_: Type) -> tuple[Local, list[tree.Stmt]]:
    shadowed = a.scopes.find(node.variable.name)
    if shadowed is not None:
        a.attempt(lambda: declare(a, node.variable, "loop variable"))
        local = shadowed
    else:
        local = declare(a, node.variable, "loop variable")
        local.assigned = True
        local.broken = isinstance(type_, Unresolved)
        if not isinstance(type_, Unresolved):
            a.variables.set(local, promote(local.facts.type, type_) or type_, node.variable.span)
    with a.loop():
        body = a.block(node.body)
    if isinstance(local.facts.type, Integer) and isinstance(type_, Integer):
        a.variables.set(local, promote(local.facts.type, type_) or type_, node.variable.span)
    return local, body


def jump(a: Analyzer, node: ast.Break | ast.Continue) -> list[tree.Stmt]:
    """``break`` and ``continue``, inside a loop only."""
    word = "break" if isinstance(node, ast.Break) else "continue"
    if not a.loop_depth:
        raise a.fail("not-in-loop", node.span, f"'{word}' statement is not allowed in a probe")
    return [tree.Break(node.span) if word == "break" else tree.Continue(node.span)]


def import_(a: Analyzer, node: ast.Import) -> list[tree.Stmt]:
    """``import`` inside a block: bpftrace's standard library is built into kcap, no other is."""
    if node.path.value.startswith("stdlib/"):
        return []
    raise a.fail(
        "import",
        node.span,
        "only parts of the standard library can be imported inside a block",
        help=["import it at the top of the script"],
    )
