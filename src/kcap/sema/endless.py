# SPDX-License-Identifier: Apache-2.0
"""Loops that nothing ends: the verifier refuses a program with one, wherever it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.sema import tree

if TYPE_CHECKING:
    from collections.abc import Set

    from kcap.lang.source import Span
    from kcap.sema.program import Analyzer

_LOOPS = (tree.While, tree.ForRange, tree.ForMap)
#: What a condition consists of whose value changes by what is done to variables alone.
_STEADY = (
    tree.VariableRef, tree.IntegerLiteral, tree.Unary, tree.Binary, tree.Logical, tree.Cast,
)  # fmt: skip


def check_end(a: Analyzer, span: Span, condition: tree.Expr, body: list[tree.Stmt]) -> None:
    """Say so if a ``while`` loop never ends: an error, or a warning where it may never begin.

    :param span: the condition's.
    """
    if isinstance(condition, tree.IntegerLiteral):
        if condition.value and not _may_end(body, frozenset()):
            found = a.fail(
                "endless-loop",
                span,
                "this loop never ends",
                label="always true",
                help=["leave it by break, return or exit(), or count its rounds"],
            )
            a.note(found)
        return
    parts = list(tree.walk(condition))
    variables = {part.variable for part in parts if isinstance(part, tree.VariableRef)}
    if all(isinstance(part, _STEADY) for part in parts) and not _may_end(body, variables):
        title = "this loop never ends once it has begun"
        a.warn("endless-loop", span, title, help=["change what the condition reads in the loop"])


def _may_end(body: list[tree.Stmt], read: Set[tree.Variable]) -> bool:
    """Whether something in a loop's body may end it.

    :param read: the variables that its condition reads.
    """
    nodes = list(tree.walk(body))
    inner = (each for node in nodes if isinstance(node, _LOOPS) for each in tree.walk(node.body))
    of_others = {id(each) for each in inner if isinstance(each, tree.Break)}
    return any(id(node) not in of_others and _ends(node, read) for node in nodes)


def _ends(node: tree.Node, read: Set[tree.Variable]) -> bool:
    match node:
        case tree.Return() | tree.Break():
            return True
        case tree.Call():
            return node.function.name == "exit"
        case tree.AssignVariable():
            return node.variable in read
        case tree.IncDec() | tree.AddressOf():
            refs = (part for part in tree.walk(node) if isinstance(part, tree.VariableRef))
            return any(ref.variable in read for ref in refs)
    return False
