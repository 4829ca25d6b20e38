# SPDX-License-Identifier: Apache-2.0
"""A program that counts its runs, attached by whatever probe type an attach point names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kcap.kernel import asm, uapi
from kcap.kernel.links import Link, close_all
from kcap.kernel.maps import Map
from kcap.kernel.programs import Program
from kcap.kernel.spec import MapSpec, ProgramSpec, Relocation
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.base import Load
from kcap.probes.registry import Resolver, probe_type
from kcap.probes.system import System
from kcap.sema.probe import ProbeContext

COUNTER = MapSpec("counter", uapi.BPF_MAP_TYPE_ARRAY, 4, 8, 1)


def counting(kind: int) -> ProgramSpec:
    """A program that counts its runs in the map ``counter`` and returns 0."""
    code = (
        asm.load_imm64(asm.R1, 0)
        + asm.load(asm.R2, asm.R1)
        + asm.add_imm(asm.R2, 1)
        + asm.store(asm.R1, 0, asm.R2)
        + asm.mov_imm(asm.R0, 0)
        + asm.exit_()
    )
    return ProgramSpec("counting", kind, code, 0, (Relocation(0, "map_value", "counter"),))


@dataclass
class Attached:
    """What an attach point became.

    :param counter: the map that its programs count in.
    """

    contexts: list[ProbeContext]
    counter: Map
    programs: list[tuple[ProbeContext, Load, Program]] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How often the programs ran."""
        return int.from_bytes(self.counter.lookup(bytes(4)) or b"", "little")


def resolve(text: str, system: System, *uses: str) -> list[ProbeContext]:
    """The contexts of the one attach point in ``text``."""
    (probe,) = parse(Source("stdin", f"{text} {{ }}")).probes
    return Resolver(system).resolve(probe.attach_points[0], set(uses))


@contextmanager
def attached(text: str, system: System, *uses: str) -> Iterator[Attached]:
    """Load and attach counting programs for an attach point; all is gone at the end."""
    with Map.create(COUNTER) as counter:
        made = Attached(resolve(text, system, *uses), counter)
        try:
            for context in made.contexts:
                kind = probe_type(context.provider)
                loaded = []
                for load in kind.load_specs(context, system):
                    spec = load.apply(counting(context.program_type))
                    program = Program.load(spec, {"counter": counter})
                    made.programs.append((context, load, program))
                    loaded.append((load, program))
                if not kind.manual:
                    made.links += kind.attach(context, loaded, system)
            yield made
        finally:
            close_all(made.links)
            for _, _, program in made.programs:
                program.close()
