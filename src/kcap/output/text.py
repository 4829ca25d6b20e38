# SPDX-License-Identifier: Apache-2.0
"""Events as text, as bpftrace prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcap.functions import display
from kcap.functions.aggregates import Stats, divide
from kcap.functions.events import (
    AttachedProbes,
    Benchmarks,
    HelperError,
    Lost,
    MapPrinted,
    Message,
    Missed,
    Printf,
    TestResult,
    TextPrinted,
    TraceEnded,
    ValuePrinted,
)
from kcap.functions.histogram import Histogram
from kcap.functions.tseries import Series
from kcap.lang.source import MacroSpan
from kcap.output.histogram import rows
from kcap.output.sorting import all_integers, ordered
from kcap.output.tseries import series_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.codegen.environment import Environment
    from kcap.lang.source import Span

_LOST = {"event": "events", "packet": "packets", "map": "map updates"}


class TextRenderer:
    """Turns events into what goes to standard output and to standard error.

    :param environment: resolves symbols, times and the like.
    :param quiet: leave out messages about probes.
    :param warnings: print warnings.
    :ivar printf: what makes a line of the text of a ``printf()``; None: it is printed as it is.
    """

    def __init__(
        self, environment: Environment, *, quiet: bool = False, warnings: bool = True
    ) -> None:
        self.environment = environment
        self.quiet = quiet
        self.warnings = warnings
        self.printf: Callable[[str], str] | None = None

    def output(self, event: object) -> str:
        """The text of an event for standard output; '' if it has none."""
        if isinstance(event, Printf | TextPrinted):
            return event.text
        if isinstance(event, ValuePrinted):
            return f"{display.text(event.type, event.value, self.environment)}\n"
        if isinstance(event, MapPrinted):
            return self._map(event)
        if isinstance(event, AttachedProbes):
            plural = "" if event.count == 1 else "s"
            return "" if self.quiet else f"Attached {event.count} probe{plural}\n"
        if isinstance(event, TestResult):
            return f"{event.name}: {f'FAILED ({event.reason})' if event.reason else 'ok'}\n"
        if isinstance(event, Benchmarks):
            return _benchmarks(event)
        return "\n\n" if isinstance(event, TraceEnded) else ""

    def message(self, event: object) -> str:
        """The text of an event for standard error; '' if it has none."""
        if isinstance(event, Message):
            if event.severity == "warning" and not self.warnings:
                return ""
            return located(event.severity, event.text, event.span)
        if isinstance(event, HelperError):
            return self._helper_error(event)
        if isinstance(event, Lost):
            return self._lost(event)
        if isinstance(event, Missed) and self.warnings:
            return _missed(event)
        return ""

    # --- maps ---

    def _map(self, event: MapPrinted) -> str:
        name, value_type = event.map.name, event.map.value
        if event.map.key is None:
            value = event.entries[0][1] if event.entries else zero_value(value_type)
            return self._entry(name, value_type, value, event.div)
        lines = []
        entries = ordered(event.map, event.entries, event.top)
        if not event.div and all_integers(event.map, entries):
            return "".join([f"{name}[{key}]: {value}\n" for key, value in entries] + ["\n"])
        for key, value in entries:
            shown = display.key_text(event.map.key, key, self.environment)
            lines.append(self._entry(f"{name}[{shown}]", value_type, value, event.div))
        text = "".join(lines)
        return text if text.endswith("\n\n") else f"{text}\n"

    def _entry(self, name: str, type_: Any, value: Any, div: int) -> str:
        """One entry with its line end; what takes several lines has an empty one behind it."""
        if isinstance(value, Histogram | Series):
            lines = self._rows(value, div)
            return "".join([f"{line}\n" for line in (f"{name}:", *lines, "")])
        return f"{name}: {self.value(type_, value, div)}\n"

    def _rows(self, value: Histogram | Series, div: int) -> list[str]:
        if isinstance(value, Histogram):
            return rows(value, div)
        return series_rows(value, self.environment)

    def value(self, type_: Any, value: Any, div: int = 0) -> str:
        """A map's value, divided by ``div`` if it is a number."""
        if isinstance(value, Stats):
            average, total = divide(value.average, div or 1), divide(value.total, div or 1)
            return f"{{ .count = {value.count}, .average = {average}, .total = {total} }}"
        if div and isinstance(value, int) and not isinstance(value, bool):
            value = divide(value, div)
        return display.text(type_, value, self.environment)

    # --- messages ---

    def _helper_error(self, event: HelperError) -> str:
        if not self.warnings:
            return ""
        info = ""
        if event.helper:
            info = f"Additional Info - helper: {event.helper}, retcode: {event.retcode}\n"
        return located("warning", event.text, event.span, info)

    def _lost(self, event: Lost) -> str:
        if event.kind == "event" and not event.subject:
            return f"Lost {event.count} events\n"
        if event.kind == "map":
            return (
                f"WARNING: Map full; can't update element. Try increasing max_map_keys config "
                f"or manually setting the max entries in a map declaration e.g. "
                f"`let {event.subject} = hash(5000)`\n"
            )
        where = f" at {event.subject}" if event.subject else ""
        if event.kind == "filter":
            return (
                f"WARNING: {event.count} packets{where} taken for no match: the filter asks for "
                "bytes in fragments, which it cannot see\n"
            )
        return f"Lost {event.count} {_LOST[event.kind]}{where}\n"


def _missed(event: Missed) -> str:
    reason = (
        "the program was running on the same CPU already"
        if event.reason == "recursion"
        else "the kernel was in another probe"
    )
    plural = "" if event.count == 1 else "s"
    return f"WARNING: {event.probe} missed {event.count} event{plural}: {reason}\n"


def _benchmarks(event: Benchmarks) -> str:
    lines = [f"{'Benchmark':<41}{'Time(ns)':<15}Iterations", "-" * 66]
    lines += [f"{item.name:<41}{item.average:<15}{item.iterations}" for item in event.results]
    return "\n".join(lines) + "\n"


def located(severity: str, text: str, span: Span | None, info: str = "") -> str:
    """A message with its place, and the line of the script that it is about.

    :param info: a line that stands between the message and the script's line.
    """
    label, ending = severity.upper(), "" if text.endswith("\n") else "\n"
    if span is None:
        return f"{label}: {text}{ending}{info}"
    message = f"{place(span)}: {label}: {text}{ending}{info}{excerpt(span)}"
    while isinstance(span, MacroSpan):
        span = span.call
        message += f"{place(span)}: {label}: expanded from\n{excerpt(span)}"
    return message


def place(span: Span) -> str:
    """``name:line:column-column`` of a span, the last column being the one behind it."""
    if span.end_line != span.line:
        return f"{span.source.name}:{span.line}-{span.end_line}"
    return f"{span.location}-{span.end_column}"


def excerpt(span: Span) -> str:
    """The line of a span, and a line of tildes below it."""
    line = span.source.line_text(span.line)
    last = span.end_column if span.end_line == span.line else len(line) + 1
    return f"{line}\n{' ' * (span.column - 1)}{'~' * max(1, last - span.column)}\n"


def zero_value(type_: Any) -> Any:
    """What an empty map without keys is printed as: its value type's zero."""
    from kcap.sema.types import Aggregate

    if isinstance(type_, Aggregate):
        collected = type_.collect([], False)
        if collected:
            return collected[0][1]
        if hasattr(type_, "histogram"):
            return type_.histogram({})
        return type_.reduce([])
    return type_.decode(bytes(max(8, type_.size)))
