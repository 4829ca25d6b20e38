# SPDX-License-Identifier: Apache-2.0
"""Questions about a syntax tree that rewriting asks: parents, parentheses, statements, lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kcap.lang import ast
from kcap.lang.source import Span

if TYPE_CHECKING:
    from collections.abc import Iterator

_TO_ARROW = re.compile(r"(?:[\s)]|//[^\n]*|/\*(?s:.*?)\*/)*->")
"""What may stand between an object and the arrow behind it: closing parentheses, comments."""

_HOLDERS = (ast.FieldAccess, ast.Assign, ast.Let, ast.Call, ast.Binary, ast.Unary, ast.Cast,
            ast.Ternary, ast.Discard, ast.ExprStatement)  # fmt: skip
"""Parents that need no parentheses around an operand that is a name. (``if`` and ``while`` are
written with them by custom.)"""


class Tree:
    """A part of a script's syntax tree, with parents.

    :param root: such as a probe.
    :param grouped: the expressions that were written in parentheses (``Program.grouped``).
    """

    def __init__(self, root: ast.Node, grouped: dict[ast.Node, Span]) -> None:
        self.root = root
        self._grouped = grouped
        self._parents: dict[ast.Node, ast.Node] = {}
        self.nodes: list[ast.Node] = list(ast.walk(root))
        for node in self.nodes:
            for child in ast.children(node):
                self._parents[child] = node

    def parent(self, node: ast.Node) -> ast.Node | None:
        """The node that ``node`` is a direct child of."""
        return self._parents.get(node)

    def ancestors(self, node: ast.Node) -> Iterator[ast.Node]:
        """The parent, its parent, and so on."""
        found = self._parents.get(node)
        while found is not None:
            yield found
            found = self._parents.get(found)

    def block_of(self, statement: ast.Node) -> ast.Node:
        """The block that a statement stands in (the root if it is in none)."""
        for node in self.ancestors(statement):
            if isinstance(node, ast.Block):
                return node
        return self.root

    def with_parentheses(self, node: ast.Expr) -> Span:
        """The span of an expression with the parentheses that only group it."""
        grouped = self._grouped.get(node)
        if grouped is None or not isinstance(self.parent(node), _HOLDERS):
            return node.span
        return grouped


def removal(statement: ast.Stmt) -> Span:
    """The span to delete so that a statement is gone: with its ``;``, and with its line if nothing
    else stands on it. Comments stay."""
    source = statement.span.source
    text = source.text
    start, end = statement.span.start, statement.span.end
    after = _skip(text, end, " \t\r\n")
    if text.startswith(";", after):
        end = after + 1
    line_start = start - len(text[:start]) + len(text[:start].rstrip(" \t"))
    alone_before = line_start == 0 or text[line_start - 1] == "\n"
    after = _skip(text, end, " \t\r")
    if alone_before and text.startswith("\n", after):
        return Span(source, line_start, after + 1)
    if text.startswith("\n", after):  # the last one on its line: no spaces stay behind it
        return Span(source, line_start, after)
    if text.startswith(("//", "/*"), after):
        return Span(source, start, end)
    return Span(source, start, after)


def _skip(text: str, at: int, chars: str) -> int:
    while at < len(text) and text[at] in chars:
        at += 1
    return at


def arrow_span(access: ast.FieldAccess) -> Span | None:
    """Where the ``->`` of a field access stands; None if it is written with a dot."""
    if not access.arrow:
        return None
    found = _TO_ARROW.match(access.span.source.text, access.object.span.end)
    return Span(access.span.source, found.end() - 2, found.end()) if found is not None else None
