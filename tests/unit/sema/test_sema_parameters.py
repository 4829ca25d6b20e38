# SPDX-License-Identifier: Apache-2.0
"""Parameters of the command line: ``$1`` as a probe, ``getopt()``; imports; what leaves a block."""

from __future__ import annotations

import pytest

import kcap
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.sema import tree
from kcap.session.script import Checked, Options


def compiled(text: str, *parameters: str, **named: str) -> Checked:
    return kcap.compile(text, options=Options(parameters=list(parameters), named=named))


def refused(text: str, **named: str) -> Diagnostic:
    with pytest.raises(ScriptError) as caught:
        compiled(text, **named)
    return caught.value.diagnostics[0]


def returned(text: str, **named: str) -> int:
    """What a script's one program returns, a constant."""
    (program,) = compiled(text, **named).script.programs
    (statement,) = program.body
    assert isinstance(statement, tree.Return)
    value = statement.value
    while isinstance(value, tree.Cast):
        value = value.operand
    assert isinstance(value, tree.IntegerLiteral)
    return value.value


@pytest.mark.parametrize(
    ("text", "parameters", "name"),
    [
        ("$1 { exit(); }", ["interval:s:3"], "interval:s:3"),
        ("inter$1:s:$2 { exit(); }", ["val", "3"], "interval:s:3"),
        ("$1:s:$2 { exit(); }", ["interval", "3"], "interval:s:3"),
    ],
)
def test_a_parameter_may_be_any_part_of_a_probe_or_all_of_it(
    text: str, parameters: list[str], name: str
) -> None:
    (program,) = compiled(text, *parameters).script.programs
    assert program.context.name == name


@pytest.mark.parametrize(
    ("text", "named", "value"),
    [
        ('getopt("n", 7)', {}, 7),
        ('getopt("n", 7)', {"n": "-0x10"}, -16),
        ('getopt("n", 7)', {"n": "0xffffffffffffffff"}, (1 << 64) - 1),
        ('getopt("flag")', {"flag": "true"}, 1),
        ('getopt("flag", true)', {"flag": "False"}, 0),
    ],
)
def test_named_parameters_have_the_type_of_their_default(
    text: str, named: dict[str, str], value: int
) -> None:
    assert returned(f"begin {{ return {text} }}", **named) in (value, value - (1 << 64))


@pytest.mark.parametrize(
    ("default", "given", "title"),
    [
        ("7", "no", "program command line option --n invalid integer (value: no)"),
        ("7", f"{1 << 64}", f"program command line option --n invalid integer (value: {1 << 64})"),
        ("true", "7", "program command line option --n invalid boolean (value: 7)"),
    ],
)
def test_a_named_parameter_of_a_wrong_type_is_refused(default: str, given: str, title: str) -> None:
    found = refused(f'begin {{ print(getopt("n", {default})); }}', n=given)
    assert (found.title, found.span) == (title, None)


def test_named_parameters_that_the_script_does_not_know_are_refused() -> None:
    found = refused('begin { print((getopt("aa", 1), getopt("bb"))); }', aa="1", cc="2", dd="")
    assert found.title == "unexpected program command line options: --cc, --dd"
    assert found.help == ("expected program options: --aa, --bb",)


def test_the_parameter_help_lists_those_of_the_script_with_their_descriptions() -> None:
    text = 'begin { print((getopt("aa", 1, "how many"), getopt("bb"))); }'
    (help_,) = refused(text, help="true").help
    assert help_.split("\n") == ["expected program options:", "  --aa: how many", "  --bb"]


@pytest.mark.parametrize("body", ["exit(); @++; @++;", "exit(1); @++", "return; print(1)"])
def test_what_stands_behind_the_end_of_a_block_is_left_out_with_a_warning(body: str) -> None:
    checked = compiled(f"interval:s:1 {{ {body} }}")
    assert [warning.title for warning in checked.warnings] == ["Unreachable statement."]
    assert len(checked.script.programs[0].body) == 1


def test_what_stands_behind_a_branch_that_exits_is_reached() -> None:
    checked = compiled("interval:s:1 { if (pid) { exit(); } @++ }")
    assert not checked.warnings
    assert len(checked.script.programs[0].body) == 2


def test_parts_of_the_standard_library_are_there_when_they_are_imported() -> None:
    assert returned('import "stdlib/test"; begin { return __always_true() }') == 1
