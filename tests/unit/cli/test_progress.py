# SPDX-License-Identifier: Apache-2.0
"""The progress line: only on a terminal, only of what takes long, and gone at the end."""

from __future__ import annotations

import pytest

from kcap.cli import progress


class Clock:
    """A clock that stands until it is told otherwise."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_what_is_done_within_a_second_is_not_shown(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    line = progress.ProgressLine(shown=True)
    for done in range(1, 6):
        line("attaching", done, 5)
        clock.now += 0.2
    assert capsys.readouterr().err == ""


def test_what_takes_longer_is_shown_and_taken_away_again(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    line = progress.ProgressLine(shown=True)
    line("attaching", 1, 375)
    clock.now += 1.0
    line("attaching", 120, 375)
    clock.now += 0.05
    line("attaching", 121, 375)  # too soon after the last one
    line("attaching", 375, 375)
    shown = "kcap: attaching 120 of 375 probes"
    assert capsys.readouterr().err == f"\r{shown}\r{' ' * len(shown)}\r"


def test_what_was_announced_is_shown_until_it_is_done(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    line = progress.ProgressLine(shown=True)
    line.say("attaching")
    assert capsys.readouterr().err == "\rkcap: attaching"
    line("attaching", 0, 375)
    for done in (1, 2):
        line("loading", done, 2)
    line("attaching", 1, 370)
    first = "kcap: attaching 0 of 375 probes"
    assert capsys.readouterr().err == f"\r{first}"
    clock.now += 1.0
    line("attaching", 300, 370)
    assert capsys.readouterr().err == "\rkcap: attaching 300 of 370 probes"
    line("attaching", 370, 370)
    line.clear()
    gone = " " * len("kcap: attaching 300 of 370 probes")
    assert capsys.readouterr().err == f"\r{gone}\r"


def test_what_was_announced_is_a_line_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = progress.ProgressLine()
    line.say("attaching")
    for done in range(5):
        line("attaching", done, 5)
    line.clear()
    assert capsys.readouterr().err == "attaching\n"


def test_nothing_is_shown_where_standard_error_is_no_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    line = progress.ProgressLine()
    line("detaching", 1, 5)
    clock.now += 10
    line("detaching", 2, 5)
    assert capsys.readouterr().err == ""
