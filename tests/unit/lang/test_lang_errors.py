# SPDX-License-Identifier: Apache-2.0
"""What is reported for scripts with mistakes, where, and how reading goes on."""

from __future__ import annotations

import pytest

from kcap.lang.diagnostic import Diagnostics, ScriptError
from kcap.lang.edits import fix
from kcap.lang.parser import parse, parse_with_diagnostics
from kcap.lang.source import Source
from unit.lang.lang_trees import errors, titles


@pytest.mark.parametrize(
    ("text", "line", "column", "title"),
    [
        ("kprobe:f { f();", 1, 10, "this block is not closed"),
        ("kprobe:f kprobe:g { }", 1, 10, "expected `,` between probes"),
        ("kprobe:f foo { }", 1, 10, "expected a block, a predicate or `,`, found `foo`"),
        ("kprobe:f", 1, 1, "this probe has no block"),
        ("kprobe:f, { }", 1, 11, "expected a probe, found `{`"),
        ("kprobe:f /a { }", 1, 13, "expected `/`, found `{`"),
        ("kprobe:f /a/", 1, 13, "expected `{`, found the end of the script"),
        ('kprobe:"f { }', 1, 8, "this string has no end"),
        ("/* x", 1, 1, "this comment has no end"),
        ("begin { let @a; }", 1, 13, "maps are declared outside of blocks"),
        ("let $x = 1;", 1, 5, "variables are declared inside blocks"),
        ("begin { args.x = 1; }", 1, 9, "only variables and maps can be assigned to"),
        ("begin { for (@x) { } }", 1, 14, "expected a variable such as `$x`, found `@x`"),
        ("begin { while ($i < 3) f(); }", 1, 24, "expected `{`, found `f`"),
        ("begin { b c }", 1, 11, "expected `;` or `}`, found `c`"),
        ("begin { é }", 1, 9, "expected an expression, found `é`"),
        ("struct s { int a;", 1, 10, "this C definition has no end"),
        ("begin {}\n#define X 1", 2, 1, "C definitions must come first in a script"),
        ("config = { a=1 }\nconfig = { b=1 }", 2, 1, "a script has only one config block"),
        ("config = { 1=2 }", 1, 12, "expected the name of a config variable, found `1`"),
        ("macro m(1) {}", 1, 9, "expected a parameter: `name`, `$name` or `@name`, found `1`"),
        ("import x;", 1, 8, "expected a path in double quotes, found `x`"),
        ("# my script\nbegin {}", 1, 1, "this is no preprocessor directive"),
        ("begin {}\n#!/bin/sh", 2, 1, "the `#!` line must be the first line"),
        (
            'begin {}\nimport "x";',
            2,
            1,
            "imports must come before probes, macros and map declarations",
        ),
    ],
)
def test_one_mistake_gives_one_error_at_its_place(
    text: str, line: int, column: int, title: str
) -> None:
    assert titles(text) == [(line, column, title)]


def test_mistakes_in_several_statements_and_probes_are_reported_together() -> None:
    text = """\
kprobe:f { print(@x; $y = ; }
kprobe:g { 1 + }
kprobe:h { good(); if (a { b(); } $z = "abc
  $w = 08;
}
"""
    assert titles(text) == [
        (1, 20, "expected `)`, found `;`"),
        (1, 27, "expected an expression, found `;`"),
        (2, 16, "expected an expression, found `}`"),
        (3, 26, "expected `)`, found `{`"),
        (3, 40, "this string has no end"),
        (4, 9, "`8` is no octal digit: a leading 0 makes an integer octal"),
    ]


def test_a_block_that_is_not_closed_does_not_swallow_the_next_probe() -> None:
    text = "kprobe:f {\n  f();\n\nkprobe:g { ( }\nBEGIN { 1 2 }\n"
    assert titles(text) == [
        (1, 10, "this block is not closed"),
        (4, 14, "expected an expression, found `}`"),
        (5, 11, "expected `;` or `}`, found `2`"),
    ]
    first = errors(text)[0]
    assert first.labels[0].text == "the next part of the script starts here"
    assert first.labels[0].span.line == 4


