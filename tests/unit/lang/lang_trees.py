# SPDX-License-Identifier: Apache-2.0
"""Short ways to parse a text and to write down the tree that should come out."""

from __future__ import annotations

from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostic
from kcap.lang.parser import parse, parse_expression, parse_with_diagnostics
from kcap.lang.source import Source, Span


def show(value: object) -> str:
    """A tree in one line: ``(+ 1 (pid))``-like for operators, ``Class(fields)`` for the rest."""
    match value:
        case ast.Integer(value=number):
            return str(number)
        case ast.String(value=text):
            return repr(text)
        case ast.Boolean(value=truth):
            return str(truth).lower()
        case ast.Identifier(name=name) | ast.Variable(name=name) | ast.Map(name=name):
            return name
        case ast.Name(text=text):
            return text
        case ast.PositionalParam(index=index):
            return f"${index}"
        case ast.PositionalCount():
            return "$#"
        case ast.Binary(op=op, left=left, right=right):
            return f"({op} {show(left)} {show(right)})"
        case ast.Unary(op=op, operand=operand):
            return f"({op} {show(operand)})"
        case ast.Step(op=op, prefix=prefix, target=target):
            return f"(pre{op} {show(target)})" if prefix else f"({show(target)} {op}post)"
        case ast.Ternary(condition=condition, then=then, otherwise=otherwise):
            return f"(? {show(condition)} {show(then)} {show(otherwise)})"
        case ast.Call(name=name, arguments=arguments):
            return " ".join([f"({name}()", *map(show, arguments)]) + ")"
        case ast.FieldAccess(object=inner, field=field):
            return f"(. {show(inner)} {field.text})"
        case ast.TupleAccess(object=inner, index=index):
            return f"(. {show(inner)} {index})"
        case ast.ArrayAccess(object=inner, index=index):
            return f"(at {show(inner)} {show(index)})"
        case ast.MapAccess(map=inner, key=key):
            return f"(key {show(inner)} {show(key)})"
        case ast.Cast(type=type_, operand=operand):
            return f"(cast {show(type_)} {show(operand)})"
        case ast.Tuple(elements=elements):
            return f"(tuple {' '.join(map(show, elements))})"
        case ast.NamedType(name=name, size=size):
            return name if size is None else f"{name}<{show(size)}>"
        case ast.TagType(kind=kind, name=name):
            return f"{kind} {name}"
        case ast.PointerType(target=target):
            return f"ptr<{show(target)}>"
        case ast.ArrayType(element=element, size=size):
            return f"array<{show(element)},{show(size)}>"
        case ast.Node():
            fields = [getattr(value, name) for name in ast.field_names(type(value))]
            shown = ", ".join(show(field) for field in fields if not isinstance(field, Span))
            return f"{type(value).__name__}({shown})"
        case list():
            return f"[{', '.join(map(show, value))}]"
        case _:
            return str(value)


def expression(text: str) -> ast.Expr:
    """The tree of an expression."""
    return parse_expression(Source("test", text))


def shown(text: str) -> str:
    """The tree of an expression, as :func:`show` writes it."""
    return show(expression(text))


def program(text: str) -> ast.Program:
    """The tree of a script."""
    return parse(Source("test.bt", text))


def statements(text: str) -> list[str]:
    """The statements of a probe's block, as :func:`show` writes them."""
    return [show(s) for s in program(f"begin {{ {text} }}").probes[0].block.statements]


def errors(text: str) -> list[Diagnostic]:
    """What is wrong with a script."""
    tree, diagnostics = parse_with_diagnostics(Source("test.bt", text))
    assert (tree is None) == diagnostics.has_errors
    return diagnostics.errors


def titles(text: str) -> list[tuple[int, int, str]]:
    """Line, column and title of each error of a script."""
    return [(d.span.line, d.span.column, d.title) for d in errors(text) if d.span is not None]
