# SPDX-License-Identifier: Apache-2.0
"""How ``test`` probes ran, as text: bpftrace's lines, which are those of GoogleTest, in colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.functions.events import CaseResult, CaseStarted, SuiteEnded, SuiteStarted
from kcap.words import plural

if TYPE_CHECKING:
    TestEvent = SuiteStarted | CaseStarted | CaseResult | SuiteEnded

_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"
_RULE, _RUN, _OK, _PASSED, _FAILED = (
    *("==========", " RUN      ", "       OK "),
    *("  PASSED  ", "  FAILED  "),
)


def test_text(event: TestEvent) -> str:
    """The lines of an event; nothing is said where there are no tests."""
    if isinstance(event, SuiteStarted):
        return _line(_RULE, f"Running {plural(event.count, 'test')}.") if event.count else ""
    if isinstance(event, CaseStarted):
        return _line(_RUN, event.name)
    if isinstance(event, CaseResult):
        took = f"{event.name} ({_duration(event.nanoseconds)})"
        return _line(_FAILED if event.reason else _OK, took)
    return _summary(event)


def _summary(event: SuiteEnded) -> str:
    if not event.count:
        return ""
    text = _line(_RULE, f"{plural(event.count, 'test')} ran.")
    passed = event.count - len(event.failed)
    if passed:
        text += _line(_PASSED, f"{plural(passed, 'test')}.")
    if event.failed:
        text += _line(_FAILED, f"{plural(len(event.failed), 'test')}, listed below:")
    return text + "".join(_line(_FAILED, name) for name in event.failed)


def _line(mark: str, text: str) -> str:
    color = _RED if mark is _FAILED else _GREEN
    return f"{color}[{mark}]{_PLAIN} {text}\n"


def _duration(nanoseconds: int) -> str:
    microseconds = nanoseconds // 1000
    return f"{microseconds} μs" if microseconds < 10_000 else f"{microseconds // 1000} ms"
