# SPDX-License-Identifier: Apache-2.0
"""The typed events that a running trace yields.

Library users iterate over them; ``output/`` turns them into text or JSON. Values are decoded
Python values (see :meth:`kcap.sema.types.Type.decode`), beside their type in the language.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from kcap.codegen.site import HelperError as HelperError
from kcap.records import dataclass, field

if TYPE_CHECKING:
    from kcap.functions.format import Format
    from kcap.lang.source import Span
    from kcap.sema.tree import Map
    from kcap.sema.types import Type

TextKind = Literal["printf", "time", "cat", "join", "syscall"]
"""What printed a text, as the JSON output names it (``syscall`` is ``system()``)."""


@dataclass(slots=True)
class Printf:
    """What one ``printf()`` printed.

    :param text: the formatted text.
    :param format: its format string, parsed.
    :param data: the raw values, for :attr:`values`.
    """

    text: str
    format: Format = field(repr=False)
    data: bytes = field(repr=False)

    @property
    def values(self) -> tuple[Any, ...]:
        """The values that were printed, decoded."""
        values: tuple[Any, ...] = self.format.payload.decode(self.data)
        return values


@dataclass(slots=True)
class TextPrinted:
    """Text that a function other than ``printf()`` printed.

    :param kind: which one.
    :param text: what it printed; ``join()`` ends with a newline.
    """

    kind: TextKind
    text: str


@dataclass(slots=True)
class ValuePrinted:
    """``print(value)``.

    :param type: the value's type in the language.
    :param value: the decoded value.
    """

    type: Type
    value: Any


@dataclass(slots=True)
class MapPrinted:
    """``print(@map)``, or a map at the end of the trace.

    :param map: the map: its name, key and value types.
    :param entries: every (key, value), in no order; the key is None for a map without keys.
    :param top: print only the ``top`` largest; 0 for all.
    :param div: divide values by it before printing; 0 for not.
    """

    map: Map
    entries: list[tuple[Any, Any]]
    top: int = 0
    div: int = 0


@dataclass(slots=True)
class Message:
    """``errorf()``, ``warnf()``: text for people, with the place in the script.

    :param severity: ``error`` or ``warning``.
    :param text: the formatted text.
    :param span: the call, or None where it says nothing of what is wrong.
    """

    severity: Literal["error", "warning"]
    text: str
    span: Span | None


@dataclass(slots=True)
class Lost:
    """Something was lost since the last report.

    :param count: how many.
    :param kind: 'event', 'packet', 'map' (an update that a full map refused) or 'filter' (a packet
        that skbfilter() could not judge, since it asks for bytes in fragments).
    :param subject: the probe or map concerned, or ''.
    """

    count: int
    kind: Literal["event", "packet", "map", "filter"] = "event"
    subject: str = ""


@dataclass(slots=True)
class Looked:
    """The rings were looked at: what they held has been yielded.

    :param mono_ns: when that began, CLOCK_MONOTONIC.
    """

    mono_ns: int


@dataclass(slots=True)
class AttachedProbes:
    """All probes are attached, the trace runs.

    :param count: how many.
    """

    count: int


@dataclass(slots=True)
class ExitRequested:
    """``exit()`` was called.

    :param status: the exit status asked for.
    """

    status: int


@dataclass(slots=True)
class TraceEnded:
    """The trace is over; what the exit prints (maps) follows."""


@dataclass(slots=True)
class SuiteStarted:
    """The ``test`` probes are about to run.

    :param count: how many there are.
    """

    count: int


@dataclass(slots=True)
class CaseStarted:
    """A ``test`` probe is about to run."""

    name: str


@dataclass(slots=True)
class CaseResult:
    """A ``test`` probe has run.

    :param name: the test.
    :param reason: why it failed; '' if it passed.
    :param nanoseconds: how long that took.
    :param printed: the events of what it printed.
    """

    name: str
    reason: str = ""
    nanoseconds: int = 0
    printed: list[object] = field(default_factory=list)


@dataclass(slots=True)
class SuiteEnded:
    """All ``test`` probes have run.

    :param count: how many there were.
    :param failed: the names of those that failed.
    """

    count: int
    failed: list[str]


@dataclass(slots=True)
class Benchmark:
    """What a ``bench`` probe took.

    :param average: nanoseconds a run.
    :param iterations: how often it ran.
    """

    name: str
    average: int
    iterations: int


@dataclass(slots=True)
class Benchmarks:
    """All ``bench`` probes have run."""

    results: list[Benchmark]


@dataclass(slots=True)
class Missed:
    """Events of a probe that the kernel did not give to its program.

    :param count: how many.
    :param probe: the probe's name.
    :param reason: ``recursion`` (the program was running on that CPU already) or ``nmissed``
        (the kernel's own count of a kprobe).
    """

    count: int
    probe: str
    reason: Literal["recursion", "nmissed"]


Event = (
    Printf
    | TextPrinted
    | ValuePrinted
    | MapPrinted
    | Message
    | HelperError
    | Lost
    | AttachedProbes
    | ExitRequested
    | TraceEnded
    | SuiteStarted
    | CaseStarted
    | CaseResult
    | SuiteEnded
    | Benchmarks
    | Missed
)
