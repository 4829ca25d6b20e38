# SPDX-License-Identifier: Apache-2.0
"""Rewriting the arguments in a probe's body: ``arg1`` to ``args.skb``, with the casts and the
variables that only carried it.

All is decided on the syntax tree; the result is a list of edits, so that what is not concerned
stays byte for byte as it was written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.diagnose.astquery import Tree, arrow_span, removal
from kcap.lang import ast
from kcap.lang.diagnostic import Edit
from kcap.records import dataclass
from kcap.sema.types import Pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kcap.btf import Btf
    from kcap.sema.kerneltypes import KernelTypes
    from kcap.sema.types import Type

OUTPUT = frozenset(("printf", "print", "fprintf", "errorf", "warnf", "cat", "system", "debugf"))
"""Functions that show an integer and a pointer differently."""


@dataclass(frozen=True, slots=True)
class Value:
    """What takes the place of an argument.

    :param text: how it is written: ``args.skb``.
    :param btf: where its type is from.
    :param type_id: its type.
    :param was: the type that it had before, if it is a pointer now: where another type could
        mean something else, it is cast to that; '' if it has the same type.
    """

    text: str
    btf: Btf
    type_id: int
    was: str = "uint64"

    @property
    def is_pointer(self) -> bool:
        """Whether it is a pointer."""
        return isinstance(b.resolve(self.btf, self.type_id), b.Ptr)


class SameType:
    """Compares types as written in casts with types of BTF.

    :param types: what type names mean.
    """

    def __init__(self, types: KernelTypes) -> None:
        self._types = types

    def __call__(self, written: ast.TypeNode, btf: Btf, type_id: int) -> bool:
        """Whether a cast to ``written`` changes nothing about a value of that type, except for
        ``const`` and the like."""
        found = b.resolve(btf, type_id)
        if isinstance(written, ast.PointerType):
            return isinstance(found, b.Ptr) and self(written.target, btf, found.type_id)
        if isinstance(written, ast.TagType):
            return _tag(found) == (written.kind, written.name)
        if not isinstance(written, ast.NamedType) or written.size is not None:
            return False
        if written.name == "void":
            return isinstance(found, b.Void)
        named = self._types.named(written.name)
        return named is not None and _equal(named, self._types.from_btf(btf, type_id))


def _tag(found: b.Type) -> tuple[str, str]:
    """(keyword, tag) of a struct, union or enum."""
    if isinstance(found, b.Struct):
        return "struct", found.name
    if isinstance(found, b.Union):
        return "union", found.name
    if isinstance(found, b.Enum):
        return "enum", found.name
    if isinstance(found, b.Fwd):
        return "union" if found.is_union else "struct", found.name
    return "", ""


def _equal(left: Type, right: Type) -> bool:
    return str(left) == str(right) and not isinstance(left, Pointer)


class Rewriter:
    """Edits that put typed arguments in place of untyped ones.

    :param tree: the probe.
    :param lookup: what takes the place of a node, or None if it stays.
    :param same: compares types.
    :param macros: the names of the script's macros, which may do anything with an argument, and
        want a variable where their parameter is one.
    """

    def __init__(
        self,
        tree: Tree,
        lookup: Callable[[ast.Node], Value | None],
        same: SameType,
        macros: frozenset[str] = frozenset(),
    ) -> None:
        self._tree = tree
        self._unlike = OUTPUT | macros
        self._macros = macros
        self._lookup = lookup
        self._same = same
        self._edits: list[Edit] = []
        self._done: set[ast.Node] = set()

    def edits(self) -> list[Edit]:
        """The edits, in the order of the script."""
        for name, statement in _assigned_once(self._tree):
            self._inline(name, statement)
        for node in self._tree.nodes:
            value = self._lookup(node)
            if value is not None and node not in self._done and isinstance(node, ast.Expr):
                self._replace(node, value)
        return sorted(self._edits, key=lambda edit: (edit.span.start, edit.span.end))

    # Occurrences

    def _replace(self, node: ast.Expr, value: Value) -> None:
        """Put ``value`` in place of an argument, and of a cast around it that says nothing new."""
        parent = self._tree.parent(node)
        if isinstance(parent, ast.Cast) and self._same(parent.type, value.btf, value.type_id):
            self._write(parent, value.text)
        elif value.is_pointer and value.was and not self._takes_pointer(node):
            self._write(node, f"({value.was}){value.text}", keep_parentheses=True)
        else:
            self._write(node, value.text, keep_parentheses=True)

    def _write(self, node: ast.Expr, text: str, *, keep_parentheses: bool = False) -> None:
        span = node.span if keep_parentheses else self._tree.with_parentheses(node)
        if span.text != text:
            self._edits.append(Edit(span, text))
            parent = self._tree.parent(node)
            if isinstance(parent, ast.FieldAccess):
                self._dot(parent)

    def _dot(self, access: ast.FieldAccess) -> None:
        arrow = arrow_span(access)
        if arrow is not None:
            self._edits.append(Edit(arrow, "."))

    def _takes_pointer(self, node: ast.Expr) -> bool:
        """Whether a pointer means the same as an unsigned integer where ``node`` stands."""
        parent = self._tree.parent(node)
        if isinstance(parent, ast.Call):
            return parent.name not in self._unlike
        if isinstance(parent, ast.Assign | ast.Let):
            return self._holds_pointer(parent)
        return _neutral(parent, node)

    def _holds_pointer(self, statement: ast.Assign | ast.Let) -> bool:
        """Whether a variable that is given an argument may as well have its pointer type."""
        target = statement.variable if isinstance(statement, ast.Let) else statement.target
        if not isinstance(target, ast.Variable) or not _plain(statement):
            return False
        uses = list(_uses(self._tree, target))
        return all(self._neutral_use(use) for use in uses)

    def _neutral_use(self, use: ast.Variable) -> bool:
        parent = self._tree.parent(use)
        if isinstance(parent, ast.Call):
            return parent.name not in self._unlike
        return _neutral(parent, use)

    # Variables

    def _inline(self, name: str, statement: ast.Assign | ast.Let) -> None:
        """Write the argument itself where a variable only carries it, and drop the variable."""
        value = self._carried(statement)
        if value is None:
            return
        target = statement.variable if isinstance(statement, ast.Let) else statement.target
        assert isinstance(target, ast.Variable)
        uses = list(_uses(self._tree, target))
        typed = isinstance(statement.value, ast.Cast)
        if not all(self._may_inline(use, statement, value, typed) for use in uses):
            return
        self._edits.append(Edit(removal(statement), ""))
        self._done.update(ast.walk(statement))
        for use in uses:
            parent = self._tree.parent(use)
            if isinstance(parent, ast.Cast) and self._same(parent.type, value.btf, value.type_id):
                self._write(parent, value.text)
            else:
                self._write(use, value.text)

    def _carried(self, statement: ast.Assign | ast.Let) -> Value | None:
        """The argument that a statement puts into a variable, if that is all it does and the
        argument is a pointer."""
        if not _plain(statement) or statement.value is None:
            return None
        expr = statement.value
        operand = expr.operand if isinstance(expr, ast.Cast) else expr
        value = self._lookup(operand)
        if value is None or not value.is_pointer:
            return None
        if isinstance(expr, ast.Cast) and not self._same(expr.type, value.btf, value.type_id):
            return None
        if (
            isinstance(statement, ast.Let)
            and statement.type is not None
            and not self._same(statement.type, value.btf, value.type_id)
        ):
            return None
        return value

    def _may_inline(
        self, use: ast.Variable, statement: ast.Assign | ast.Let, value: Value, typed: bool
    ) -> bool:
        """Whether a use of the variable may become the argument itself.

        :param typed: the variable has the argument's pointer type; else it is an integer.
        """
        if use.span.start < statement.span.end:
            return False
        block = self._tree.block_of(statement)
        if block not in self._tree.ancestors(use):
            return False
        parent = self._tree.parent(use)
        if isinstance(parent, ast.Cast):
            return typed or self._same(parent.type, value.btf, value.type_id)
        if not typed:
            return False
        if isinstance(parent, ast.Call):
            return parent.name not in self._macros
        return isinstance(parent, ast.FieldAccess) or _neutral(parent, use)


def _plain(statement: ast.Assign | ast.Let) -> bool:
    return isinstance(statement, ast.Let) or statement.op == "="


def _neutral(parent: ast.Node | None, node: ast.Node) -> bool:
    """Whether only the address counts, and whether it is zero: casts, comparisons, conditions."""
    if isinstance(parent, ast.Cast):
        return True
    if isinstance(parent, ast.Unary):
        return parent.op == "!"
    if isinstance(parent, ast.Binary):
        if parent.op in ("&&", "||"):
            return True
        other = parent.right if parent.left is node else parent.left
        return parent.op in ("==", "!=") and isinstance(other, ast.Integer) and other.value == 0
    if isinstance(parent, ast.If | ast.Ternary):
        return parent.condition is node
    return isinstance(parent, ast.Probe)  # the predicate


def _uses(tree: Tree, target: ast.Variable) -> Iterator[ast.Variable]:
    """The other places where a variable of that name stands."""
    for node in tree.nodes:
        if isinstance(node, ast.Variable) and node.name == target.name and node is not target:
            yield node


def _assigned_once(tree: Tree) -> list[tuple[str, ast.Assign | ast.Let]]:
    """Variables that are given a value once and only read otherwise, with that statement."""
    given: dict[str, list[ast.Assign | ast.Let]] = {}
    excluded: set[str] = set()
    for node in tree.nodes:
        if isinstance(node, ast.Assign) and isinstance(node.target, ast.Variable):
            given.setdefault(node.target.name, []).append(node)
        elif isinstance(node, ast.Let):
            given.setdefault(node.variable.name, []).append(node)
        elif (isinstance(node, ast.Step) and isinstance(node.target, ast.Variable)) or (
            isinstance(node, ast.Unary)
            and node.op == "&"
            and isinstance(node.operand, ast.Variable)
        ):
            inner = node.target if isinstance(node, ast.Step) else node.operand
            assert isinstance(inner, ast.Variable)
            excluded.add(inner.name)
        elif isinstance(node, ast.For):
            excluded.add(node.variable.name)
    return [
        (name, found[0])
        for name, found in given.items()
        if len(found) == 1 and name not in excluded
    ]
