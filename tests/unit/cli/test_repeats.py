# SPDX-License-Identifier: Apache-2.0
"""One problem is told once."""

from __future__ import annotations

import pytest

from kcap.cli.errors import print_diagnostics
from kcap.lang.diagnostic import Diagnostic
from kcap.lang.source import Source

SOURCE = Source("stdin", "kprobe:gone { }")
ERROR = Diagnostic("no-match", "error", "No matches for kprobe gone.", SOURCE.span(7, 11))
SAME_PLACE = Diagnostic("not-traceable", "warning", "gone is not traceable", SOURCE.span(7, 11))
ELSEWHERE = Diagnostic("other", "warning", "something else", SOURCE.span(0, 6))


def shown(capsys: pytest.CaptureFixture[str], *found: Diagnostic) -> list[str]:
    print_diagnostics(found)
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith(("error", "warning"))]


def test_a_warning_at_the_place_of_an_error_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shown(capsys, SAME_PLACE, ERROR, ELSEWHERE) == [
        "error[no-match]: No matches for kprobe gone.",
        "warning[other]: something else",
    ]


def test_alone_the_warning_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, SAME_PLACE) == ["warning[not-traceable]: gone is not traceable"]
