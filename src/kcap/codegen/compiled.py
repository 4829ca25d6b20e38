# SPDX-License-Identifier: Apache-2.0
"""What the compiler makes of a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kcap.records import dataclass

if TYPE_CHECKING:
    from kcap.codegen.module import LostCounter
    from kcap.codegen.site import Site
    from kcap.kernel.spec import MapSpec, ProgramSpec
    from kcap.lang.source import Span
    from kcap.sema import tree
    from kcap.sema.probe import ProbeContext


@dataclass(slots=True)
class CompiledProgram:
    """One BPF program and the probe that it is for.

    :param context: program type, targets.
    :param spec: the instructions; what depends on the target is filled in at loading.
    :param places: (index of an instruction, where in the script it comes from), ascending: each
        counts up to the next. Only after compiling with ``lines``.
    """

    context: ProbeContext
    spec: ProgramSpec
    places: tuple[tuple[int, Span], ...] = ()


@dataclass(slots=True)
class Compiled:
    """A script, compiled.

    :param programs: in the order of the script.
    :param probes: the names of the script's probes, by the numbers that packets carry.
    :param maps: all the maps that the programs use, auxiliary ones included.
    :param sites: what sends events, by number.
    :param lost: what each slot of the loss counters counts.
    :param collected: what functions noted for user space, by kind.
    :param ir: the LLVM IR as generated; '' for what was kept.
    :param origin: gives the typed tree that it was made from.
    """

    programs: list[CompiledProgram]
    probes: list[str]
    maps: tuple[MapSpec, ...]
    sites: list[Site]
    lost: list[LostCounter]
    collected: dict[str, list[object]]
    ir: str
    origin: Callable[[], tree.Script]

    @property
    def script(self) -> tree.Script:
        """The typed tree that it was made from; for what was kept, the script is checked again."""
        return self.origin()
