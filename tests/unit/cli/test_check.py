# SPDX-License-Identifier: Apache-2.0
"""``kcap check`` and ``--diagnostics json``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kcap.cli import check, errors, main
from kcap.diagnose.report import diagnostics_of, from_json, json_lines
from kcap.errors import FileError, UsageError
from kcap.kernel.errors import AttachError
from kcap.lang.diagnostic import Diagnostic, Edit, Label
from kcap.lang.source import Source
from kcap.session.rollout import Verdict, read_result
from kcap.vm.command import Result

SOURCE = Source("x.bt", "begin { print($x); }")
FOUND = Diagnostic(
    "undefined-variable",
    "error",
    "Undefined or undeclared variable: $x",
    SOURCE.span(14, 16),
    "not known",
    (Label(SOURCE.span(0, 5), "here"),),
    ("a note",),
    ("a help",),
    (Edit(SOURCE.span(8, 8), "let $x; "),),
)


@pytest.fixture(autouse=True)
def _text_again() -> Iterator[None]:
    yield
    errors.choose_format("text")


def test_a_diagnostic_survives_json() -> None:
    (line,) = json_lines([FOUND])
    assert "\n" not in line
    assert from_json(json.loads(line), {"x.bt": SOURCE}) == FOUND


def test_places_in_unknown_texts_are_left_out() -> None:
    data = json.loads(json_lines([FOUND])[0])
    found = from_json(data, {})
    assert (found.span, found.labels, found.edits) == (None, (), ())
    assert found.title == FOUND.title


def test_other_errors_are_diagnostics_without_a_place() -> None:
    (found,) = diagnostics_of(FileError("can't be read", "/x.bt", hint="look"))
    assert (found.code, found.title, found.help) == ("file", "/x.bt: can't be read", ("look",))
    (found,) = diagnostics_of(AttachError("no such function", 2))
    assert (found.code, found.severity) == ("attach", "error")


def test_diagnostics_are_printed_as_lines_of_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "x.bt"
    script.write_text('begin { print($x); printf("%d", "a"); }')
    assert main.main(["--diagnostics", "json", str(script)]) == 1
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [d["code"] for d in found] == ["undefined-variable", "format-type"]
    assert found[1]["edits"][0]["replacement"] == "%s"
    assert (found[0]["span"]["line"], found[0]["span"]["column"]) == (1, 15)


def test_what_is_no_error_of_the_script_is_json_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--diagnostics=json", "/nonexistent/x.bt"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["code"] == "file"


@pytest.mark.parametrize(
    "words",
    [
        ["check", "--diagnostics", "json", "SCRIPT"],
        ["--diagnostics=json", "check", "SCRIPT"],
        ["fix", "--diagnostics=json", "SCRIPT"],
        ["fix", "SCRIPT", "--diagnostics", "json"],
    ],
    ids=" ".join,
)
def test_subcommands_print_json_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    script = tmp_path / "x.bt"
    script.write_text('begin { print(clear); printf("%d\\n", "a"); }')
    main.main([str(script) if word == "SCRIPT" else word for word in words])
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    severities = {d["code"]: d["severity"] for d in found}
    assert severities["format-type"] == ("note" if "fix" in words else "error")
    assert "error" in severities.values()


@pytest.mark.parametrize(
    "words",
    [
        ["capture", "--diagnostics=json", "ip_rcv", "-c", "-1"],
        ["doctor", "--diagnostics", "json", "--nonsense"],
        ["explain", "--helper", "--diagnostics=json"],
    ],
    ids=" ".join,
)
def test_errors_of_any_subcommand_are_json(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["code"] == "usage"


def test_a_format_of_diagnostics_that_there_is_not_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["check", "--diagnostics", "xml", "x.bt"]) == 1
    assert 'Invalid format of diagnostics "xml"' in capsys.readouterr().err


def test_a_good_script_passes_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "x.bt"
    script.write_text("interval:s:1 { @a = count(); }")
    assert check.main([str(script)]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("  passed")


def test_a_wrong_script_fails_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "x.bt"
    script.write_text("begin { print($x); }")
    assert check.main([str(script)]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].endswith(
        "failed: undefined-variable: Undefined or undeclared variable: $x"
    )
    assert "error[undefined-variable]" in captured.err


def test_verdicts_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "x.bt"
    script.write_text("begin { print($1); }")
    assert check.main(["--json", str(script), "5"]) == 0
    (verdict,) = json.loads(capsys.readouterr().out)
    assert (verdict["kernel"], verdict["passed"], verdict["diagnostics"]) == ("", True, [])


def test_what_a_guest_printed_is_read() -> None:
    line = json_lines([FOUND])[0].replace("x.bt", "/root/check/x.bt")
    result = Result(1, b"", f"WARNING: something\n{line}\n".encode(), 1.0)
    assert read_result(result, SOURCE, "/root/check/x.bt") == (FOUND,)


def test_a_run_that_failed_without_a_diagnostic_has_its_last_words() -> None:
    result = Result(1, b"", b"Traceback\nOSError: no\n", 1.0)
    (found,) = read_result(result, SOURCE, "/root/check/x.bt")
    assert (found.code, found.title, found.notes) == ("run", "OSError: no", ("Traceback",))


def test_the_table_has_a_line_for_each_kernel() -> None:
    warning = Diagnostic("unused", "warning", "it is not used")
    verdicts = [
        Verdict("5.10", "5.10.0-39", (FOUND, FOUND)),
        Verdict("6.12", "6.12.107", (warning,)),
        Verdict("7.2", "", ()),
    ]
    assert check.table(verdicts) == [
        "kernel  release    result",
        "5.10    5.10.0-39  failed: undefined-variable: Undefined or undeclared variable: $x "
        "(and 1 more)",
        "6.12    6.12.107   passed, 1 warning",
        "7.2     -          passed",
    ]


@pytest.mark.parametrize(
    "argv", [[], ["--kernel"], ["--frobnicate", "x.bt"]], ids=["no file", "no value", "unknown"]
)
def test_command_lines_that_are_not_taken(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        check.main(argv)
