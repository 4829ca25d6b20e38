# SPDX-License-Identifier: Apache-2.0
"""Repairing probes whose type may not call a helper that their block needs.

A kprobe becomes fentry, a kretprobe fexit, and a tracepoint rawtracepoint; what else changes
follows from the syntax tree and the kernel's BTF. A rewrite is made as a whole or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.diagnose.astquery import Tree
from kcap.diagnose.helpertable import table
from kcap.diagnose.programkinds import KINDS, ProgramKind
from kcap.diagnose.rawtargets import field, is_field, raw_target
from kcap.diagnose.rewrite import Rewriter, SameType, Value
from kcap.diagnose.targets import (
    SUCCESSOR,
    Refusal,
    Target,
    argument,
    full_name,
    refusal_diagnostic,
    returned,
    typed_target,
)
from kcap.kernel import helpers
from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostic, Edit
from kcap.lang.edits import apply_edits
from kcap.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kcap.diagnose.helpertable import Release
    from kcap.lang.source import Source, Span
    from kcap.probes.system import System
    from kcap.sema.function import Callable_

UNTYPED_ONLY = frozenset(("reg", "ctx"))
"""Functions and builtins that read the registers which are the context of a kprobe, besides
``sargN``."""


@dataclass(frozen=True, slots=True)
class ProbeFix:
    """The rewrite of one probe.

    :param probe: the probe.
    :param edits: what to change; empty if it is refused.
    :param refusal: why it is not rewritten, or None.
    :param notes: what the user had better know about the rewrite.
    """

    probe: ast.Probe
    edits: tuple[Edit, ...] = ()
    refusal: Diagnostic | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fix:
    """What can be repaired in a script.

    :param source: the script.
    :param probes: the probes that need repair, in the order of the script.
    """

    source: Source
    probes: tuple[ProbeFix, ...]

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All edits; they don't overlap."""
        return tuple(edit for probe in self.probes for edit in probe.edits)

    @property
    def refusals(self) -> tuple[Diagnostic, ...]:
        """Why some probes can't be repaired."""
        return tuple(probe.refusal for probe in self.probes if probe.refusal is not None)

    @property
    def text(self) -> str:
        """The repaired script."""
        return apply_edits(self.source, self.edits)

    @property
    def diff(self) -> str:
        """The repair as a unified diff; empty if nothing changes."""
        return unified_diff(self.source, self.text)


