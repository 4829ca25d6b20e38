# SPDX-License-Identifier: Apache-2.0
"""Expansion of ``macro``s in the syntax tree (language.md, "Macros").

A call is replaced by the macro's body: as a block expression, or as the plain value if the body is
nothing else. Macros are hygienic: a body sees no maps but those passed in, and its own variables
are renamed (``$y#1``), so that they can't meet those of the caller. Nodes from a body have a
:class:`~kcap.lang.source.MacroSpan`, so that a message can show the call as well.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NoReturn, TypeVar, cast

from kcap.lang import ast
from kcap.lang.depth import recursion_room
from kcap.lang.diagnostic import Diagnostics, Label
from kcap.lang.parser import MAX_HEIGHT
from kcap.lang.source import MacroSpan, Span
from kcap.lang.traverse import drop_value, too_high, value_blocks

#: A script may grow to this many nodes by expansion.
MAX_NODES = 200_000

_N = TypeVar("_N", bound=ast.Node)
_BINARY_TOO = frozenset({"-", "*", "&"})


class _Stop(Exception):
    """Leaves an expansion after its diagnostic was recorded."""


class _Scope:
    """One expansion: what the parameters stand for, and new names of the body's variables.

    :param macro: the macro.
    :param arguments: what stands for each parameter; names have their sigils.
    :param call: where it is called.
    :param number: distinguishes this expansion from all others.
    :param outer: the expansion in whose body the call stands, or None.
    """

    def __init__(
        self,
        macro: ast.Macro,
        arguments: dict[str, ast.Expr],
        call: Span,
        number: int,
        outer: _Scope | None,
    ) -> None:
        self.macro = macro
        self.arguments = arguments
        self.call = call
        self.number = number
        self.outer = outer


def _respan(span: Span, scope: _Scope | None) -> Span:
    """The span of a node that an expansion makes."""
    if scope is None:
        return span
    return MacroSpan(span.source, span.start, span.end, scope.call)


def expand_macros(
    program: ast.Program,
    diagnostics: Diagnostics,
    *,
    builtins: Container[str] = (),
) -> ast.Program:
    """The program with every macro call replaced by the macro's body, and without its macros.

    :param diagnostics: gets an error for each call that matches no macro, each macro that calls
        itself, and each macro that uses a map it was not given.
    :param builtins: names of functions: a call of one with arguments that fit no macro of that
        name is the function's.
    """
    if not program.macros:
        return program
    expander = _Expander(program.macros, diagnostics, builtins)
    with recursion_room():
        items: list[ast.Item] = []
        for item in program.items:
            if isinstance(item, ast.Macro):
                if not isinstance(item, ast.FunctionMacro):
                    expander.check(item)
            else:
                expanded = expander.item(item)
                if expanded is not None:
                    items.append(expanded)
    return program.replace(items=items)


def _kind(macro: ast.Macro) -> str:
    return "function" if isinstance(macro, ast.FunctionMacro) else "macro"


class _Expander:
    """Copies trees, replacing calls of macros."""

    def __init__(
        self, macros: Sequence[ast.Macro], diagnostics: Diagnostics, builtins: Container[str]
    ) -> None:
        self.macros: dict[str, list[ast.Macro]] = {}
        for macro in macros:
            self.macros.setdefault(macro.name.text, []).append(macro)
        self.diagnostics = diagnostics
        self.builtins = builtins
        self.expansions = 0
        self.nodes = 0

    # --- entry ---------------------------------------------------------------------------------

    def check(self, macro: ast.Macro) -> None:
        """Report maps that a macro uses without having been given them."""
        given = {parameter.name for parameter in macro.parameters}
        for node in ast.walk(macro.body):
            if isinstance(node, ast.Map) and node.name not in given:
                self.diagnostics.error(
                    "macro",
                    f"the macro {macro.name.text} uses {node.name} without being given it",
                    node.span,
                    label="not a parameter",
                    labels=(Label(macro.name.span, "the macro"),),
                    help=(f"add {node.name} to the parameters and pass the map in each call",),
                )
                return

    def item(self, item: ast.Item) -> ast.Item | None:
        """A probe or function with its calls expanded; None after an error."""
        self.nodes = 0
        try:
            expanded = self.copy(item, None)
        except _Stop:
            return None
        excess = too_high(expanded, MAX_HEIGHT)
        if excess is not None:
            self.diagnostics.error(
                "macro", "after expansion of macros this is too deep an expression", excess.span
            )
            return None
        return expanded

    # --- copying -------------------------------------------------------------------------------

    def copy(self, node: _N, scope: _Scope | None) -> _N:
        """A copy of ``node`` in ``scope``, of a class that may stand in its place."""
        return cast("_N", self._copy(node, scope))

    def _copy(self, node: ast.Node, scope: _Scope | None) -> ast.Node:
        if isinstance(node, ast.Identifier):
            return self._identifier(node, scope)
        if isinstance(node, ast.Variable):
            return self._variable(node, scope)
        if isinstance(node, ast.Call):
            return self._call(node, scope)
        if scope is not None:
            if isinstance(node, ast.Map):
                argument = scope.arguments.get(node.name)
                return self._plain(node, scope) if argument is None else self._fresh(argument)
            if isinstance(node, ast.NamedType):
                return self._named_type(node, scope)
            if isinstance(node, ast.Cast):
                return self._cast(node, scope)
            if isinstance(node, ast.Offsetof):
                return self._offsetof(node, scope)
            if isinstance(node, ast.Sizeof | ast.Typeof | ast.Typeinfo | ast.TypeofType):
                return self._with_operand(node, scope)
        if isinstance(node, ast.ExprStatement):
            return self._statement(node, scope)
        copied = self._plain(node, scope)
        if isinstance(copied, ast.Step):
            self._check_step(copied)
        return copied

    def _plain(self, node: ast.Node, scope: _Scope | None) -> ast.Node:
        """A copy of a node and its children."""
        self._count(scope.call if scope is not None else node.span)
        values: list[object] = []
        for name in ("span", *ast.field_names(type(node))):
            value = getattr(node, name)
            if isinstance(value, ast.Node):
                value = self._copy(value, scope)
            elif isinstance(value, list):
                value = [self._copy(child, scope) for child in value]
            elif isinstance(value, Span):
                value = _respan(value, scope)
            values.append(value)
        return type(node)(*values)  # type: ignore[arg-type]

    def _fresh(self, node: _N) -> _N:
        """A copy of a tree that is expanded already, so that no node stands in two places."""
        self._count(node.span)
        values: list[object] = []
        for name in ("span", *ast.field_names(type(node))):
            value = getattr(node, name)
            if isinstance(value, ast.Node):
                value = self._fresh(value)
            elif isinstance(value, list):
                value = [self._fresh(child) for child in value]
            values.append(value)
        return type(node)(*values)  # type: ignore[arg-type]

    def _count(self, span: Span) -> None:
        """Count a node that was made; too many end the expansion."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self._fail(f"expansion of macros makes this grow beyond {MAX_NODES} nodes", span)

    def _fail(
        self,
        title: str,
        span: Span,
        *,
        label: str = "",
        labels: Sequence[Label] = (),
        notes: Sequence[str] = (),
        help: Sequence[str] = (),
    ) -> NoReturn:
        """Record an error and leave the expansion.

        :raises _Stop: always.
        """
        self.diagnostics.error(
            "macro", title, span, label=label, labels=labels, notes=notes, help=help
        )
        raise _Stop

    # --- names ---------------------------------------------------------------------------------

    def _identifier(self, node: ast.Identifier, scope: _Scope | None) -> ast.Node:
        if scope is not None and node.name in scope.arguments:
            return self._fresh(scope.arguments[node.name])
        variants = self.macros.get(node.name)
        if variants and any(not macro.parameters for macro in variants):
            return self._expand(node.name, node.span, [], scope)
        return self._plain(node, scope)

    def _variable(self, node: ast.Variable, scope: _Scope | None) -> ast.Node:
        copied = self._plain(node, scope)
        if scope is None:
            return copied
        argument = scope.arguments.get(node.name)
        if argument is not None:
            return self._fresh(argument)
        return ast.Variable(copied.span, f"{node.name}#{scope.number}")

    # --- calls ---------------------------------------------------------------------------------

    def _call(self, node: ast.Call, scope: _Scope | None) -> ast.Node:
        if node.name not in self.macros:
            return self._plain(node, scope)
        arguments = [self.copy(argument, scope) for argument in node.arguments]
        if self._match(node.name, arguments) is None and node.name in self.builtins:
            return ast.Call(
                _respan(node.span, scope), node.name, _respan(node.name_span, scope), arguments
            )
        return self._expand(node.name, node.span, arguments, scope)

    def _match(self, name: str, arguments: list[ast.Expr]) -> ast.Macro | None:
        """The macro whose parameters fit the arguments best: more variables and maps."""
        best: ast.Macro | None = None
        best_score = -1
        for macro in self.macros[name]:
            if len(macro.parameters) != len(arguments):
                continue
            score = 0
            for parameter, argument in zip(macro.parameters, arguments, strict=True):
                if isinstance(parameter, ast.Identifier):
                    continue
                if type(parameter) is not type(argument):
                    break
                score += 1
            else:
                if score > best_score:
                    best, best_score = macro, score
        return best

    def _expand(
        self,
        name: str,
        span: Span,
        arguments: list[ast.Expr],
        scope: _Scope | None,
    ) -> ast.Node:
        span = _respan(span, scope)
        macro = self._match(name, arguments)
        if macro is None:
            self._no_match(name, span, arguments)
        self._check_recursion(macro, span, scope)
        self.expansions += 1
        names = [parameter.name for parameter in macro.parameters]
        inner = _Scope(
            macro, dict(zip(names, arguments, strict=True)), span, self.expansions, scope
        )
        block = self.copy(macro.body, inner)
        if not block.statements and block.value is not None:
            return block.value
        return ast.BlockExpr(block.span, block)

    def _check_recursion(self, macro: ast.Macro, span: Span, scope: _Scope | None) -> None:
        chain = [macro.name.text]
        outer = scope
        while outer is not None:
            chain.append(outer.macro.name.text)
            if outer.macro is macro:
                self._fail(
                    f"the {_kind(macro)} {macro.name.text} calls itself",
                    span,
                    labels=(Label(macro.name.span, f"the {_kind(macro)}"),),
                    notes=("the calls are " + " → ".join(reversed(chain)),),
                )
            outer = outer.outer

    def _no_match(self, name: str, span: Span, arguments: list[ast.Expr]) -> NoReturn:
        variants = self.macros[name]
        labels = [Label(macro.name.span, self._signature(macro)) for macro in variants]
        counts = sorted({len(macro.parameters) for macro in variants})
        if len(arguments) not in counts:
            wanted = " or ".join(map(str, counts))
            nouns = "argument" if counts == [1] else "arguments"
            title = f"the {_kind(variants[0])} {name} takes {wanted} {nouns}, not {len(arguments)}"
            self._fail(title, span, labels=labels)
        for macro in variants:
            for parameter, argument in zip(macro.parameters, arguments, strict=False):
                if isinstance(parameter, ast.Identifier) or type(parameter) is type(argument):
                    continue
                what = "a scratch variable" if isinstance(parameter, ast.Variable) else "a map"
                self._fail(
                    f"the macro {name} wants {what} for {parameter.name}",
                    argument.span,
                    label=f"not {what}",
                    labels=labels,
                )
        raise AssertionError("some parameter of each macro does not fit")

    @staticmethod
    def _signature(macro: ast.Macro) -> str:
        inside = ", ".join(parameter.name.split()[0] for parameter in macro.parameters)
        return f"{macro.name.text}({inside})"

    def _statement(self, node: ast.ExprStatement, scope: _Scope | None) -> ast.Node:
        copied = cast("ast.ExprStatement", self._plain(node, scope))
        for block in value_blocks(copied.expression):
            drop_value(block)
        return copied

    def _check_step(self, step: ast.Step) -> None:
        if not isinstance(step.target, ast.Variable | ast.Map | ast.MapAccess | ast.Identifier):
            self._fail("only variables and maps can be incremented", step.target.span)

    # --- types -----------------------------------------------------------------------------------

    def _type_or_argument(self, node: ast.TypeNode, scope: _Scope) -> ast.TypeNode | ast.Expr:
        """A type in ``sizeof(…)`` and the like: a parameter may stand for an expression there."""
        if isinstance(node, ast.NamedType) and node.name in scope.arguments:
            argument = scope.arguments[node.name]
            if not isinstance(argument, ast.Typeof):
                return self._fresh(argument)
            return self._fresh(argument.operand)
        if isinstance(node, ast.ArrayType) and node.size is not None:
            element = self._type_or_argument(node.element, scope)
            size = self.copy(node.size, scope)
            span = _respan(node.span, scope)
            if isinstance(element, ast.Expr) and not self._is_type(node.element, scope):
                return ast.ArrayAccess(span, element, size)
            if isinstance(element, ast.Expr):
                element = ast.TypeofType(span, element)
            return ast.ArrayType(span, element, size)
        return self.copy(node, scope)

    @staticmethod
    def _is_type(node: ast.TypeNode, scope: _Scope) -> bool:
        while isinstance(node, ast.ArrayType):
            node = node.element
        return isinstance(scope.arguments.get(getattr(node, "name", "")), ast.Typeof)

    def _operand(self, operand: ast.TypeNode | ast.Expr, scope: _Scope) -> ast.TypeNode | ast.Expr:
        if isinstance(operand, ast.TypeNode):
            return self._type_or_argument(operand, scope)
        return self.copy(operand, scope)

    def _with_operand(
        self, node: ast.Sizeof | ast.Typeof | ast.Typeinfo | ast.TypeofType, scope: _Scope
    ) -> ast.Node:
        span = _respan(node.span, scope)
        return type(node)(span, self._operand(node.operand, scope))

    def _offsetof(self, node: ast.Offsetof, scope: _Scope) -> ast.Node:
        span = _respan(node.span, scope)
        fields: list[ast.Name] = []
        for field in node.fields:
            argument = scope.arguments.get(field.text)
            if argument is None:
                fields.append(field)
            else:
                fields.extend(self._field_names(argument))
        return ast.Offsetof(span, self._operand(node.operand, scope), fields)

    def _field_names(self, argument: ast.Expr) -> list[ast.Name]:
        """The fields that an argument such as ``a.b`` names."""
        names: list[ast.Name] = []
        while isinstance(argument, ast.FieldAccess):
            names.append(argument.field)
            argument = argument.object
        if not isinstance(argument, ast.Identifier):
            self._fail("this stands for a field, so it must be a name", argument.span)
        names.append(ast.Name(argument.span, argument.name))
        names.reverse()
        return names

    def _named_type(self, node: ast.NamedType, scope: _Scope) -> ast.Node:
        argument = scope.arguments.get(node.name)
        if argument is None:
            return self._plain(node, scope)
        if not isinstance(argument, ast.Typeof):
            self._fail(
                f"{node.name} stands for a type here, so a type must be passed",
                argument.span,
                help=("pass a type as typeof(TYPE)",),
            )
        operand = self._fresh(argument.operand)
        if isinstance(operand, ast.TypeNode):
            return operand
        return ast.TypeofType(argument.span, operand)

    def _cast(self, node: ast.Cast, scope: _Scope) -> ast.Node:
        """A cast; ``(x) - 1`` reads as one, and is none if ``x`` stands for an expression."""
        type_, operand = node.type, node.operand
        if (
            isinstance(type_, ast.NamedType)
            and isinstance(operand, ast.Unary)
            and operand.op in _BINARY_TOO
        ):
            argument = scope.arguments.get(type_.name)
            if argument is not None and not isinstance(argument, ast.Typeof):
                span = _respan(node.span, scope)
                left = self._fresh(argument)
                right = self.copy(operand.operand, scope)
                op = cast("ast.BinaryOp", operand.op)
                return ast.Binary(span, op, operand.span.at_start(), left, right)
        return self._plain(node, scope)
