# SPDX-License-Identifier: Apache-2.0
"""Edits for mistakes that analysis reports without one: what scripts get wrong most.

Each rule looks at one code of diagnostics and answers with an edit, or with none where it is not
clear what was meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.btf import render
from kcap.diagnose import habits
from kcap.diagnose.astquery import Tree
from kcap.diagnose.targets import SUCCESSOR, Refusal, full_name, typed_target
from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostic, Edit, Label
from kcap.records import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kcap.diagnose.targets import Function
    from kcap.lang.source import Span
    from kcap.probes.system import System

C_SWAPS = {
    "ntohs": "uint16",
    "htons": "uint16",
    "ntohl": "uint32",
    "htonl": "uint32",
    "be16_to_cpu": "uint16",
    "cpu_to_be16": "uint16",
    "be32_to_cpu": "uint32",
    "cpu_to_be32": "uint32",
    "be64_to_cpu": "uint64",
    "cpu_to_be64": "uint64",
    "bswap_16": "uint16",
    "bswap_32": "uint32",
    "bswap_64": "uint64",
}
"""C functions and macros that ``bswap()`` stands for, with the type that they take (on
little-endian machines, as all that kcap runs on are)."""

_WORDS_OF_A_CALL = ("arg", "sarg", "retval")
"""How the builtins begin that are numbers because nobody knows their types."""

_ATOMS = (ast.Identifier, ast.Variable, ast.FieldAccess, ast.Integer, ast.Call, ast.ArrayAccess)
_MOST_UNROLLED = 100


def with_suggestions(
    diagnostics: Iterable[Diagnostic], program: ast.Program, system: System
) -> list[Diagnostic]:
    """The diagnostics, with edits added to errors that have none.

    :param program: the script that they are about.
    """
    rules = _Rules(program, system)
    return [rules.apply(diagnostic) for diagnostic in diagnostics]


class _Rules:
    """The rules, for one script."""

    def __init__(self, program: ast.Program, system: System) -> None:
        self._program = program
        self._system = system
        self._trees: dict[ast.Probe, Tree] = {}
        self._rules: dict[str, Callable[[Diagnostic, ast.Node, Tree], Diagnostic | None]] = {
            "undefined-variable": self._declare,
            "unknown-function": self._swap,
            "format-type": self._specifier,
            "unroll-count": self._unroll,
            "no-args": self._typed_probe,
            "no-fields": self._cast,
            "unknown-identifier": self._parameter,
        }

    def apply(self, diagnostic: Diagnostic) -> Diagnostic:
        """The diagnostic with an edit, if there is one."""
        if diagnostic.span is None:
            return diagnostic
        found = self._node_at(diagnostic.span)
        habit = habits.apply(diagnostic, found, self._system)
        if habit is not None:
            return habit
        rule = self._rules.get(diagnostic.code)
        if rule is None or diagnostic.edits:
            return diagnostic
        if found is None:
            return diagnostic
        return rule(diagnostic, *found) or diagnostic

    def _node_at(self, span: Span) -> tuple[ast.Node, Tree] | None:
        """The outermost node of a probe that has exactly this span."""
        for probe in self._program.probes:
            if probe.span.source is not span.source:
                continue
            if not probe.span.start <= span.start <= span.end <= probe.span.end:
                continue
            if probe not in self._trees:
                self._trees[probe] = Tree(probe, self._program.grouped)
            tree = self._trees[probe]
            for node in tree.nodes:
                at = node.name_span if isinstance(node, ast.Call) else node.span
                if span in (at, node.span):
                    return node, tree
        return None

    # A variable that is first set inside a block, and used behind it

    def _declare(self, found: Diagnostic, node: ast.Node, tree: Tree) -> Diagnostic | None:
        if not isinstance(node, ast.Variable):
            return None
        setters = [
            other
            for other in tree.nodes
            if isinstance(other, ast.Assign)
            and isinstance(other.target, ast.Variable)
            and other.target.name == node.name
            and other.span.start < node.span.start
        ]
        if not setters:
            return self._of_another_probe(found, node)
        around = set(tree.ancestors(node))
        outer = [n for n in tree.ancestors(setters[0]) if isinstance(n, ast.Stmt)]
        # the one beside the use, in the innermost block that holds both
        beside = (n for n in outer if tree.parent(n) in around and n not in around)
        statement = next(beside, None)
        if statement is None:
            return None
        edit = _before(statement.span, f"let {node.name};")
        return replace(found, edits=(edit,))

    def _of_another_probe(self, found: Diagnostic, node: ast.Variable) -> Diagnostic | None:
        setter = next(
            (
                other.target
                for probe in self._program.probes
                for other in ast.walk(probe)
                if isinstance(other, ast.Assign)
                and isinstance(other.target, ast.Variable)
                and other.target.name == node.name
            ),
            None,
        )
        if setter is None or setter.span.start >= node.span.start:
            return None
        label = Label(setter.span, "set here, in another probe")
        help_ = f"a variable lives in one run of one probe: keep it in a map, @{node.name[1:]}[tid]"
        return replace(found, labels=(*found.labels, label), help=(help_,))

    # C functions

    def _swap(self, found: Diagnostic, node: ast.Node, tree: Tree) -> Diagnostic | None:
        if not isinstance(node, ast.Call) or len(node.arguments) != 1:
            return None
        type_ = C_SWAPS.get(node.name)
        if type_ is None:
            return None
        operand = node.arguments[0]
        span = tree.with_parentheses(operand)
        text = (
            span.text
            if span != operand.span or isinstance(operand, _ATOMS)
            else (f"({operand.span.text})")
        )
        edits = (Edit(node.name_span, "bswap"), Edit(span, f"({type_}){text}"))
        help_ = f"{node.name}() is C; in the language, bswap() swaps bytes"
        return replace(found, edits=edits, help=(help_,))

    # printf

    def _specifier(self, found: Diagnostic, node: ast.Node, tree: Tree) -> Diagnostic | None:
        call = tree.parent(node)
        if not isinstance(call, ast.Call) or not call.arguments:
            return None
        literal = call.arguments[0]
        if not isinstance(literal, ast.String) or not isinstance(node, ast.Expr):
            return None
        place = _conversion(literal.span, call.arguments.index(node) - 1)
        if place is None:
            return None
        wanted = found.title
        if "(string supplied)" in wanted:
            return replace(found, edits=(Edit(place, "%s"),))
        if "%s specifier" in wanted and "(integer supplied)" in wanted:
            if isinstance(node, ast.PositionalParam):
                help_ = f"str({node.span.text}) is the parameter as text"
                edit = Edit(node.span, f"str({node.span.text})")
                return replace(found, edits=(edit,), help=(help_,))
            if isinstance(node, ast.Identifier) and node.name.startswith(_WORDS_OF_A_CALL):
                help_ = "str() reads the text that an address points to"
                edit = Edit(node.span, f"str({node.span.text})")
                return replace(found, edits=(edit,), help=(help_,))
            return replace(found, edits=(Edit(place, "%u" if "uint" in found.label else "%d"),))
        if "%s specifier" in wanted and "(pointer supplied)" in wanted:
            return replace(found, edits=(Edit(node.span, f"str({node.span.text})"),))
        return None

    # unroll

    def _unroll(self, found: Diagnostic, node: ast.Node, tree: Tree) -> Diagnostic | None:
        if isinstance(node, ast.Integer) and node.value > _MOST_UNROLLED:
            return replace(found, edits=(Edit(node.span, str(_MOST_UNROLLED)),))
        return None

    # args in a kprobe or kretprobe

    def _typed_probe(self, found: Diagnostic, node: ast.Node, tree: Tree) -> Diagnostic | None:
        probe = tree.root
        if not isinstance(probe, ast.Probe) or not isinstance(node, ast.Identifier):
            return None
        if node.name != "args":
            return None
        if any(full_name(point) not in ("kprobe", "kretprobe") for point in probe.attach_points):
            return None
        from kcap.diagnose.fix import rewrite_as_typed

        fixed = rewrite_as_typed(probe, self._program, self._system)
        if fixed.refusal is not None:
            return replace(found, notes=(*found.notes, f"no safe rewrite: {fixed.refusal.title}"))
        return replace(found, edits=fixed.edits, notes=(*found.notes, *fixed.notes))

    # A field of a number: the argument's type is known to BTF

    def _cast(self, found: Diagnostic, node: ast.Node, tree: Tree) -> Diagnostic | None:
        if not isinstance(node, ast.FieldAccess):
            return None
        given = _origin(node.object, tree)
        if given is None:
            return None
        type_ = self._argument_type(tree.root, int(given.name[3:]))
        if not type_.endswith("*"):
            return None
        grouped = tree.with_parentheses(given)
        text = f"({type_}){given.span.text}"
        if given is node.object:
            text = f"({text})"
        return replace(found, edits=(Edit(grouped, text),))

    def _argument_type(self, probe: ast.Node, index: int) -> str:
        """The type of an ``argN`` as BTF has it, '' if not known or not the same everywhere."""
        found = set()
        for function in self._functions(probe):
            params = function.proto.params
            if function.renamed or index >= len(params):
                return ""
            type_id = params[index].type_id
            pointer = b.resolve(function.btf, type_id)
            if not isinstance(pointer, b.Ptr):
                return ""
            target = b.resolve(function.btf, pointer.type_id)
            found.add(f"{render.type_name(function.btf, target.id)} *")
        return found.pop() if len(found) == 1 else ""

    def _functions(self, probe: ast.Node) -> list[Function]:
        """The functions that a probe is at; none if not all of them are known to BTF."""
        functions: list[Function] = []
        for point in probe.attach_points if isinstance(probe, ast.Probe) else ():
            if full_name(point) not in (*SUCCESSOR, "fentry", "fexit"):
                return []
            try:
                functions += typed_target(point, self._system).functions
            except Refusal:  # without types there is nothing to suggest
                return []
        return functions

    # A parameter by its name, as in C, where there is no args

    def _parameter(self, found: Diagnostic, node: ast.Node, tree: Tree) -> Diagnostic | None:
        probe = tree.root
        if not isinstance(node, ast.Identifier) or not isinstance(probe, ast.Probe):
            return None
        if any(full_name(point) != "kprobe" for point in probe.attach_points):
            return None
        places = set()
        for function in self._functions(probe):
            names = [param.name for param in function.proto.params]
            places.add(names.index(node.name) if node.name in names else None)
        index = places.pop() if len(places) == 1 else None
        if index is None:
            return None
        type_ = self._argument_type(probe, index)
        text = f"arg{index}"
        help_ = f"{node.name} is {text} in a kprobe, and args.{node.name} in fentry"
        edit = Edit(node.span, f"(({type_}){text})" if type_.endswith("*") else text)
        return replace(found, edits=(edit,), help=(help_,))


def _before(span: Span, statement: str) -> Edit:
    """Insert a statement before another one: on a line of its own if that begins its line."""
    text = span.source.text
    line = text.rfind("\n", 0, span.start) + 1
    margin = text[line : span.start]
    gap = " " if margin.strip() else f"\n{margin}"
    return Edit(span.at_start(), f"{statement}{gap}")


def _origin(node: ast.Expr, tree: Tree) -> ast.Identifier | None:
    """The ``argN`` that an expression is, or that the variable it is was given (once)."""
    if isinstance(node, ast.Variable):
        given = [
            other.value
            for other in tree.nodes
            if isinstance(other, ast.Assign | ast.Let)
            and (other.variable if isinstance(other, ast.Let) else other.target).span
            and getattr(other.variable if isinstance(other, ast.Let) else other.target, "name", "")
            == node.name
        ]
        if len(given) != 1 or given[0] is None:
            return None
        node = given[0]
    if isinstance(node, ast.Identifier) and node.name[:3] == "arg" and node.name[3:].isdecimal():
        return node
    return None


def _conversion(literal: Span, number: int) -> Span | None:
    """Where the conversion of argument ``number`` stands in a format string, if it is a plain one
    (no flags, no width, no escape before it that could be mistaken)."""
    from kcap.lang.source import Span as Place

    text, at = literal.text, 0
    while (at := text.find("%", at)) >= 0:
        if text.startswith("%%", at):
            at += 2
            continue
        end = at + 1
        while end < len(text) and not text[end].isalpha():
            end += 1
        while end < len(text) - 1 and text[end] in "hlzjt":
            end += 1
        if number == 0:
            plain = text[at + 1 : end + 1].lstrip("hlzjt")
            if len(plain) != 1:
                return None
            return Place(literal.source, literal.start + at, literal.start + end + 1)
        number -= 1
        at = end + 1
    return None
