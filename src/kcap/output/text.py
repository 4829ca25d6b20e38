# SPDX-License-Identifier: Apache-2.0
"""Events as text, as bpftrace prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.functions import display
from kcap.functions.events import (
    AttachedProbes,
    Benchmarks,
    CaseResult,
    CaseStarted,
    HelperError,
    Lost,
    MapPrinted,
    Message,
    Missed,
    Printf,
    SuiteEnded,
    SuiteStarted,
    TextPrinted,
    TraceEnded,
    ValuePrinted,
)
from kcap.lang.source import MacroSpan
from kcap.words import plural

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
            from kcap.output.maps import map_text

            return map_text(event, self.environment)
        if isinstance(event, SuiteStarted | CaseStarted | CaseResult | SuiteEnded):
            from kcap.output.testing import test_text

            if isinstance(event, CaseResult) and event.reason:
                return "".join(map(self.output, event.printed)) + test_text(event)
            return test_text(event)
        if isinstance(event, Benchmarks):
            return _benchmarks(event)
        return "\n\n" if isinstance(event, TraceEnded) else ""

    def message(self, event: object) -> str:
        """The text of an event for standard error; '' if it has none."""
        if isinstance(event, Message):
            if event.severity == "warning" and not self.warnings:
                return ""
            return located(event.severity, event.text, event.span, quoted=False)
        if isinstance(event, AttachedProbes) and not self.quiet:
            return f"Attached {plural(event.count, 'probe')}\n"
        if isinstance(event, HelperError):
            return self._helper_error(event)
        if isinstance(event, CaseResult) and event.reason:
            return "".join(map(self.message, event.printed)) + f"{event.name}: {event.reason}\n"
        if isinstance(event, Lost):
            return self._lost(event)
        if isinstance(event, Missed) and self.warnings:
            return _missed(event)
        return ""

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
    return f"WARNING: {event.probe} missed {plural(event.count, 'event')}: {reason}\n"


def _benchmarks(event: Benchmarks) -> str:
    lines = [f"{'Benchmark':<41}{'Time(ns)':<15}Iterations", "-" * 66]
    lines += [f"{item.name:<41}{item.average:<15}{item.iterations}" for item in event.results]
    return "\n".join(lines) + "\n"


def located(
    severity: str, text: str, span: Span | None, info: str = "", *, quoted: bool = True
) -> str:
    """A message with its place, and the line of the script that it is about.

    :param info: a line that stands between the message and the script's line.
    :param quoted: show that line; the lines of macros' calls are always shown.
    """
    label, ending = severity.upper(), "" if text.endswith("\n") else "\n"
    if span is None:
        return f"{label}: {text}{ending}{info}"
    message = f"{place(span)}: {label}: {text}{ending}{info}{excerpt(span) if quoted else ''}"
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
