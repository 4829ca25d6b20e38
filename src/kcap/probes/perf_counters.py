# SPDX-License-Identifier: Apache-2.0
"""``software`` and ``hardware``: events that the kernel or the processor counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kcap.kernel import uapi
from kcap.probes.base import Part, ProbeType, match_all, rest_of
from kcap.probes.numbers import parse_integer
from kcap.probes.problems import no_match, suggestion
from kcap.records import dataclass
from kcap.sema.probe import ProbeContext
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.lang.ast import AttachPoint
    from kcap.probes.system import System


@dataclass(frozen=True, slots=True)
class Event:
    """A countable event.

    :param config: PERF_COUNT_*.
    :param period: how many of them fire the probe when the script doesn't say.
    """

    config: int
    period: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """An event and after how many of them the probe fires."""

    config: int
    period: int


class Software(ProbeType):
    """Events that the kernel counts."""

    name = "software"
    lasting = True
    aliases = ("s",)
    summary = "Events that the kernel counts, such as page faults"
    cost = "one run for every COUNT events"
    signatures = ("software:EVENT", "software:EVENT:COUNT")

    kind: ClassVar[int] = uapi.PERF_TYPE_SOFTWARE
    events: ClassVar[Mapping[str, Event]] = {
        "alignment-faults": Event(uapi.PERF_COUNT_SW_ALIGNMENT_FAULTS, 1),
        "bpf-output": Event(uapi.PERF_COUNT_SW_BPF_OUTPUT, 1),
        "context-switches": Event(uapi.PERF_COUNT_SW_CONTEXT_SWITCHES, 1000),
        "cpu-clock": Event(uapi.PERF_COUNT_SW_CPU_CLOCK, 1_000_000),
        "cpu-migrations": Event(uapi.PERF_COUNT_SW_CPU_MIGRATIONS, 1),
        "dummy": Event(uapi.PERF_COUNT_SW_DUMMY, 1),
        "emulation-faults": Event(uapi.PERF_COUNT_SW_EMULATION_FAULTS, 1),
        "major-faults": Event(uapi.PERF_COUNT_SW_PAGE_FAULTS_MAJ, 1),
        "minor-faults": Event(uapi.PERF_COUNT_SW_PAGE_FAULTS_MIN, 100),
        "page-faults": Event(uapi.PERF_COUNT_SW_PAGE_FAULTS, 100),
        "task-clock": Event(uapi.PERF_COUNT_SW_TASK_CLOCK, 1),
    }
    other_names: ClassVar[Mapping[str, str]] = {
        "cpu": "cpu-clock",
        "cs": "context-switches",
        "faults": "page-faults",
    }

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        parts = self.parts(point, system, 1, 2)
        event = self._event(parts)
        period = event.period
        if len(parts) == 2 and parts[1].text:
            given = parse_integer(parts[1].text)
            if not given or given >= 1 << 63:
                raise self.malformed(parts[1].span, f"{parts[1].text!r} is no count")
            period = given
        return [
            ProbeContext(
                self.name,
                f"{self.name}:{rest_of(parts)}",
                uapi.BPF_PROG_TYPE_PERF_EVENT,
                targets=(Sampling(event.config, period),),
                args_missing=f"{self.name} probes have no arguments",
            )
        ]

    def _event(self, parts: list[Part]) -> Event:
        name = parts[0].text
        event = self.events.get(self.other_names.get(name, name))
        if event is None:
            help_, edits = suggestion(
                parts[0].span, nearest(name, [*self.events, *self.other_names])
            )
            raise no_match(
                self.name,
                rest_of(parts),
                parts[0].span,
                label=f"no such {self.name} event",
                notes=(f"{self.name} events: {', '.join(self.events)}",),
                help=help_,
                edits=edits,
            )
        return event

    def attach_target(
        self, context: ProbeContext, target: Sampling, program: Program, system: System
    ) -> Link:
        from kcap.kernel.links import attach_sampling

        return attach_sampling(
            program.fileno(),
            self.kind,
            target.config,
            context.name,
            period=target.period,
            pid=system.pid if system.pid is not None else -1,
        )

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        names = sorted([*self.events, *self.other_names])
        return (f"{self.name}:{n}:" for n in names if match_all(parts, [n]))


class Hardware(Software):
    """Events that the processor counts."""

    name = "hardware"
    aliases = ("h",)
    summary = "Events that the processor counts, such as cache misses"
    cost = "an interrupt for every COUNT events"
    signatures = ("hardware:EVENT", "hardware:EVENT:COUNT")

    # enum perf_hw_id of include/uapi/linux/perf_event.h gives the numbers.
    kind = uapi.PERF_TYPE_HARDWARE
    events: ClassVar[Mapping[str, Event]] = {
        "backend-stalls": Event(8, 1_000_000),
        "branch-instructions": Event(4, 100_000),
        "branch-misses": Event(5, 100_000),
        "bus-cycles": Event(6, 100_000),
        "cache-misses": Event(3, 1_000_000),
        "cache-references": Event(2, 1_000_000),
        "cpu-cycles": Event(0, 1_000_000),
        "frontend-stalls": Event(7, 1_000_000),
        "instructions": Event(1, 1_000_000),
        "ref-cycles": Event(9, 1_000_000),
    }
    other_names: ClassVar[Mapping[str, str]] = {
        "branches": "branch-instructions",
        "cycles": "cpu-cycles",
    }
