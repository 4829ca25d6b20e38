# SPDX-License-Identifier: Apache-2.0
"""Diagnostics as text and as plain data."""

from __future__ import annotations

import json
from typing import Any

from kcap.lang.diagnostic import Diagnostic, Edit, Label
from kcap.lang.render import render, render_all, to_json
from kcap.lang.source import Source
from unit.lang.lang_trees import errors


def find(source: Source, text: str, nth: int = 0) -> Any:
    """The span of the ``nth`` occurrence of ``text``."""
    start = -1
    for _ in range(nth + 1):
        start = source.text.index(text, start + 1)
    return source.span(start, start + len(text))


def test_an_error_shows_its_line_its_place_and_an_edit() -> None:
    shown = render(errors("begin {\n  print(@x;\n}\n")[0])
    assert (
        shown
        == """\
error[syntax]: expected `)`, found `;`
  --> test.bt:2:11
   |
 2 |   print(@x;
   |        -  ^ expected `)`
   |        |
   |        opened here
   |
help: insert `)`
   |
 2 -   print(@x;
 2 +   print(@x);"""
    )


def test_labels_on_other_lines_notes_and_help_are_shown() -> None:
    source = Source("a.bt", "".join(f"line {n}\n" for n in range(1, 13)))
    diagnostic = Diagnostic(
        "type",
        "warning",
        "two types",
        find(source, "line 12"),
        "a string here",
        (Label(find(source, "line 2"), "an integer here"), Label(find(source, "line 4"), "")),
        ("a note\nof two lines",),
        ("do this",),
    )
    assert (
        render(diagnostic)
        == """\
warning[type]: two types
   --> a.bt:12:1
    |
  2 | line 2
    | ------ an integer here
  3 | line 3
  4 | line 4
    | ------
...
 12 | line 12
    | ^^^^^^^ a string here
    |
    = note: a note
            of two lines
    = help: do this"""
    )


def test_labels_of_another_source_are_shown_with_its_name() -> None:
    one, two = Source("a.bt", "f(1)"), Source("b.bt", "\nmacro f($x) {}")
    diagnostic = Diagnostic(
        "macro",
        "error",
        "no such form",
        one.span(2, 3),
        "an integer",
        (Label(find(two, "$x"), "wants a variable"),),
    )
    assert (
        render(diagnostic)
        == """\
error[macro]: no such form
  --> a.bt:1:3
   |
 1 | f(1)
   |   ^ an integer
  ::: b.bt:2:9
   |
 2 | macro f($x) {}
   |         -- wants a variable"""
    )


def test_several_labels_on_a_line_hang_below_each_other() -> None:
    source = Source("a.bt", "aa bb cc")
    diagnostic = Diagnostic(
        "x",
        "note",
        "t",
        find(source, "bb"),
        "second",
        (Label(find(source, "aa"), "first"), Label(find(source, "cc"), "third")),
    )
    assert render(diagnostic).splitlines()[4:] == [
        "   | -- ^^ -- third",
        "   | |  |",
        "   | |  second",
        "   | first",
    ]


def test_overlapping_marks_get_rows_of_their_own() -> None:
    source = Source("a.bt", "f(x + y)")
    diagnostic = Diagnostic(
        "x", "error", "t", source.span(2, 7), "sum", (Label(source.span(6, 7), "int"),)
    )
    assert render(diagnostic).splitlines()[4:] == ["   |   ^^^^^ sum", "   |       - int"]


def test_tabs_and_wide_characters_keep_the_marks_aligned() -> None:
    source = Source("a.bt", '\t"日本" x')
    assert render(Diagnostic("x", "error", "t", find(source, "x"))).splitlines()[3:] == [
        ' 1 |     "日本" x',
        "   |            ^",
    ]
    assert render(Diagnostic("x", "error", "t", find(source, "日本"))).splitlines()[4] == (
        "   |      ^^^^"
    )


