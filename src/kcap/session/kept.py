# SPDX-License-Identifier: Apache-2.0
"""Compiled scripts, kept from one start to the next.

A script that ran before under the same circumstances needs neither parser nor compiler: all that
a trace wants of it (:class:`~kcap.session.compiled.CompiledScript`) is in one file. The file's name
is a digest of everything that the compiler looks at: the text, the options and ``BPFTRACE_``
variables, kcap's own code, the boot, the loaded modules with their addresses, the processors, the
PID namespace. The formats and lists of events that were read stand in the file with digests of
their own, and are read again. What depends on anything else is not kept: files that are imported or
included, probes in programs and libraries, functions that look at files (``lasting`` says which), a
command of ``-c``.

Where the kernel refuses what was kept, the script is checked again, which says why.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from kcap import cachedir
from kcap.codegen.compiled import Compiled, CompiledProgram
from kcap.kernel import pidns
from kcap.plain import PlainError, dumps, loads
from kcap.probes import kept as kernel_state
from kcap.probes.registry import probe_type
from kcap.records import dataclass, fields, replace
from kcap.session.compiled import CompiledScript
from kcap.session.options import make_system
from kcap.session.timing import Timings
from kcap.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.codegen.module import Features, LostCounter
    from kcap.codegen.site import Site
    from kcap.kernel.spec import MapSpec
    from kcap.lang.diagnostic import Diagnostic
    from kcap.lang.source import Source
    from kcap.sema import tree
    from kcap.sema.config import Config
    from kcap.sema.probe import ProbeContext
    from kcap.session.options import Options
    from kcap.session.script import Checked

DIRECTORY = "scripts"
#: Bytes that the directory may hold; beyond it the oldest files go.
LIMIT = 16 << 20
#: Options that don't change what a script is compiled to; of the environment only some do.
_NOT_READ = ("environment", "verbose", "verifier_log")
#: What of ``ProbeContext.extra`` only the compiler reads, and takes room.
_FOR_COMPILING = (
    *("alike", "helper_slots", "session", "slot_places", "target_names", "usdt_arguments"),
)


@dataclass(slots=True)
class Contents:
    """What a file holds.

    :param inputs: digests of the files that the compiler read, by path.
    """

    inputs: dict[str, bytes]
    source: Source
    warnings: list[Diagnostic]
    config: Config
    maps: dict[str, tree.Map]
    programs: list[CompiledProgram]
    probes: list[str]
    specs: tuple[MapSpec, ...]
    sites: list[Site]
    lost: list[LostCounter]
    collected: dict[str, list[object]]
    features: Features
    names_processes: bool

    def compiled(self, origin: Callable[[], tree.Script]) -> Compiled:
        """What the compiler made.

        :param origin: gives the typed tree.
        """
        return Compiled(
            self.programs,
            self.probes,
            self.specs,
            self.sites,
            self.lost,
            self.collected,
            "",
            origin,
        )


class KeptScript:
    """The place of one script among those that are kept.

    :param text: the script.
    :param name: what diagnostics call it.
    :param options: what it is run with.
    """

    def __init__(self, text: str, name: str, options: Options) -> None:
        self._text = text
        self._name = name
        self._options = options
        self._file = _file(text, name, options)

    def find(self) -> CompiledScript | None:
        """The script as it was compiled before, or None if it has to be compiled."""
        timings = Timings()
        with timings.phase("find compiled"):
            found = self._contents()
            if found is None:
                return None
            system = make_system(self._options, found.config)
            if any(system.digest(path) != digest for path, digest in found.inputs.items()):
                return None
        check = cache(self._check)
        return CompiledScript(
            found.source,
            self._options,
            system,
            found.warnings,
            timings,
            found.config,
            found.maps,
            found.compiled(lambda: check().script),
            found.features,
            found.names_processes,
            check,
        )

    def _contents(self) -> Contents | None:
        """What the script's file holds, if it is there and whole."""
        data = cachedir.unsealed(cachedir.read(DIRECTORY, self._file)) if self._file else None
        if data is None:
            return None
        try:
            found: Contents = loads(data)
        except PlainError:  # nobody has changed it: it is of a kcap with other classes
            return None
        return found

    def _check(self) -> Checked:
        from kcap.session import script

        return script.compile(self._text, name=self._name, options=self._options, ask_kernel=True)

    def keep(self, script: CompiledScript) -> None:
        """Put a script here that was compiled and that the kernel took, if it may be kept."""
        if not self._file or not _lasting(script.check()):
            return
        made = script.compiled
        contents = Contents(
            script.system.inputs,
            script.source,
            script.warnings,
            script.config,
            script.maps,
            [replace(program, context=without_types(program.context)) for program in made.programs],
            made.probes,
            made.maps,
            made.sites,
            made.lost,
            made.collected,
            script.features,
            script.names_processes,
        )
        try:
            data = dumps(contents)
        except PlainError:  # something in it that only the compiler can make
            return
        cachedir.write(DIRECTORY, self._file, cachedir.sealed(data))
        cachedir.limit(DIRECTORY, LIMIT)


def _lasting(checked: Checked) -> bool:
    """Whether what a script is compiled to follows from what its file is named after."""
    script = checked.script
    if checked.reads_files:
        return False
    kinds = [probe_type(program.context.provider) for program in script.programs]
    return checked.system.lasting and script.lasting and all(kind.lasting for kind in kinds)


def without_types(context: ProbeContext) -> ProbeContext:
    """A probe without the types that only the compiler looks at."""
    extra = {key: value for key, value in context.extra.items() if key not in _FOR_COMPILING}
    end = without_types(context.at_return) if context.at_return is not None else None
    return replace(context, args=None, retval=None, args_missing="", extra=extra, at_return=end)


def _file(text: str, name: str, options: Options) -> str:
    """The name of a script's file; '' if it is not kept."""
    if not options.cached or options.command or options.traceable_file:
        return ""
    state = kernel_state.state()
    if not state:
        return ""
    given = [getattr(options, item.name) for item in fields(options) if item.name not in _NOT_READ]
    variables = sorted(
        item for item in options.environment.items() if item[0].startswith("BPFTRACE_")
    )
    processors = os.sysconf("SC_NPROCESSORS_ONLN")
    known = (__version__, _code(), state, given, variables, processors, pidns.own(), name, text)
    return cachedir.digest(repr(known).encode("utf-8", "surrogateescape")).hex()


def _code() -> list[tuple[str, int, int]]:
    """What tells kcap's code from another state of it: of each file its size and the time of its
    change, in nanoseconds."""
    root = os.path.dirname(os.path.dirname(__file__))
    found = []
    for directory in [root, *(entry.path for entry in os.scandir(root) if entry.is_dir())]:
        for entry in os.scandir(directory):
            if entry.name.endswith((".py", ".tsv")):
                status = entry.stat()
                found.append((entry.path, status.st_size, status.st_mtime_ns))
    return sorted(found)
