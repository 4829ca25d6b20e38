# SPDX-License-Identifier: Apache-2.0
"""Standard streams that are closed, full, or read by nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kcap

_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(kcap.__file__).parents[1])}

COMMANDS = (
    ["--version"],
    ["capture", "--help"],
    ["--fmt", "-e", "begin { exit() }"],
    ["check", "SCRIPT"],
    ["fix", "SCRIPT"],
)


def kcap_run(
    words: list[str], tmp_path: Path, prepare: Callable[[], None] | None = None, output: int = -1
) -> subprocess.CompletedProcess[str]:
    """Run the command line, with standard streams as ``prepare`` leaves them."""
    script = tmp_path / "script.bt"
    script.write_text("begin { exit() }\n")
    words = [str(script) if word == "SCRIPT" else word for word in words]
    return subprocess.run(
        [sys.executable, "-m", "kcap", *words],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        preexec_fn=prepare,
        text=True,
        env=_ENVIRONMENT,
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_full_standard_output_is_said(words: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = kcap_run(words, tmp_path, output=full.fileno())
    assert done.stderr.endswith("ERROR: can't write to standard output: No space left on device\n")
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_without_standard_output_a_command_does_its_work(words: list[str], tmp_path: Path) -> None:
    done = kcap_run(words, tmp_path, lambda: os.close(1))
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_reader_that_has_gone_is_no_error(words: list[str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = kcap_run(words, tmp_path, output=writer)
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "ERROR" not in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("words", [["-"], ["check", "-"], ["explain"]], ids=" ".join)
def test_a_closed_standard_input_is_an_empty_one(words: list[str], tmp_path: Path) -> None:
    done = kcap_run(words, tmp_path, lambda: os.close(0), subprocess.DEVNULL)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def test_what_is_started_has_standard_streams_too() -> None:
    program = (
        "import subprocess, sys\n"
        "from kcap.cli.main import _open_standard_streams\n"
        "_open_standard_streams()\n"
        "sys.exit(subprocess.call(['sh', '-c', 'echo said']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, preexec_fn=lambda: os.close(1),
        stderr=subprocess.PIPE, env=_ENVIRONMENT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_is_opened_later_is_not_printed_to(tmp_path: Path) -> None:
    """A file that took the number of a closed standard output would get all that is printed."""
    target = tmp_path / "program"
    done = kcap_run(["--aot", str(target), "-d", "ast", "SCRIPT"], tmp_path, lambda: os.close(1))
    assert done.returncode == 0, done.stderr
    assert target.read_text().partition("\n")[2] == "begin { exit() }\n\n"
