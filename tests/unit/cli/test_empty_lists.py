# SPDX-License-Identifier: Apache-2.0
"""``-l`` says so when nothing matches, and why."""

from __future__ import annotations

import pytest

from kcap.cli.main import main
from kcap.probes.system import System


@pytest.fixture
def without_tracefs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(System, "tracefs", None)


@pytest.mark.usefixtures("without_tracefs")
def test_an_empty_list_is_explained_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-l", "tracepoint:no_such:*"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "WARNING: no probe matches 'tracepoint:no_such:*'",
        "HINT: tracefs can't be read, which lists the kernel's functions and events: "
        "run as root, see kcap doctor",
    ]


@pytest.mark.parametrize("quiet", ["--no-warnings", "bpftrace"])
def test_it_is_silent_for_programs(
    quiet: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that want no warnings, and those that expect what bpftrace prints."""
    monkeypatch.setattr("sys.argv", [quiet])
    words = ["--no-warnings"] if quiet == "--no-warnings" else []
    assert main([*words, "-l", "nosuch:*"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_list_with_something_in_it_warns_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-l", "software:cpu-clock:*"]) == 0
    assert capsys.readouterr() == ("software:cpu-clock:\n", "")
