# SPDX-License-Identifier: Apache-2.0
"""A compiled script: all that a trace needs of it, and nothing of what made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kcap.records import dataclass

if TYPE_CHECKING:
    from kcap.codegen.compiled import Compiled
    from kcap.codegen.module import Features
    from kcap.codegen.objects import ObjectSource
    from kcap.lang.diagnostic import Diagnostic
    from kcap.lang.source import Source
    from kcap.probes.system import System
    from kcap.sema import tree
    from kcap.sema.config import Config
    from kcap.session.options import Options
    from kcap.session.script import Checked
    from kcap.session.timing import Timings


@dataclass(slots=True)
class CompiledScript:
    """A script that is ready to be loaded.

    :param source: its text.
    :param system: the machine that it was compiled for.
    :param warnings: what to look at, although it works.
    :param timings: how long the phases took.
    :param config: the configuration that holds for it.
    :param maps: its maps by name, in the order of first use.
    :param compiled: its programs, the BPF maps, and what sends events.
    :param features: what of the kernel the programs count on.
    :param names_processes: it prints addresses of processes by name.
    :param check: gives the script as it was checked, to explain what the kernel refuses. One that
        was kept is checked again then, which may raise ScriptError.
    """

    source: Source
    options: Options
    system: System
    warnings: list[Diagnostic]
    timings: Timings
    config: Config
    maps: dict[str, tree.Map]
    compiled: Compiled
    features: Features
    names_processes: bool
    check: Callable[[], Checked]

    def ready(self, objects: ObjectSource | None = None) -> CompiledScript:
        """Itself: there is nothing left to compile."""
        return self

    def with_lines(self) -> Compiled:
        """Compile it once more, with the place in the script of each instruction.

        :raises CodegenError: when LLVM refuses.
        """
        return self.check().generate(self.features, lines=True)
