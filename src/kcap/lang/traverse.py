# SPDX-License-Identifier: Apache-2.0
"""Questions to whole syntax trees: equality, height, and which values are used."""

from __future__ import annotations

from collections.abc import Mapping

from kcap.lang import ast
from kcap.lang.source import Span


def value_blocks(expression: ast.Expr) -> list[ast.Block]:
    """The blocks whose values make the value of ``expression``, if it is an if or a block."""
    if isinstance(expression, ast.BlockExpr):
        return [expression.block]
    blocks: list[ast.Block] = []
    branch: ast.Expr | ast.Block | None = expression
    while isinstance(branch, ast.If):
        blocks.append(branch.then)
        branch = branch.otherwise
    if isinstance(branch, ast.Block):
        blocks.append(branch)
    return blocks


def drop_value(block: ast.Block, extents: Mapping[ast.Node, Span] | None = None) -> None:
    """Make the value of a block an ordinary statement, since nobody uses it.

    An ``if`` or block whose value that was has no use for the values of its own blocks either.

    :param extents: the spans with parentheses of expressions that have some.
    """
    blocks = [block]
    while blocks:
        block = blocks.pop()
        value = block.value
        if value is not None:
            block.value = None
            span = extents.get(value, value.span) if extents else value.span
            block.statements.append(ast.ExprStatement(span, value))
            blocks.extend(value_blocks(value))


def too_high(root: ast.Node, most: int) -> ast.Node | None:
    """The first node found that is more than ``most`` levels below the top, or None."""
    stack = [(root, 1)]
    while stack:
        node, height = stack.pop()
        if height > most:
            return node
        stack.extend((child, height + 1) for child in ast.children(node))
    return None


_NOT_STRUCTURE = frozenset({"comments", "grouped", "arrow", "bare", "text", "quoted"})


def same_tree(left: ast.Node, right: ast.Node) -> bool:
    """Whether two trees are equal apart from spans and comments.

    Spelling that carries no meaning counts as equal too: ``.`` and ``->``, ``@m[1, 2]`` and
    ``@m[(1, 2)]``, ``1e3`` and ``1000``.
    """
    stack: list[tuple[object, object]] = [(left, right)]
    while stack:
        a, b = stack.pop()
        if type(a) is not type(b):
            return False
        if isinstance(a, ast.Node) and isinstance(b, ast.Node):
            skip = () if isinstance(a, ast.Name | ast.AttachPart) else _NOT_STRUCTURE
            stack.extend(
                (getattr(a, name), getattr(b, name))
                for name in ast.field_names(type(a))
                if name not in skip
            )
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            stack.extend(zip(a, b, strict=True))
        elif not isinstance(a, Span) and a != b:
            return False
        if isinstance(a, ast.CDefinition) and isinstance(b, ast.CDefinition):
            stack.append((_lines(a.text), _lines(b.text)))
    return True


def _lines(text: str) -> str:
    """The text without spaces at the ends of lines."""
    return "\n".join(line.rstrip() for line in text.split("\n"))
