# SPDX-License-Identifier: Apache-2.0
"""Analysis of one probe's block: what the modules of expressions and statements work with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostic, Diagnostics, Edit
from kcap.records import dataclass, field, replace
from kcap.sema import tree
from kcap.sema.coerce import coerce, value_of
from kcap.sema.config import Config
from kcap.sema.conversion import as_integer
from kcap.sema.defines import Defines
from kcap.sema.errors import ConsequentialError, PendingType, SemaError, sema_error
from kcap.sema.expressions import EXPRESSIONS, STATEMENTS
from kcap.sema.maps import MapFacts, MapTable
from kcap.sema.operators import check_condition
from kcap.sema.scopes import Scopes, VariableTable
from kcap.sema.types import (
    Aggregate,
    Integer,
    Pointer,
    Space,
    Struct,
    Type,
    Unresolved,
    Void,
)

if TYPE_CHECKING:
    from typing import Unpack

    from kcap.lang.source import Span
    from kcap.sema.errors import ErrorDetails
    from kcap.sema.function import Callable_
    from kcap.sema.kerneltypes import KernelTypes
    from kcap.sema.parameters import NamedParameters
    from kcap.sema.probe import ProbeContext

T = TypeVar("T")

_EXPANDED = re.compile(r"(\$\w+)#\d+")
JUMPS = (ast.Return, ast.Break, ast.Continue)


@dataclass(slots=True)
class Shared:
    """What all programs of a script share."""

    functions: Mapping[str, Callable_]
    types: KernelTypes
    config: Config
    parameters: Sequence[str]
    unsafe: bool
    defines: Defines
    maps: MapTable
    named: NamedParameters
    child_pid: int = 0
    unwound_files: Callable[[], tuple[str, ...]] | None = None
    variables: VariableTable = field(default_factory=VariableTable)
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    seen: set[tuple[str, Span | None, str]] = field(default_factory=set)
    #: Conditions of ``if comptime``, by program: whether they hold; whether some are open; and
    #: whether they are to be decided now.
    decided: dict[tuple[object, ast.Comptime], bool] = field(default_factory=dict)
    undecided: bool = False
    deciding: bool = False
    #: Only functions were used that are ``lasting``.
    lasting: bool = True

    def add(self, diagnostic: Diagnostic) -> None:
        """Note a finding, once for a place."""
        diagnostic = _as_written(diagnostic)
        key = (diagnostic.code, diagnostic.span, diagnostic.title)
        if key not in self.seen:
            self.seen.add(key)
            self.diagnostics.add(diagnostic)


def _as_written(diagnostic: Diagnostic) -> Diagnostic:
    """Variables of macros under the name that the macro has for them (``$y``, not ``$y#1``)."""
    if "#" not in diagnostic.title and not any("#" in text for text in diagnostic.help):
        return diagnostic
    return replace(
        diagnostic,
        title=_EXPANDED.sub(r"\1", diagnostic.title),
        labels=tuple(replace(b, text=_EXPANDED.sub(r"\1", b.text)) for b in diagnostic.labels),
        help=tuple(_EXPANDED.sub(r"\1", text) for text in diagnostic.help),
    )


class Analyzer:
    """Analyses one program (a probe's block for one context), in one pass.

    :param shared: the script's tables.
    :param context: the probe.
    :param key: what identifies the program from pass to pass.
    :param final: whether this is the last pass: all types are known, findings count.
    """

    def __init__(self, shared: Shared, context: ProbeContext, key: object, final: bool) -> None:
        self.shared = shared
        self.context = context
        self.key = key
        self.final = final
        self.functions = shared.functions
        self.types = shared.types
        self.config = shared.config
        self.parameters = shared.parameters
        self.unsafe = shared.unsafe
        self.named = shared.named
        self.child_pid = shared.child_pid
        self.unwound_files = shared.unwound_files
        self.defines = shared.defines
        self.maps = shared.maps
        self.variables = shared.variables
        self.scopes = Scopes()
        self.loop_depth = 0
        self.meta_depth = 0
        self._expanding: list[str] = []

    # Programs, blocks and statements

    def program(self, probe: ast.Probe) -> tree.Program:
        """The typed program of a probe's block."""
        predicate = None
        if probe.predicate is not None:
            predicate = self._predicate(probe.predicate)
        body = self.block(probe.block)
        return tree.Program(probe.span, self.context, predicate, body)

    def _predicate(self, node: ast.Expr) -> tree.Expr | None:
        self.scopes.push()
        try:
            expr = self.attempt(lambda: self.rvalue(node))
            if expr is not None:
                self.attempt(lambda: check_condition(self, expr, "predicate"))
            return expr
        finally:
            self.end_scope()

    def block(self, node: ast.Block) -> list[tree.Stmt]:
        """The statements of a block, in a scope of their own."""
        self.scopes.push()
        try:
            nodes = list(node.statements)
            if node.value is not None:
                nodes.append(ast.ExprStatement(node.value.span, node.value))
            return self.statements(nodes)
        finally:
            self.end_scope()

    def statements(self, nodes: Iterable[ast.Stmt]) -> list[tree.Stmt]:
        """Statements in the current scope; those that are wrong are noted and left out."""
        body: list[tree.Stmt] = []
        jumped = warned = False
        for node in nodes:
            if jumped and not warned:
                self.warn("unreachable", node.span, "Unreachable statement.")
                warned = True
            found = self.guarded(self._statement, node)
            if not jumped:
                body += found
            jumped = jumped or (bool(found) and _leaves(node))
        return body

    def _statement(self, node: ast.Stmt) -> list[tree.Stmt]:
        handler = STATEMENTS.get(type(node))
        if handler is None:
            raise self.fail("misplaced", node.span, "this statement can't stand here")
        return handler(self, node)

    def guarded(self, handler: Callable[[T], list[tree.Stmt]], node: T) -> list[tree.Stmt]:
        """What ``handler`` makes of a node; nothing, and a finding, if that is wrong."""
        return self.attempt(lambda: handler(node)) or []

    def attempt(self, action: Callable[[], T]) -> T | None:
        """The result of an action; None, and a finding, if it fails."""
        try:
            return action()
        except SemaError as error:
            self.note(error)
            return None

    def note(self, error: Exception) -> None:
        """Note an error without ending the statement; only the last pass's count."""
        silent = isinstance(error, ConsequentialError)
        if self.final and isinstance(error, SemaError) and not silent:
            self.shared.add(error.diagnostic)

    def end_scope(self) -> None:
        """Leave a scope; variables that were declared and never set are warned of."""
        for local in self.scopes.pop():
            if not local.assigned and local.origin == "declaration":
                name = local.variable.name
                self.warn("never-assigned", local.span, f"Variable {name} was never assigned to.")

    @contextmanager
    def loop(self) -> Iterator[None]:
        """While in the body of a loop."""
        self.loop_depth += 1
        try:
            yield
        finally:
            self.loop_depth -= 1

    @contextmanager
    def unevaluated(self) -> Iterator[None]:
        """While in an expression of which only the type counts."""
        self.meta_depth += 1
        self.scopes.push()
        try:
            yield
        finally:
            self.scopes.pop()
            self.meta_depth -= 1

    # Expressions

    def expr(self, node: ast.Expr) -> tree.Expr:
        """The typed form of an expression."""
        return EXPRESSIONS[type(node)](self, node)

    def rvalue(self, node: ast.Expr) -> tree.Expr:
        """The same, with char arrays turned into strings and aggregates into their integer.

        :raises SemaError: it has no value.
        """
        return self.as_value(self.expr(node))

    def as_value(self, expr: tree.Expr) -> tree.Expr:
        """An expression's value: see :meth:`rvalue`."""
        value = value_of(expr)
        if isinstance(value.type, Void):
            raise self.fail("no-value", expr.span, "this has no value", label="of type void")
        if isinstance(value.type, Aggregate):
            raise self.fail(
                "no-value",
                expr.span,
                f"'{value.type}' has no value of its own in an expression",
                help=["print() the map instead"],
            )
        return value

    def as_branch(self, node: ast.Expr) -> tree.Expr:
        """The value of a branch, which may be void."""
        expr = self.expr(node)
        return expr if isinstance(expr.type, Void) else self.as_value(expr)

    def known(self, type_: Type, span: Span, name: str) -> Type:
        """``type_``, if it is known by now.

        :raises PendingType: it isn't.
        """
        if isinstance(type_, Unresolved):
            title = f"Could not resolve the type of {name}"
            raise PendingType(sema_error("unknown-type-of", span, title).diagnostic)
        return type_

    def consequential(self, span: Span) -> SemaError:
        """An error to raise for what follows from one that was reported already."""
        return ConsequentialError(sema_error("consequence", span, "of an earlier error").diagnostic)

    def expand_define(self, node: ast.Identifier, defined: ast.Expr) -> tree.Expr:
        """The expression that a ``#define`` stands for, in the place of its name."""
        if node.name in self._expanding:
            raise self.fail("recursive-define", node.span, f"{node.name} is defined by itself")
        self._expanding.append(node.name)
        try:
            expr = self.expr(defined)
        except SemaError as error:
            raise SemaError(replace(error.diagnostic, span=node.span, edits=())) from error
        finally:
            self._expanding.pop()
        expr.span = node.span
        return expr

    # Maps

    def map_element(self, node: ast.Map | ast.MapAccess) -> tuple[MapFacts, tree.Expr | None]:
        """Note a read or write of a map's element; the map and its key, converted.

        :raises SemaError: the key does not go with the map's other keys.
        """
        if isinstance(node, ast.Map):
            return self.maps.use(node.name, False, node.span), None
        facts = self.maps.use(node.map.name, True, node.span)
        return facts, self.map_key(facts.map, node.key)

    def map_key(self, map_: tree.Map, node: ast.Expr) -> tree.Expr:
        """A key of a map as its keys' type, which it may widen.

        :raises SemaError: it does not go with the map's other keys.
        """
        key = self.rvalue(node)
        facts = self.maps.of(map_.name)
        type_ = self.maps.set_key(facts, _untracked(key.type), key.span)
        converted = coerce(key, type_) or coerce(key, type_, narrow=True)
        if converted is None:
            title = f"a key of type '{key.type}' can't be turned into '{type_}'"
            raise self.fail("key-mismatch", key.span, title)
        return converted

    def map_argument(self, node: ast.Expr, what: str) -> tuple[tree.Map, tree.Expr | None]:
        """The map that an argument names and the key, if it has one (``@x[1]``)."""
        if isinstance(node, ast.MapAccess):
            facts, key = self.map_element(node)
            return facts.map, key
        if not isinstance(node, ast.Map):
            raise self.fail("not-a-map", node.span, f"{what} has to be a map", label="not a map")
        facts = self.maps.of(node.name)
        facts.mentioned = True
        facts.mention_at = facts.mention_at or node.span
        return facts.map, None

    def set_map_value(
        self, access: ast.Map | ast.MapAccess, type_: Type
    ) -> tuple[tree.Map, tree.Expr | None]:
        """Note that the map that ``access`` names has values of ``type_``; its map and key."""
        facts, key = self.map_element(access)
        self.maps.set_value(facts, type_, access.span)
        return facts.map, key

    def grow(self, target: tree.VariableRef | tree.MapRead, type_: Type, span: Span) -> Type:
        """Note that something of ``type_`` is stored in what was read; its type after that."""
        if isinstance(target, tree.MapRead):
            return self.maps.set_value(self.maps.of(target.map.name), type_, span)
        local = self.scopes.find(target.variable.name)
        assert local is not None
        local.assigned = True
        return self.variables.grow(local, type_, span)

    # Conversions and constants

    def convert(self, expr: tree.Expr, type_: Type, what: str) -> tree.Expr:
        """``expr`` converted to ``type_`` as an implicit conversion.

        :param what: what it is for: 'the length of skboutput()'.
        :raises SemaError: when there is no such conversion.
        """
        converted = coerce(expr, type_)
        if converted is None and not isinstance(expr, tree.IntegerLiteral):
            both = as_integer(expr.type) is not None and isinstance(type_, Integer)
            converted = coerce(expr, type_, narrow=True) if both else None
        if converted is None:
            raise self.fail(
                "argument-type",
                expr.span,
                f"{what} has to be of type '{type_}', not '{expr.type}'",
                label=f"this is '{expr.type}'",
            )
        return converted

    def string_literal(self, node: ast.Expr, what: str) -> str:
        """The text of a node that has to be a literal string."""
        help_ = []
        if isinstance(node, ast.PositionalParam):
            help_ = [f"Use str(${node.index}) to treat ${node.index} as a string"]
            node = ast.String(node.span, "") if not self.final else node
        elif isinstance(node, ast.Call) and node.name == "str" and len(node.arguments) == 1:
            from kcap.sema.calls import _as_string

            node = _as_string(self, node.arguments[0])
        expr = self.expr(node)
        if not isinstance(expr, tree.StringLiteral):
            title = f"{what} has to be a string literal, not '{expr.type}'"
            raise self.fail("not-a-string-literal", node.span, title, help=help_)
        return expr.value.decode("utf-8", "surrogateescape")

    def integer_literal(self, node: ast.Expr, what: str) -> int:
        """The value of a node that has to be a constant integer (after folding)."""
        expr = self.expr(node)
        while isinstance(expr, tree.Cast) and isinstance(expr.type, Integer):
            expr = coerce(expr.operand, expr.type) or expr.operand
        if not isinstance(expr, tree.IntegerLiteral):
            title = f"{what} has to be a constant integer"
            unknown = as_integer(expr.type) is not None
            label = "known only at run time" if unknown else f"this is '{expr.type}'"
            raise self.fail("not-constant", node.span, title, label=label)
        return expr.value

    # Address spaces

    def space(self, space: Space) -> Space:
        """``space``, or the probe's where that says nothing."""
        return self.context.space if space == "unknown" else space

    def loaded(self, type_: Type, space: Space, tracked: bool) -> Type:
        """The type of what is read from a place of ``type_`` in an address space.

        :param tracked: whether the verifier vouches for a pointer to a struct that stands there.
        """
        outside = space in ("kernel", "user")
        if isinstance(type_, Pointer):
            found = space if outside and type_.space != "user" else self.space(type_.space)
            vouched = (tracked or type_.tracked) and isinstance(type_.target, Struct)
            return Pointer(type_.target, found, vouched)
        if isinstance(type_, Integer) and outside:
            return replace(type_, space=space)
        return type_

    def space_of(self, place: tree.Expr) -> Space:
        """The address space that a place is in."""
        if isinstance(place, tree.Deref):
            type_ = place.pointer.type
            return self.space(type_.space) if isinstance(type_, Pointer) else "unknown"
        if isinstance(place, tree.FieldAccess | tree.TupleElement):
            return self.space_of(place.object)
        if isinstance(place, tree.Index):
            return self.space_of(place.array)
        return "ctx" if isinstance(place, tree.Args) else "bpf"

    # Findings

    def warn(self, code: str, span: Span, title: str, *, help: Iterable[str] = ()) -> None:
        """Note a warning (once for a span)."""
        if self.final:
            self.shared.add(Diagnostic(code, "warning", title, span, help=tuple(help)))

    def warn_edit(self, code: str, span: Span, title: str, help_: str, edit: Edit) -> None:
        """Note a warning with an edit that silences it."""
        if self.final:
            found = Diagnostic(code, "warning", title, span, help=(help_,), edits=(edit,))
            self.shared.add(found)

    def fail(
        self, code: str, span: Span | None, title: str, **details: Unpack[ErrorDetails]
    ) -> SemaError:
        """An error to raise: ``raise sema.fail(…)``; analysis goes on with the next statement."""
        return sema_error(code, span, title, **details)


def _leaves(node: ast.Stmt) -> bool:
    """Whether nothing after a statement in the same block ever runs."""
    if isinstance(node, ast.ExprStatement):
        return isinstance(node.expression, ast.Call) and node.expression.name == "exit"
    return isinstance(node, JUMPS)


def _untracked(type_: Type) -> Type:
    return replace(type_, tracked=False) if isinstance(type_, Pointer) else type_