def test_control_characters_of_a_script_do_not_reach_the_terminal() -> None:
    source = Source("a\x1b[2J.bt", "x\x1b[31m\x9b\u202e\udcff\x7fy")
    shown = render(Diagnostic("x", "error", "t\x1b[0m", find(source, "y")))
    assert shown.splitlines() == [
        "error[x]: t␛[0m",
        "  --> a␛[2J.bt:1:11",
        "   |",
        " 1 | x␛[31m\ufffd\ufffd\ufffd␡y",
        "   |           ^",
    ]


def test_a_span_of_several_lines_is_marked_on_its_first() -> None:
    source = Source("a.bt", "f(1,\n  2)")
    shown = render(Diagnostic("x", "error", "t", source.span(2, 9), "here"))
    assert shown.splitlines()[3:] == [" 1 | f(1,", "   |   ^^ here"]


def test_a_place_at_the_end_of_the_script_gets_one_caret() -> None:
    source = Source("a.bt", "f(")
    assert render(Diagnostic("x", "error", "t", source.end_span())).splitlines()[3:] == [
        " 1 | f(",
        "   |   ^",
    ]


def test_a_long_line_is_cut_to_the_part_around_the_mark() -> None:
    source = Source("a.bt", "a" * 300 + "X" + "b" * 300)
    line, marks = render(Diagnostic("x", "error", "t", source.span(300, 301))).splitlines()[3:]
    assert len(line) == 5 + 3 + 140 + 3
    assert line.index("X") == marks.index("^")


def test_a_diagnostic_without_a_place_is_one_line() -> None:
    assert render(Diagnostic("x", "error", "nothing to do")) == "error[x]: nothing to do"


def test_edits_are_shown_as_a_diff_of_whole_lines() -> None:
    source = Source("a.bt", "kprobe:f {\n  x(1);\n  y(2);\n}")
    replace = Diagnostic("c", "error", "t", edits=(Edit(find(source, "x"), "z"),))
    assert render(replace).splitlines()[1:] == [
        "help: write `z` instead of `x`", "   |", " 2 -   x(1);", " 2 +   z(1);"
    ]  # fmt: skip
    remove = Diagnostic("c", "error", "t", edits=(Edit(find(source, "1"), ""),))
    assert render(remove).splitlines()[1] == "help: remove `1`"
    several = Diagnostic(
        "c", "error", "t", edits=(Edit(find(source, "f"), "g"), Edit(find(source, "y(2);\n"), ""))
    )
    assert render(several).splitlines()[1:] == [
        "help: change the script like this",
        "   |",
        " 1 - kprobe:f {",
        " 1 + kprobe:g {",
        " 3 -   y(2);",
        " 4 - }",
        " 3 +   }",
    ]


def test_colour_is_used_only_when_asked_for() -> None:
    found = errors("begin { ( }")[0]
    assert "\x1b" not in render(found)
    coloured = render(found, color=True)
    assert coloured.startswith("\x1b[1;31merror[syntax]\x1b[0m\x1b[1m: expected an expression")
    import re

    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render(found)


def test_several_diagnostics_have_an_empty_line_between_them() -> None:
    first, second = Diagnostic("a", "error", "x"), Diagnostic("b", "note", "y")
    assert render_all([first, second]) == "error[a]: x\n\nnote[b]: y"


def test_plain_data_has_offsets_and_places() -> None:
    found = errors("begin { f(1; }")[0]
    data = to_json(found)
    assert json.loads(json.dumps(data)) == data
    assert data == {
        "code": "syntax",
        "severity": "error",
        "title": "expected `)`, found `;`",
        "span": {
            "file": "test.bt", "start": 11, "end": 12,
            "line": 1, "column": 12, "end_line": 1, "end_column": 13,
        },
        "label": "expected `)`",
        "labels": [
            {
                "span": {
                    "file": "test.bt", "start": 9, "end": 10,
                    "line": 1, "column": 10, "end_line": 1, "end_column": 11,
                },
                "text": "opened here",
            }
        ],
        "notes": [],
        "help": [],
        "edits": [
            {
                "span": {
                    "file": "test.bt", "start": 11, "end": 11,
                    "line": 1, "column": 12, "end_line": 1, "end_column": 12,
                },
                "replacement": ")",
            }
        ],
    }  # fmt: skip
    assert to_json(Diagnostic("x", "note", "t"))["span"] is None
