# SPDX-License-Identifier: Apache-2.0
"""Command lines of subcommands that can't be taken are errors like all others."""

from __future__ import annotations

import json

import pytest

from kcap.cli.main import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["capture", "-c", "x", "ip_rcv"],
            "kcap capture: argument -c/--count: 'x' is not a whole number, 0 or more",
        ),
        (
            ["capture", "-s", "-5", "ip_rcv"],
            "kcap capture: argument -s/--snaplen: '-5' is not a whole number, 0 or more",
        ),
        (
            ["drops", "--pid", "-1"],
            "kcap drops: argument --pid: '-1' is not a whole number, 0 or more",
        ),
        (
            ["follow", "-d", "nan"],
            "kcap follow: argument -d/--duration: 'nan' is not a number of seconds, 0 or more",
        ),
        (
            ["drops", "-d", "1e999"],
            "kcap drops: argument -d/--duration: '1e999' is not a number of seconds, 0 or more",
        ),
        (["drops", "x"], "kcap drops: unrecognized arguments: x"),
        (["capture", "-w"], "kcap capture: argument -w/--write: expected one argument"),
    ],
)
def test_a_value_that_cannot_be_taken_is_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1
    hint = f"HINT: see kcap {words[0]} --help"
    assert capsys.readouterr().err.splitlines() == [f"ERROR: {message}", hint]


def test_editors_get_it_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--diagnostics", "json", "vm", "run"]) == 1
    said = json.loads(capsys.readouterr().err)
    assert said["title"] == "kcap vm run: the following arguments are required: COMMAND"
    assert said["help"] == ["see kcap vm run --help"]
    assert main(["--diagnostics", "json", "run", "-e", "begin { print($x) }"]) == 1
    assert json.loads(capsys.readouterr().err)["code"] == "undefined-variable"
    assert main(["--diagnostics", "text", "cache", "--help"]) == 0
