# SPDX-License-Identifier: Apache-2.0
"""Semantic analysis: from the syntax tree of a script to its typed tree.

Types are inferred by going over the whole script again and again: what a pass finds out about
variables and maps is there for the next, until nothing changes. Errors count only in the last
pass; each ends the statement that it is in, so that several are reported together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kcap.lang import ast
from kcap.lang.depth import recursion_room
from kcap.lang.diagnostic import Diagnostic, Diagnostics, ScriptError
from kcap.lang.functions import as_macros
from kcap.lang.macros import expand_macros
from kcap.records import dataclass
from kcap.sema import tree
from kcap.sema.config import Config, apply_block
from kcap.sema.defines import Defines
from kcap.sema.maps import MapTable
from kcap.sema.parameters import NamedParameters
from kcap.sema.preprocess import active_definitions
from kcap.sema.program import Analyzer, Shared

if TYPE_CHECKING:
    from kcap.sema.function import Callable_
    from kcap.sema.kerneltypes import KernelTypes
    from kcap.sema.probe import ProbeContext, ProbeResolver

MAX_PASSES = 50
"""As many as bpftrace makes before it gives up on types that keep growing."""


@dataclass(slots=True)
class _Job:
    """A probe's block for one context."""

    probe: ast.Probe
    context: ProbeContext
    key: object


def analyze(
    program: ast.Program,
    *,
    functions: Mapping[str, Callable_],
    probes: ProbeResolver,
    types: KernelTypes,
    config: Config,
    parameters: Sequence[str] = (),
    unsafe: bool = False,
    include_directories: Sequence[str] = (),
    named: Mapping[str, str] | None = None,
    child_pid: int = 0,
    unwound_files: Callable[[], tuple[str, ...]] | None = None,
) -> tree.Script:
    """The typed tree of a script.

    :param functions: builtins and functions by name, aliases included.
    :param probes: finds what attach points mean.
    :param types: what type names and constants mean.
    :param config: defaults and environment; the script's config block is applied to it.
    :param parameters: positional parameters of the command line.
    :param unsafe: whether functions that change the system are allowed.
    :param include_directories: where headers of the script are looked for (``-I``).
    :param named: named parameters of the command line, for ``getopt()``.
    :param child_pid: the process id of the command of ``-c``, or 0.
    :param unwound_files: the files that the traced processes run, for ``dw_ustack()``; None if no
        process was named.
    :raises ScriptError: with every error found, and the warnings.
    """
    shared = Shared(
        functions,
        types,
        config,
        parameters,
        unsafe,
        Defines(),
        MapTable(config.max_map_keys),
        NamedParameters(named or {}),
        child_pid,
        unwound_files,
    )
    with recursion_room():
        return _analyze(program, probes, shared, include_directories)


def _analyze(
    program: ast.Program,
    probes: ProbeResolver,
    shared: Shared,
    include_directories: Sequence[str],
) -> tree.Script:
    diagnostics, config = shared.diagnostics, shared.config
    program = as_macros(program, diagnostics)
    program = expand_macros(program, diagnostics, builtins=shared.functions)
    apply_block(config, program.config, diagnostics)
    maps = shared.maps = MapTable(config.max_map_keys)
    maps.declare(program.map_declarations, diagnostics)
    shared.types, shared.defines = _definitions(
        program, shared.types, diagnostics, include_directories
    )
    jobs = _jobs(program, probes, shared)
    _infer(jobs, shared)
    programs = _pass(jobs, shared, final=True)
    maps.check(config, diagnostics)
    shared.named.check(diagnostics)
    _in_order(diagnostics)
    diagnostics.raise_if_errors()
    found = {name: facts.map for name, facts in maps.facts.items()}
    return tree.Script(programs, found, config, list(diagnostics.warnings), shared.lasting)


