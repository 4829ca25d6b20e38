# SPDX-License-Identifier: Apache-2.0
"""The command line, taken apart as bpftrace's man page has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kcap.cli.main import SUBCOMMANDS, main
from kcap.cli.options import OPTIONS, parse, usage
from kcap.errors import UsageError


def test_a_file_is_followed_by_its_positional_parameters() -> None:
    arguments = parse(["-v", "script.bt", "10", "-q", "name"])
    assert arguments.file == "script.bt"
    assert arguments.parameters == ["10", "name"]
    assert (arguments.verbose, arguments.quiet) == (True, True)


def test_with_a_program_every_word_is_a_parameter() -> None:
    arguments = parse(["-e", "begin { }", "1", "2"])
    assert arguments.program == "begin { }"
    assert (arguments.file, arguments.parameters) == ("", ["1", "2"])


def test_named_parameters_come_after_two_dashes_among_positional_ones() -> None:
    arguments = parse(["-e", "begin { }", "p1", "--", "--aa=20", "--bb", "p2"])
    assert arguments.parameters == ["p1", "p2"]
    assert arguments.named == {"aa": "20", "bb": "true"}


def test_after_two_dashes_the_script_may_still_come() -> None:
    arguments = parse(["--", "my.bt", "x", "--flag"])
    assert (arguments.file, arguments.parameters) == ("my.bt", ["x"])
    assert arguments.named == {"flag": "true"}


@pytest.mark.parametrize("words", [["-p", "12"], ["-p12"], ["-qp", "12"]])
def test_a_value_stands_behind_its_letter_or_in_the_next_word(words: list[str]) -> None:
    assert parse([*words, "-e", "x"]).pid_number == 12


def test_a_single_dash_is_standard_input() -> None:
    assert parse(["-"]).file == "-"


def test_stages_of_d_are_separated_by_commas_or_repeated() -> None:
    assert parse(["-d", "ast,codegen", "-d", "dis", "f"]).debug == ["ast", "codegen", "dis"]


def test_directories_of_debugging_information_are_separated_by_colons_or_repeated() -> None:
    arguments = parse(["--debuginfo=/a:+lib,b:..", "--debuginfo", "/c", "f"])
    assert arguments.debug_directories == ["/a", "lib,b", "..", "/c"]


def test_a_comma_belongs_to_the_name_of_a_header_or_its_directory() -> None:
    arguments = parse(["-I", "/a,b", "-I/c", "--include", "d,e.h", "f"])
    assert (arguments.include_dirs, arguments.includes) == (["/a,b", "/c"], ["d,e.h"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nonsense"], "unknown option --nonsense"),
        (["-y"], "unknown option -y"),
        (["-p"], "option -p needs a value"),
        (["--dry-run=1"], "option --dry-run takes no value"),
        (["-B", "some"], 'Invalid buffering mode "some"'),
        (["-f", "xml"], 'Invalid output format "xml"'),
        (
            ["-d", "lexer"],
            "-d lexer: not one of ast, codegen, codegen-opt, dis, libbpf, verifier, all",
        ),
    ],
)
def test_what_cannot_be_taken_is_named(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse([*words, "x.bt"] if words != ["-p"] else words)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("abc", "Failed to parse pid: invalid integer: abc"),
        ("1a", "Failed to parse pid: invalid trailing bytes: 1a"),
        ("0", "Pid out of range: 0"),
        ("5000000", "Pid out of range: 5000000"),
    ],
)
def test_a_process_id_is_a_number_in_range(value: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        _ = parse(["-p", value, "x.bt"]).pid_number
    assert caught.value.message == message


def test_the_help_names_every_option_and_command() -> None:
    text = usage()
    for option in OPTIONS:
        assert f"\n    {', '.join(option.flags)} " in text
    for name, command in SUBCOMMANDS.items():
        assert re.search(rf"^    {name} +{command.help}$", text, re.MULTILINE)


def test_a_kernel_without_a_guest_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--kernel 6\.1 is about a guest") as caught:
        parse(["--kernel", "6.1", "x.bt"])
    assert caught.value.hint == "add --vm to run it in a guest with this kernel"


def test_a_guest_s_kernel_is_one_that_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--vm", "--kernel", "2.4", "-e", "begin { exit() }"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "ERROR: there is no kernel '2.4'",
        "HINT: choose one of 5.10, 6.1, 6.12, 7.2",
    ]


@pytest.mark.parametrize("option", ["-o", "--aot"])
def test_a_script_is_not_overwritten_by_what_it_makes(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, other = tmp_path / "a.bt", tmp_path / "b"
    script.write_text("begin { exit() }\n")
    other.symlink_to(script)
    assert main([option, str(other), str(script)]) == 1
    assert f"ERROR: '{other}' is the script itself" in capsys.readouterr().err
    assert script.read_text() == "begin { exit() }\n"


def test_a_script_becomes_a_program_that_starts_kcap(tmp_path: Path) -> None:
    script, made = tmp_path / "a.bt", tmp_path / "a"
    script.write_text("#!/usr/bin/env bpftrace\nbegin { print($1); }\n")
    assert main([str(script), "--aot", str(made)]) == 0
    first, rest = made.read_text().split("\n", 1)
    assert first.startswith("#!/")
    assert "kcap" in first
    assert rest.strip() == "begin { print($1); }"
    assert made.stat().st_mode & 0o111 == 0o111


def test_a_script_with_mistakes_becomes_no_program(tmp_path: Path) -> None:
    made = tmp_path / "a"
    assert main(["-e", "begin { print($x); }", "--aot", str(made)]) == 1
    assert not made.exists()
