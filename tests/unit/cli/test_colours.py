# SPDX-License-Identifier: Apache-2.0
"""Colours are for terminals, and for nobody who does not want them."""

from __future__ import annotations

import io

import pytest

from kcap.cli.errors import use_color


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "on_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"BPFTRACE_COLOR": "always", "NO_COLOR": "1"}, True, True),
        ({"BPFTRACE_COLOR": "never"}, False, False),
    ],
)
def test_environment_says_where_colours_are_wanted(
    environment: dict[str, str], on_terminal: bool, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "BPFTRACE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert use_color(Terminal()) is on_terminal
    assert use_color(io.StringIO()) is elsewhere
