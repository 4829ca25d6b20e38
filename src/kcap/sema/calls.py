# SPDX-License-Identifier: Apache-2.0
"""Names and calls: builtins, functions, constants, positional parameters, unknown variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.lang import ast
from kcap.lang.diagnostic import Edit
from kcap.records import replace
from kcap.sema import places, tree
from kcap.sema.coerce import with_value
from kcap.sema.conversion import literal_type
from kcap.sema.function import Callable_, CallSite
from kcap.sema.operators import string_literal
from kcap.sema.types import INT64, Aggregate, Enum
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kcap.sema.errors import SemaError
    from kcap.sema.program import Analyzer


def identifier(a: Analyzer, node: ast.Identifier) -> tree.Expr:
    """A bare name: ``args``, a ``#define``, a builtin, or a constant of the kernel."""
    name = node.name
    if name == "args":
        return places.args(a, node)
    defined = a.defines.expression(name)
    if defined is not None:
        return a.expand_define(node, defined)
    function = _function(a, name)
    if function is not None:
        site = CallSite(name, node.span, node.span, [], statement=False)
        return _call(a, function, site)
    constant = a.types.constant(name)
    if constant is not None:
        type_, value = constant
        if isinstance(type_, Enum):  # constants are 64 bits wide, whatever the enum is in C
            return tree.IntegerLiteral(node.span, replace(type_, bytes=8), value)
        return with_value(tree.Expr(node.span, INT64), value)
    raise _unknown(a, name, node, "identifier")


def undefined_variables(a: Analyzer, node: ast.Expr) -> Iterator[SemaError]:
    """An error for each variable in an expression that nothing has set."""
    parts = list(ast.walk(node))
    if any(isinstance(part, ast.BlockExpr) for part in parts):
        return  # it has variables of its own
    for part in parts:
        if isinstance(part, ast.Variable) and a.scopes.find(part.name) is None:
            yield undefined(a, part)


def undefined(a: Analyzer, node: ast.Variable) -> SemaError:
    """The error for a variable that nothing has set."""
    name = node.name
    ended = a.scopes.ended.get(name)
    title = f"Undefined or undeclared variable: {name}"
    if ended is not None:
        return a.fail(
            "undefined-variable",
            node.span,
            title,
            label="not known here",
            labels=[(ended.span, f"{name} only exists in this block")],
            help=[f"declare it before the block: let {name};"],
        )
    near = nearest(name, [*a.scopes.names(), *a.maps.facts])
    return a.fail(
        "undefined-variable",
        node.span,
        title,
        label="not known",
        help=[f"did you mean {near[0]}?"] if near else (),
        edits=[Edit(node.span, near[0])] if near else (),
    )


def call(
    a: Analyzer,
    node: ast.Call,
    *,
    target: ast.Map | ast.MapAccess | None = None,
    statement: bool = False,
) -> tree.Expr:
    """``name(arguments)``.

    :param target: the map that the result is assigned to.
    :param statement: the result is not used.
    """
    function = _function(a, node.name)
    if function is None:
        raise _unknown(a, node.name, node, "function")
    arguments = node.arguments
    if node.name == "str" and arguments:
        arguments = [_as_string(a, arguments[0]), *arguments[1:]]
    site = CallSite(node.name, node.name_span, node.span, arguments, target, statement)
    return _call(a, function, site)


def _function(a: Analyzer, name: str) -> Callable_ | None:
    """The function of a name; bpftrace's own macros call it ``__builtin_name``."""
    return a.functions.get(name) or a.functions.get(name.removeprefix("__builtin_"))


def _call(a: Analyzer, function: Callable_, site: CallSite) -> tree.Expr:
    _check_arity(a, function, site)
    if function.unsafe and not a.unsafe:
        raise a.fail(
            "unsafe",
            site.name_span,
            function.unsafe_title.format(name=site.name),
            help=["allow it with --unsafe"],
        )
    a.shared.lasting &= function.lasting
    result = function.check(site, a)
    if isinstance(result.type, Aggregate) and isinstance(result, tree.Call) and not site.target:
        raise a.fail(
            "not-assigned-to-map",
            site.span,
            f"{site.name}() should be assigned to a map",
            help=[f"@ = {site.span.text};"],
        )
    return result