def unified_diff(source: Source, text: str) -> str:
    """What turns the script into ``text``, as diff -u shows it."""
    import difflib

    lines = difflib.unified_diff(
        source.text.splitlines(keepends=True),
        text.splitlines(keepends=True),
        source.name,
        f"{source.name} (fixed)",
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def fix(
    program: ast.Program,
    source: Source,
    system: System,
    functions: Mapping[str, Callable_],
    release: Release | None = None,
) -> Fix:
    """Repair the probes of a script that call what their type may not.

    :param source: the text that ``program`` was parsed from.
    :param system: the machine that the repaired script shall run on.
    :param functions: builtins and functions by name, aliases included.
    :param release: its kernel; None takes the newest that is known.
    """
    repair = _Repair(program, system, functions, release)
    found = [repair.probe(probe) for probe in program.probes]
    return Fix(source, tuple(item for item in found if item is not None))


def rewrite_as_typed(probe: ast.Probe, program: ast.Program, system: System) -> ProbeFix:
    """A kprobe as fentry, a kretprobe as fexit, whatever it calls: for what only these have."""
    return _Repair(program, system, {}, None).rewrite(probe)


class _Repair:
    """Repairing the probes of one script."""

    def __init__(
        self,
        program: ast.Program,
        system: System,
        functions: Mapping[str, Callable_],
        release: Release | None,
    ) -> None:
        self._program = program
        self._system = system
        self._functions = functions
        self._release = release
        self._same = SameType(system.types)

    def probe(self, probe: ast.Probe) -> ProbeFix | None:
        """The rewrite of a probe, or None if it needs none."""
        calls = list(calls_of(probe, self._program))
        wrong = [point for point in probe.attach_points if self._forbidden(point, calls)]
        if not wrong:
            return None
        return self.rewrite(probe, wrong[0])

    def rewrite(self, probe: ast.Probe, wrong: ast.AttachPoint | None = None) -> ProbeFix:
        """The probe with its typed probe type.

        :param wrong: the attach point that a refusal names, by default the first.
        """
        point = wrong or probe.attach_points[0]
        try:
            return self._rewrite(probe, list(calls_of(probe, self._program)))
        except Refusal as refusal:
            wanted = SUCCESSOR.get(full_name(point))
            what = f"{point.text} can't be rewritten"
            if wanted is not None:
                what += f" as {wanted}"
            return ProbeFix(probe, refusal=refusal_diagnostic(what, refusal))

    # What is called

    def _needs(self, call: Call) -> frozenset[int]:
        function = self._functions.get(call.name)
        return function.helpers if function is not None else frozenset()

    def _forbidden(self, point: ast.AttachPoint, calls: list[Call]) -> list[tuple[Call, int]]:
        """The calls that need a helper which the attach point's programs may not call."""
        kind = kind_of_probe(full_name(point))
        if kind is None:
            return []
        return [(call, n) for call in calls for n in self._needs(call) if not self._may(n, kind)]

    def _may(self, helper: int, kind: ProgramKind) -> bool:
        return table().allowed(helper, kind, self._release) is not False

    # Rewriting

    def _rewrite(self, probe: ast.Probe, calls: list[Call]) -> ProbeFix:
        _check_mixture(probe)
        targets = [self._target(point, calls) for point in probe.attach_points]
        self._check_calls(calls)
        tree = Tree(probe, self._program.grouped)
        values = self._values(probe, tree, targets)
        macros = frozenset(macro.name.text for macro in self._program.macros)
        body = Rewriter(tree, values.get, self._same, macros).edits()
        head = [edit for target in targets for edit in target.edits]
        notes = [note for target in targets for note in target.notes]
        return ProbeFix(probe, (*head, *body), None, tuple(notes))

    def _target(self, point: ast.AttachPoint, calls: list[Call]) -> Target:
        provider = full_name(point)
        if provider not in SUCCESSOR and provider not in SUCCESSOR.values():
            raise Refusal(
                f"no probe type that may do what the block does takes the place of {provider}",
                point.span,
            )
        wanted = kind_of_probe(SUCCESSOR.get(provider, provider))
        assert wanted is not None
        for call in calls:
            for helper in self._needs(call):
                if not self._may(helper, wanted):
                    raise Refusal(
                        f"{call.shown} needs {helpers.name(helper)}, which {wanted.key} may not "
                        "call",
                        call.place,
                    )
        if wanted.key == "tp_btf":
            return raw_target(point, self._system)
        return typed_target(point, self._system)

    def _check_calls(self, calls: list[Call]) -> None:
        for call in calls:
            if call.name in UNTYPED_ONLY or _stack_argument(call.name):
                raise Refusal(
                    f"{call.shown} reads the registers of a kprobe, which fentry does not have",
                    call.place,
                )
            if call.macro is not None and (_argument_index(call.name) is not None):
                raise Refusal(
                    f"the macro {call.macro.name} uses {call.name}, and others may call it too",
                    call.macro.span,
                )

    def _values(self, probe: ast.Probe, tree: Tree, targets: list[Target]) -> dict[ast.Node, Value]:
        """What takes the place of each ``argN``, ``retval`` and field of a tracepoint."""
        functions = [function for target in targets for function in target.functions]
        casts = _casts(tree)
        values: dict[ast.Node, Value] = {}
        raw = any(full_name(p) == "tracepoint" for p in probe.attach_points)
        for node in tree.nodes:
            if raw and isinstance(node, ast.FieldAccess) and is_field(node):
                values[node] = field(node, casts.get(node), functions, self._same)
            if raw or not isinstance(node, ast.Identifier):
                continue
            index = _argument_index(node.name)
            if index is not None:
                values[node] = argument(node, index, casts.get(node), functions, self._same)
            elif node.name == "retval":
                values[node] = returned(node, functions)
        return values


@dataclass(frozen=True, slots=True)
class Call:
    """A use of a function or builtin.

    :param macro: the use of the macro that it comes from, or None.
    """

    name: str
    node: ast.Call | ast.Identifier
    macro: ast.Call | ast.Identifier | None

    @property
    def place(self) -> Span:
        """Where the probe's own text calls it."""
        return (self.macro or self.node).span

    @property
    def shown(self) -> str:
        """Its name for messages."""
        return f"{self.name}()" if isinstance(self.node, ast.Call) else self.name


def calls_of(probe: ast.Probe, program: ast.Program) -> Iterator[Call]:
    """Functions and builtins that a probe uses, those of the macros that it calls included."""
    macros = {macro.name.text: macro for macro in program.macros}

    def walk(
        root: ast.Node, macro: ast.Call | ast.Identifier | None, seen: frozenset[str]
    ) -> Iterator[Call]:
        for node in ast.walk(root):
            if not isinstance(node, ast.Call | ast.Identifier):
                continue
            if node.name in macros and node.name not in seen:
                yield from walk(macros[node.name].body, macro or node, seen | {node.name})
            else:
                yield Call(node.name, node, macro)

    return walk(probe, None, frozenset())


def _check_mixture(probe: ast.Probe) -> None:
    """A tracepoint's arguments are not a function's: a block has to be for one or the other."""
    events = ("tracepoint", "rawtracepoint")
    first = probe.attach_points[0]
    for point in probe.attach_points[1:]:
        if (full_name(point) in events) != (full_name(first) in events):
            raise Refusal(
                f"{first.text} and {point.text} share the block, and have other arguments",
                point.span,
            )
    raw = [p for p in probe.attach_points if full_name(p) == "rawtracepoint"]
    if raw and len(raw) < len(probe.attach_points):
        raise Refusal(
            f"{raw[0].text} shares the block, and has other arguments already", raw[0].span
        )


def kind_of_probe(provider: str) -> ProgramKind | None:
    """What programs of a probe type are loaded as; None if that is not known.

    :param provider: the probe type's full name.
    """
    return next((kind for kind in KINDS if provider in kind.probes), None)


def _stack_argument(name: str) -> bool:
    return name.startswith("sarg") and name[4:].isdecimal()


def _argument_index(name: str) -> int | None:
    """N of ``argN``."""
    digits = name[3:]
    return int(digits) if name.startswith("arg") and digits.isdecimal() else None


def _casts(tree: Tree) -> dict[ast.Node, ast.TypeNode]:
    """What each name is cast to: directly, or where the variable that only holds it is used."""
    found: dict[ast.Node, ast.TypeNode] = {}
    for node in tree.nodes:
        if isinstance(node, ast.Cast):
            found[node.operand] = node.type
    held = {
        node.target.name: node.value
        for node in tree.nodes
        if isinstance(node, ast.Assign)
        and isinstance(node.target, ast.Variable)
        and isinstance(node.value, ast.Identifier | ast.FieldAccess)
    }
    for node, type_ in list(found.items()):
        if isinstance(node, ast.Variable) and node.name in held:
            found.setdefault(held[node.name], type_)
    return found
