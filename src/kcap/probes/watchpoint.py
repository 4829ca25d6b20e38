# SPDX-License-Identifier: Apache-2.0
"""``watchpoint``: memory that is read, written or executed, by the processor's debug registers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kcap.kernel import uapi
from kcap.probes.base import Part, ProbeType, rest_of
from kcap.probes.numbers import parse_integer
from kcap.records import dataclass
from kcap.sema.probe import ProbeContext

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.lang.ast import AttachPoint
    from kcap.probes.system import System

LENGTHS = (1, 2, 4, 8)
_ACCESS = {
    "r": uapi.HW_BREAKPOINT_R,
    "w": uapi.HW_BREAKPOINT_W,
    "x": uapi.HW_BREAKPOINT_X,
}
_MODES = ("r", "w", "rw", "x")
_EXECUTED_LENGTH = 8
"""Bytes that the kernel wants for a breakpoint on execution: sizeof(long) (perf_event_open(2))."""
_INHERIT = 1 << 1
"""The ``inherit`` bit of struct perf_event_attr: threads that are started later count too."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A piece of memory.

    :param address: in the kernel, or in the traced process.
    :param length: bytes.
    :param access: HW_BREAKPOINT_* or-ed.
    """

    address: int
    length: int
    access: int


class Watchpoint(ProbeType):
    """Memory that is read, written or executed."""

    name = "watchpoint"
    aliases = ("w",)
    summary = "An address is read, written or executed"
    cost = "an exception at each access; a CPU has four debug registers for it"
    signatures = ("watchpoint:address:length:mode",)

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        address, length, mode = parts = self.parts(point, system, 3, 3)
        watched = Watched(
            self._number(address, "address"), self._length(length), self._access(mode)
        )
        if watched.address % watched.length:
            raise self.malformed(
                address.span, f"the address is no multiple of the length, {watched.length}"
            )
        return [
            ProbeContext(
                self.name,
                f"{self.name}:{rest_of(parts)}",
                uapi.BPF_PROG_TYPE_PERF_EVENT,
                targets=(watched,),
                args_missing="watchpoints have no arguments",
            )
        ]

    def _number(self, part: Part, what: str) -> int:
        value = parse_integer(part.text)
        if value is None or value >= 1 << 64:
            raise self.malformed(part.span, f"{part.text!r} is no {what}")
        return value

    def _length(self, part: Part) -> int:
        value = self._number(part, "length")
        if value not in LENGTHS:
            raise self.malformed(part.span, f"the length is {value}, not 1, 2, 4 or 8")
        return value

    def _access(self, part: Part) -> int:
        mode = "".join(sorted(part.text))
        if mode not in _MODES:
            raise self.malformed(part.span, f"{part.text!r} is no mode: r, w, rw or x")
        access = 0
        for letter in mode:
            access |= _ACCESS[letter]
        return access

    def attach_target(
        self, context: ProbeContext, target: Watched, program: Program, system: System
    ) -> Link:
        from kcap.kernel.links import attach_watchpoint

        # x86 can't watch reading alone (Intel's manual, volume 3, debug registers).
        access = target.access
        if access == uapi.HW_BREAKPOINT_R and system.arch == "x86_64":
            access |= uapi.HW_BREAKPOINT_W
        length = _EXECUTED_LENGTH if access == uapi.HW_BREAKPOINT_X else target.length
        if system.pid is None:
            return attach_watchpoint(program.fileno(), target.address, length, access, context.name)
        return _attach_to_threads(
            program, Watched(target.address, length, access), context.name, system.pid
        )

    def watches(self, context: ProbeContext, address: int) -> bool:
        return any(target.address == address for target in context.targets)

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        return iter(())


def _attach_to_threads(program: Program, watched: Watched, what: str, pid: int) -> Link:
    """Watch in every thread of a process and in those that they start."""
    from kcap.kernel import perf_events
    from kcap.kernel.errors import AttachError, syscall_error
    from kcap.kernel.links import attach_event

    attr = perf_events.attribute(
        uapi.PERF_TYPE_BREAKPOINT,
        period=1,
        flags=_INHERIT,
        bp_type=watched.access,
        config1=watched.address,
        config2=watched.length,
    )
    events: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            events.append(perf_events.open_event(attr, int(thread), -1))
    except OSError as error:
        for event in events:
            os.close(event)
        raise syscall_error(f"attach to {what}", error, AttachError) from error
    return attach_event(program.fileno(), events, what)
