# SPDX-License-Identifier: Apache-2.0
"""Diagnostics on standard error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kcap
from kcap.cli.errors import print_diagnostics, print_error
from kcap.cli.script import main
from kcap.errors import FileError, NoProbesError
from kcap.lang.diagnostic import Diagnostic
from kcap.lang.source import Source
from kcap.version import BPFTRACE_VERSION, __version__

SOURCE = Source("stdin", "config = { bad_config=raw } begin {}")
FINDING = Diagnostic(
    "unknown-config",
    "error",
    "bad_config: not a known configuration option",
    SOURCE.span(11, 25),
    help=("see the documentation",),
)


def test_under_bpftrace_s_name_messages_are_bpftrace_s(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/bpftrace", "-e", SOURCE.text])
    print_diagnostics([FINDING])
    assert capsys.readouterr().err == (
        "stdin:1:12-26: ERROR: bad_config: not a known configuration option\n"
        "config = { bad_config=raw } begin {}\n"
        "           ~~~~~~~~~~~~~~\n"
        "HINT: see the documentation\n"
    )


def test_under_bpftrace_s_name_a_missing_header_is_clang_s_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Source("stdin", "#include <lol/no.h>\nbegin { }")
    title = "'lol/no.h' file not found"
    finding = Diagnostic("missing-header", "error", title, source.span(9, 19))
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/bpftrace"])
    print_diagnostics([finding])
    assert capsys.readouterr().err == f"definitions.h:2:10: fatal error: {title}\n"


def test_under_any_other_name_they_are_kcap_s(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/kcap", "-e", SOURCE.text])
    print_diagnostics([FINDING])
    first = "error[unknown-config]: bad_config: not a known configuration option"
    assert capsys.readouterr().err.splitlines()[0] == first


def test_an_unknown_option_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-e", "begin { }", "--aa=20"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["ERROR: unknown option --aa", "USAGE:"]


def test_the_version_is_bpftrace_s_under_bpftrace_s_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bpftrace", "--version"])
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bpftrace v{BPFTRACE_VERSION} (kcap v{__version__})\n"


def test_a_file_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(FileError("failed to open file 'a.bt': No such file or directory", "a.bt"))
    print_error(FileError("No space left on device", "a.pcap"))
    assert capsys.readouterr().err.splitlines() == [
        "ERROR: failed to open file 'a.bt': No such file or directory",
        "ERROR: a.pcap: No space left on device",
    ]


def test_the_process_is_called_what_the_user_typed(tmp_path: Path) -> None:
    program = tmp_path / "bpftrace"
    program.write_text(
        "import sys\nfrom pathlib import Path\nfrom kcap.cli.main import main\n"
        "try:\n    main()\nfinally:\n"
        "    words = Path('/proc/self/cmdline').read_bytes().rstrip(b'\\0').split(b'\\0')\n"
        "    print(Path('/proc/self/comm').read_text().strip(), words)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(kcap.__file__).parents[1])}
    command = [sys.executable, str(program), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "bpftrace [b'bpftrace', b'--version']"


def test_bpftrace_says_without_a_mark_that_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_error(NoProbesError())
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/bpftrace"])
    print_error(NoProbesError())
    assert capsys.readouterr().err == "ERROR: No probes to attach\nNo probes to attach\n"


def test_bpftrace_s_errors_of_attaching_name_no_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/bpftrace"])
    place, advice = SOURCE.span(11, 25), ("Use --unsafe to force attachment.",)
    print_diagnostics([Diagnostic("unknown-boundary", "error", "No boundary.", place, help=advice)])
    assert capsys.readouterr().err == "ERROR: No boundary.\nUse --unsafe to force attachment.\n"