def _definitions(
    program: ast.Program,
    types: KernelTypes,
    diagnostics: Diagnostics,
    include_directories: Sequence[str],
) -> tuple[KernelTypes, Defines]:
    """The types and constants with those that the script defines in C."""
    if not program.c_definitions:
        return types, Defines()
    predefined = ["BPFTRACE_HAVE_BTF"] if types.btf is not None else []
    active = active_definitions(program.c_definitions, predefined, diagnostics)
    defines = Defines(active)
    if types.definitions is not None or all(d.kind == "define" for d in active):
        return types, defines
    from kcap.sema.cdefinitions import read_definitions

    found = read_definitions(active, types, diagnostics, include_directories)
    if found is None:
        return types, defines
    defines.add(found.macros())
    return types.with_definitions(found), defines


def _jobs(program: ast.Program, probes: ProbeResolver, shared: Shared) -> list[_Job]:
    jobs = []
    for probe in program.probes:
        uses = _names_used(probe)
        contexts: list[ProbeContext] = []
        for point in probe.attach_points:
            try:
                contexts += probes.resolve(_with_parameters(point, shared.parameters), uses)
            except ScriptError as error:
                shared.diagnostics.extend(error.diagnostics)
        joined = probes.join(contexts)
        jobs += [_Job(probe, context, (probe, index)) for index, context in enumerate(joined)]
    return jobs


def _names_used(probe: ast.Probe) -> frozenset[str]:
    """Builtins and functions that a probe's predicate and block name, and ``comptime``."""
    names = set()
    for root in (probe.predicate, probe.block):
        for node in ast.walk(root) if root is not None else ():
            if isinstance(node, ast.Identifier | ast.Call):
                names.add(node.name)
            elif isinstance(node, ast.Comptime):
                names.add("comptime")
    return frozenset(names)


def _with_parameters(point: ast.AttachPoint, parameters: Sequence[str]) -> ast.AttachPoint:
    """An attach point with ``$1`` and so on replaced by the command line's parameters."""
    if not any("$" in part.text for part in (point.provider, *point.parts)):
        return point
    provider = _substitute(point.provider, parameters)
    parts = [_substitute(part, parameters) for part in point.parts]
    # A parameter may be a whole attach point: `$1 { … }` with i:ms:1.
    name, *more = provider.text.split(":")
    parts[:0] = [provider.replace(text=text) for text in more]
    return point.replace(provider=provider.replace(text=name), parts=parts)


def _substitute(part: ast.AttachPart, parameters: Sequence[str]) -> ast.AttachPart:
    import re

    def value(match: re.Match[str]) -> str:
        index = int(match[1])
        return parameters[index - 1] if 0 < index <= len(parameters) else ""

    return part.replace(text=re.sub(r"\$(\d+)", value, part.text))


def _infer(jobs: list[_Job], shared: Shared) -> None:
    """Go over the script until the types of variables and maps stay the same."""
    for _ in range(MAX_PASSES):
        shared.maps.changed = shared.variables.changed = shared.undecided = False
        _pass(jobs, shared, final=False)
        if shared.maps.changed or shared.variables.changed or _decide(jobs, shared):
            continue
        shared.maps.give_defaults()
        if not shared.maps.changed:
            return


def _decide(jobs: list[_Job], shared: Shared) -> bool:
    """Decide the conditions of ``if comptime`` that can be told now; whether there were any."""
    before = len(shared.decided)
    if shared.undecided:
        shared.deciding = True
        _pass(jobs, shared, final=False)
        shared.deciding = False
    return len(shared.decided) > before


def _pass(jobs: list[_Job], shared: Shared, *, final: bool) -> list[tree.Program]:
    for facts in shared.maps.facts.values():
        facts.broken = facts.pending = False
    return [Analyzer(shared, job.context, job.key, final).program(job.probe) for job in jobs]


def _in_order(diagnostics: Diagnostics) -> None:
    def place(found: Diagnostic) -> int:
        return found.span.start if found.span is not None else 0

    diagnostics.items.sort(key=place)
