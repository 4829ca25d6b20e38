# SPDX-License-Identifier: Apache-2.0
"""The corpus of scripts that kcap is compared with bpftrace on: its files, and the comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.corpus import Case, Result, Subject, subjects
from conformance.differential import compare, difference

outputs = st.text(
    st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=30
) | st.sampled_from(
    ["", "\n", "a\n\nb", "x \n", "\\c", "\\\\c\n", "\\x41\n", "\udcff", "1| x\n", "status 5\n", " "]
)


def written(case: Case, directory: Path) -> Case:
    """A case that was written to a file and read again."""
    path = directory / f"{case.subject}.txt"
    path.write_text(Subject(path, "Of some subject.\n\n", (case,)).text())
    ((read,),) = (subject.cases for subject in subjects(directory))
    return read


@given(outputs, outputs, outputs, st.none() | st.integers(-9, 255))
def test_any_output_comes_back_from_a_file(
    tmp_path_factory: pytest.TempPathFactory, out: str, err: str, file: str, status: int | None
) -> None:
    case = Case("s", "name", "begin { }", expected=Result(out, err, file, status))
    assert written(case, tmp_path_factory.mktemp("corpus")) == case


def test_everything_that_a_case_has_comes_back_from_a_file(tmp_path: Path) -> None:
    case = Case(
        "s",
        "all of it",
        "begin {\n  $x = 1;\n\n  exit();\n}",
        words="A=b -q {} 1 '2 3'",
        before=("mkdir a", "echo > a/b"),
        work=("true",),
        file="out.txt",
        changes=((r"\d+/", "N"), ("x", "")),
        reason="for a reason",
        expected=Result("a\n", "", "b\n", 1),
    )
    assert written(case, tmp_path) == case


def test_what_is_not_recorded_is_not_taken_for_empty_output(tmp_path: Path) -> None:
    assert written(Case("s", "new", "begin { }"), tmp_path).expected is None
    silent = Case("s", "silent", "begin { }", expected=Result())
    assert written(silent, tmp_path).expected == Result()


def test_names_are_unique(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("### a\nbegin { }\n\n### a\nend { }\n")
    with pytest.raises(ValueError, match="more than one case is called a"):
        subjects(tmp_path)


def test_the_files_of_the_corpus_are_as_they_would_be_written() -> None:
    for subject in subjects():
        assert subject.path.read_text() == subject.text(), subject.path.name


@pytest.mark.parametrize(
    ("reason", "expected", "found", "verdict"),
    [
        ("", Result("5 a\n"), Result("6 a\n"), "equal"),
        ("", Result("5 a\n"), Result("5 b\n"), "different"),
        ("", Result("5\n"), Result("5\n", status=1), "different"),
        ("", Result("5\n"), Result("5\n", "WARNING: x\n"), "different"),
        ("known", Result("5 a\n"), Result("5 b\n"), "documented"),
        ("", Result("", "ERROR: a\n", "", 1), Result("", "ERROR: b\n", "", 1), "wording"),
        ("", Result("", "ERROR: a\n", "", 1), Result("", "", "", 1), "different"),
        ("", Result("x", "ERROR: a\n", "", 1), Result("", "ERROR: b\n", "", 1), "different"),
    ],
)
def test_verdicts(reason: str, expected: Result, found: Result, verdict: str) -> None:
    case = Case("s", "n", "", changes=((r"\d", "N"),), reason=reason)
    assert compare(case, expected, found).verdict == verdict


def test_a_difference_names_the_stream() -> None:
    compared = compare(
        Case("s", "n", ""), Result("a\nb\n", "w\n"), Result("a\nc\n", "w\n", status=1)
    )
    assert difference(compared) == [
        "@@ -1,3 +1,4 @@",
        " 1| a",
        "-1| b",
        "+1| c",
        " 2| w",
        "+status 1",
    ]