def _check_arity(a: Analyzer, function: Callable_, site: CallSite) -> None:
    least, most = function.arity
    count = len(site.args)
    if least <= count and (most is None or count <= most):
        return
    raise a.fail(
        "arity",
        site.span,
        f"{site.name}() {_arity_text(least, most, count)} ({count} provided)",
        notes=[f"usage: {signature}" for signature in function.signatures],
    )


def _arity_text(least: int, most: int | None, count: int) -> str:
    def arguments(number: int) -> str:
        return {0: "no arguments", 1: "one argument"}.get(number, f"{number} arguments")

    if least == most:
        return f"requires {arguments(least)}"
    if count < least:
        return f"requires at least {arguments(least)}"
    assert most is not None
    return f"takes up to {arguments(most)}"


def _unknown(a: Analyzer, name: str, node: ast.Call | ast.Identifier, kind: str) -> SemaError:
    span = node.name_span if isinstance(node, ast.Call) else node.span
    candidates = [n for n in a.functions if not n.startswith("_")] + ["args", *a.defines.names()]
    near = nearest(name, candidates)
    variables = [v for v in (f"${name}", f"@{name}") if v in a.scopes.names() or v in a.maps.facts]
    near = _of_args(a, name, kind) + variables + near
    notes = [f"no {kind} of this name, nor a constant of the kernel's"]
    return a.fail(
        f"unknown-{kind}",
        span,
        f"Unknown {kind}: '{name}'",
        label="not known",
        notes=notes,
        help=[f"did you mean {' or '.join(near[:3])}?"] if near else (),
        edits=[Edit(span, near[0])] if near else (),
    )


def _of_args(a: Analyzer, name: str, kind: str) -> list[str]:
    """What stands in ``args`` under a name that was written without it, as in C."""
    args = a.context.args
    if kind != "identifier" or args is None:
        return []
    return [f"args.{name}"] if args.find(name) is not None else ["args"] if name == "arg" else []


# --- parameters of the command line ---------------------------------------------------------


def positional(a: Analyzer, node: ast.PositionalParam) -> tree.Expr:
    """``$1``: a number if it looks like one, else a string; 0 if it was not given."""
    text = _parameter(a, node)
    if text is None:
        return tree.IntegerLiteral(node.span, literal_type(0), 0)
    value = _number(text)
    if value is None:
        return string_literal(node, text.encode("utf-8", "surrogateescape"))
    return tree.IntegerLiteral(node.span, literal_type(value), value)


def positional_count(a: Analyzer, node: ast.PositionalCount) -> tree.Expr:
    """``$#``."""
    count = len(a.parameters)
    return tree.IntegerLiteral(node.span, literal_type(count), count)


def _parameter(a: Analyzer, node: ast.PositionalParam) -> str | None:
    return a.parameters[node.index - 1] if node.index <= len(a.parameters) else None


def _number(text: str) -> int | None:
    from kcap.lang.literals import LiteralError, integer_value

    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    if not digits[:1].isdigit():
        return None
    try:
        value = sign * integer_value(digits)[0]
    except LiteralError:
        return None
    return value if value >= -(1 << 63) else None


def _as_string(a: Analyzer, node: ast.Expr) -> ast.Expr:
    """The argument of ``str()``: ``$1`` and ``$1 + n`` are the text of the parameter there."""
    if isinstance(node, ast.PositionalParam):
        return ast.String(node.span, _parameter(a, node) or "")
    if isinstance(node, ast.Binary) and node.op == "+":
        left, right = _as_string(a, node.left), node.right
        if isinstance(left, ast.String) and not isinstance(node.left, ast.String):
            offset = a.integer_literal(right, "the offset into a parameter")
            data = left.data
            if not 0 <= offset <= len(data):
                raise a.fail(
                    "offset-too-large",
                    right.span,
                    f"cannot add {offset} to a parameter of {len(data)} bytes",
                )
            return ast.String(node.span, data[offset:].decode("utf-8", "surrogateescape"))
    return node
