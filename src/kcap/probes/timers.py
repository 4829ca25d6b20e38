# SPDX-License-Identifier: Apache-2.0
"""``interval`` and ``profile``: timers, on one CPU and on all CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.kernel import uapi
from kcap.probes.base import Part, ProbeType, match_all, rest_of
from kcap.probes.numbers import UNITS, parse_duration, parse_integer
from kcap.records import dataclass
from kcap.sema.probe import ProbeContext

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.lang.ast import AttachPoint
    from kcap.probes.system import System

_UNITS = ("us", "ms", "s", "hz")
"""What may stand between the provider and the number."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a timer fires; one of the two is 0.

    :param period: nanoseconds.
    :param frequency: times a second.
    """

    period: int = 0
    frequency: int = 0


class Interval(ProbeType):
    """A timer on one CPU at a time."""

    name = "interval"
    lasting = True
    aliases = ("i",)
    summary = "At a fixed interval, on one CPU at a time"
    cost = "an interrupt on one CPU, as often as asked for"
    signatures = ("interval:1s", "interval:us|ms|s:COUNT", "interval:hz:RATE")

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        parts = self.parts(point, system, 1, 2)
        rate = self._rate(parts)
        title = f"{self.name}:us:{rate.period // 1000}" if rate.period else ""
        return [
            ProbeContext(
                self.name,
                f"{self.name}:{rest_of(parts)}",
                uapi.BPF_PROG_TYPE_PERF_EVENT,
                targets=(rate,),
                args_missing=f"{self.name} probes have no arguments",
                extra={"title": title} if title else {},
            )
        ]

    def _rate(self, parts: list[Part]) -> Rate:
        if len(parts) == 1:
            period = parse_duration(parts[0].text)
            if period is None:
                raise self.malformed(parts[0].span, f"{parts[0].text!r} is no duration")
            return Rate(self._positive(period, parts[0]))
        unit, count = parts
        value = parse_integer(count.text)
        if unit.text not in _UNITS:
            raise self.malformed(unit.span, f"{unit.text!r} is no unit: us, ms, s or hz")
        if value is None:
            raise self.malformed(count.span, f"{count.text!r} is no number")
        value = self._positive(value, count)
        if unit.text == "hz":
            return Rate(frequency=value)
        return Rate(value * UNITS[unit.text])

    def _positive(self, value: int, part: Part) -> int:
        if not 0 < value < 1 << 63:
            raise self.malformed(part.span, f"{part.text} is out of range")
        return value

    def attach_target(
        self, context: ProbeContext, target: Rate, program: Program, system: System
    ) -> Link:
        from kcap.kernel.cpus import online
        from kcap.kernel.links import attach_sampling

        return attach_sampling(
            program.fileno(),
            uapi.PERF_TYPE_SOFTWARE,
            uapi.PERF_COUNT_SW_CPU_CLOCK,
            context.name,
            period=target.period,
            frequency=target.frequency,
            on_cpus=self._cpus(online()),
        )

    def _cpus(self, online: list[int]) -> list[int]:
        return online[:1]

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        return (f"{self.name}:{u}:" for u in sorted(_UNITS) if match_all(parts, [u]))


class Profile(Interval):
    """A timer on every CPU."""

    name = "profile"
    aliases = ("p",)
    summary = "At a fixed interval, on every CPU"
    cost = "an interrupt on every CPU, as often as asked for"
    signatures = ("profile:1s", "profile:us|ms|s:COUNT", "profile:hz:RATE")

    def _cpus(self, online: list[int]) -> list[int]:
        return online
