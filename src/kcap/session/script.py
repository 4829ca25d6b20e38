# SPDX-License-Identifier: Apache-2.0
"""Scripts before they run: parsing, checking, compiling. None of it needs a privilege."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kcap.errors import NoProbesError
from kcap.lang.diagnostic import Diagnostic, Diagnostics, ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.records import dataclass
from kcap.sema import tree
from kcap.sema.types import Opaque
from kcap.session.options import Options as Options
from kcap.session.options import make_system
from kcap.session.timing import Timings

if TYPE_CHECKING:
    from kcap.codegen.compiled import Compiled
    from kcap.codegen.module import Features
    from kcap.codegen.objects import ObjectSource
    from kcap.diagnose.helpercheck import Probe
    from kcap.diagnose.programkinds import ProgramKind
    from kcap.lang import ast
    from kcap.probes.system import System
    from kcap.sema.config import Config
    from kcap.session.compiled import CompiledScript


@dataclass(slots=True)
class Checked:
    """A script that was found to be right: what :func:`compile` returns.

    :param source: its text.
    :param syntax: the syntax tree.
    :param script: the typed tree.
    :param system: the machine that it was checked for.
    :param warnings: what to look at, although it works.
    :param timings: how long the phases took.
    :param reads_files: it imports or includes files.
    """

    source: Source
    syntax: ast.Program
    script: tree.Script
    system: System
    options: Options
    warnings: list[Diagnostic]
    timings: Timings
    reads_files: bool

    def __repr__(self) -> str:
        return f"<Checked {self.source.name!r}: {', '.join(self.probes) or 'no probes'}>"

    @property
    def probes(self) -> list[str]:
        """The names of the probes, as ``probe`` prints them."""
        return [program.context.name for program in self.script.programs]

    def generate(
        self,
        features: Features | None = None,
        objects: ObjectSource | None = None,
        *,
        lines: bool = False,
    ) -> Compiled:
        """Compile to BPF programs.

        :param features: what the target kernel can do; all that kcap can use by default.
        :param objects: where the object comes from: by default LLVM, without a cache.
        :param lines: also note where in the script each instruction comes from.
        :raises CodegenError: when LLVM refuses.
        """
        from kcap.codegen.compile import compile_script
        from kcap.codegen.module import Features

        with self.timings.phase("compile"):
            return compile_script(
                self.script,
                features or Features(),
                objects,
                pid=self.options.pid,
                helper_errors=self.options.helper_errors,
                lines=lines,
            )

    def ready(self, objects: ObjectSource | None = None) -> CompiledScript:
        """Compile for the kernel that runs here.

        :param objects: see :meth:`generate`.
        :raises CodegenError: when LLVM refuses.
        """
        from kcap.session.compiled import CompiledScript
        from kcap.session.features import probe_features

        with self.timings.phase("probe features"):
            features = probe_features(self.script, self.system)
        return CompiledScript(
            self.source,
            self.options,
            self.system,
            self.warnings,
            self.timings,
            self.script.config,
            self.script.maps,
            self.generate(features, objects),
            features,
            self._names_processes(),
            lambda: self,
        )

    def _names_processes(self) -> bool:
        """Whether the script prints addresses of processes by name."""
        bodies = [program.body for program in self.script.programs]
        calls = (node for node in tree.walk(bodies) if isinstance(node, tree.Call))
        return any(isinstance(call.type, Opaque) and call.type.names_processes for call in calls)


def compile(
    text: str,
    *,
    name: str = "stdin",
    options: Options | None = None,
    system: System | None = None,
    ask_kernel: bool = False,
) -> Checked:
    """Parse and check a script, without root and, unless asked to, without touching the kernel's
    BPF.

    Types come from the machine's BTF where it offers it. That helpers may be called from the
    probes that call them is checked here, too.

    :param text: the script.
    :param name: what diagnostics call it.
    :param system: the machine to check it for; by default the one that this runs on.
    :param ask_kernel: where kcap's table does not say that a helper may be called, ask the running
        kernel, by loading a program that calls it. For those who are going to load the script.
    :raises ScriptError: with every error found, each with its place.
    :raises UsageError: an environment variable has a value that it doesn't take.
    """
    options = options or Options()
    timings = Timings()
    source = Source(name, text)
    with timings.phase("parse"):
        parsed = _with_includes(_parse(source), options.includes)
        syntax = _with_imports(parsed, name)
    with timings.phase("check"):
        script, system, found = _check(syntax, source, options, system, ask_kernel)
    return Checked(source, syntax, script, system, options, found, timings, _reads_files(parsed))


def _parse(source: Source) -> ast.Program:
    """The syntax tree.

    :raises ScriptError: the text is none.
    """
    try:
        return parse(source)
    except ScriptError as error:
        from kcap.diagnose.syntax import with_syntax_suggestions

        raise with_syntax_suggestions(error) from error


def _reads_files(syntax: ast.Program) -> bool:
    """Whether a script as it was parsed says to read files."""
    return bool(syntax.imports) or any(c.kind == "include" for c in syntax.c_definitions)


def _with_imports(syntax: ast.Program, name: str) -> ast.Program:
    """The script with everything that it imports.

    :raises ScriptError: a file cannot be imported, or is wrong itself.
    """
    if not syntax.imports:
        return syntax
    from kcap.lang.imports import resolve_imports

    diagnostics = Diagnostics()
    directory = os.path.dirname(os.path.abspath(name)) if os.path.isfile(name) else os.getcwd()
    syntax = resolve_imports(syntax, diagnostics, directory=directory)
    diagnostics.raise_if_errors()
    return syntax


def _with_includes(syntax: ast.Program, headers: Sequence[str]) -> ast.Program:
    """The script with the headers of ``--include`` before its own."""
    if not headers:
        return syntax
    from kcap.lang.imports import inclusion

    included = [inclusion(f"<{header}>", f"--include {header}") for header in headers]
    return syntax.replace(c_definitions=[*included, *syntax.c_definitions])


def _check(
    syntax: ast.Program,
    source: Source,
    options: Options,
    system: System | None,
    ask_kernel: bool,
) -> tuple[tree.Script, System, list[Diagnostic]]:
    from kcap.diagnose.check import check, check_failed
    from kcap.functions.registry import all_functions
    from kcap.probes.registry import resolver
    from kcap.sema.analyzer import analyze
    from kcap.session.unwinding import unwound_files

    config = configure(syntax, options)
    release = None
    if system is None:
        system, release = make_system(options, config), os.uname().release
    functions = all_functions()
    probes = resolver(system)
    ask = _question(system) if ask_kernel else None
    try:
        script = analyze(
            syntax,
            functions=functions,
            probes=probes,
            types=system.types,
            config=config,
            parameters=options.parameters,
            unsafe=options.unsafe or options.unsafe_functions,
            include_directories=options.include_directories,
            named=options.named,
            child_pid=options.child_pid,
            unwound_files=unwound_files(options.pid, options.dwarf_pids, options.command),
        )
    except ScriptError as error:
        raise check_failed(error, syntax, source, system, functions, release, ask) from error
    if probes.all_filtered:
        raise NoProbesError(hint="--probe-filter matches none of the probes")
    wrong = [*system.warnings, *probes.warnings, *probes.unattached(syntax.probes)]
    wrong += check(script, syntax, source, system, functions, release, ask)
    if any(diagnostic.severity == "error" for diagnostic in wrong):
        raise ScriptError(wrong)
    return script, system, [*script.warnings, *wrong]


def _question(system: System) -> Probe:
    """What asks the running kernel whether programs of a kind may call a helper. Nothing is loaded
    (neither Python's modules nor BPF) before it is called."""

    def ask(kind: ProgramKind, helper: int) -> bool | None:
        from kcap.diagnose.prober import Prober

        return Prober(system.btf)(kind, helper)

    return ask


def configure(syntax: ast.Program, options: Options) -> Config:
    """The configuration of a script: defaults, its config block, the environment.

    :raises ScriptError: an entry of the block can't be taken.
    """
    from kcap.sema.config import apply_block, from_environment

    config = from_environment(options.environment)
    diagnostics = Diagnostics()
    apply_block(config, syntax.config, diagnostics)
    diagnostics.raise_if_errors()
    return config