def test_a_missing_semicolon_is_reported_at_the_end_of_its_line_and_can_be_inserted() -> None:
    source = Source("t.bt", "begin {\n  $x = 1 // one\n  $y = 2\n}\n")
    _, found = parse_with_diagnostics(source)
    assert [(d.title, d.span.location) for d in found if d.span] == [
        ("expected `;` at the end of the statement", "t.bt:2:8")
    ]
    text, applied = fix(source, found)
    assert (text, len(applied)) == ("begin {\n  $x = 1; // one\n  $y = 2\n}\n", 1)
    parse(Source("t.bt", text))


def test_edits_that_mend_brackets_make_the_script_parse() -> None:
    source = Source("t.bt", "begin { print(@x[1; } kprobe:f kprobe:g { if (pid == 1 { f() } }")
    _, found = parse_with_diagnostics(source)
    text, _ = fix(source, found)
    assert text == "begin { print(@x[1]; } kprobe:f, kprobe:g { if (pid == 1) { f() } }"
    assert titles(text) == [(1, 20, "expected `)`, found `;`")]


def test_at_most_twenty_errors_are_reported() -> None:
    assert len(errors("begin { " + "1 2; " * 50 + "}")) == 20


@pytest.mark.parametrize(
    "text",
    [
        "begin { " + "(" * 5000 + "1" + ")" * 5000 + " }",
        "begin { " + "if (a) {" * 5000 + "}" * 5000 + " }",
        "begin { " + "{" * 5000 + "}" * 5000 + " }",
        "begin { f(" + "typeof(" * 5000 + "x" + ")" * 5000 + ") }",
        "begin { $x = " + "(uint8)" * 5000 + "1; }",
        "begin { $x = " + "a ? " * 5000 + "1" + " : 2" * 5000 + "; }",
        "begin { " + "@x[" * 5000 + "1" + "]" * 5000 + " }",
    ],
)
def test_nesting_is_bounded_by_a_diagnostic(text: str) -> None:
    assert errors(text)[0].title == "this is nested more than 100 levels deep"


@pytest.mark.parametrize(
    "text",
    [
        "begin { $x = 1" + " + 1" * 5000 + "; }",
        "begin { $x = " + "! " * 5000 + "1; }",
        "begin { $x = a" + ".b" * 5000 + "; }",
        "begin { $x = a ? 1 : " * 1 + "a ? 1 : " * 5000 + "1; }",
        "begin { if (a) { } " + "else if (a) { } " * 5000 + "}",
    ],
)
def test_the_height_of_a_tree_is_bounded_by_a_diagnostic(text: str) -> None:
    assert titles(text)[0][2] == "this is too long or too deep an expression"


def test_chains_and_nesting_below_the_bounds_are_taken() -> None:
    assert errors("begin { $x = 1" + " + 1" * 400 + "; }") == []
    assert errors("begin { $x = " + "(" * 90 + "1" + ")" * 90 + "; }") == []


def test_a_script_error_carries_all_diagnostics_and_names_the_first() -> None:
    with pytest.raises(ScriptError) as caught:
        parse(Source("t.bt", "begin { 1 + }\nend { ) }"))
    error = caught.value
    assert error.message == "t.bt:1:13: error[syntax]: expected an expression, found `}`"
    assert len(error.errors) == 2
    assert str(error).splitlines()[1].startswith("t.bt:2:7: error[syntax]: expected an expression")


def test_a_collector_keeps_warnings_apart_from_errors() -> None:
    found = Diagnostics()
    found.warning("old", "this is old")
    found.raise_if_errors()
    assert not found.has_errors
    found.error("bad", "this is bad", help=["mend it"])
    with pytest.raises(ScriptError) as caught:
        found.raise_if_errors()
    assert caught.value.hint == "mend it"
    assert [d.severity for d in caught.value.diagnostics] == ["warning", "error"]
    assert [d.code for d in found.warnings] == ["old"]
