# SPDX-License-Identifier: Apache-2.0
"""Imports at the top of a script."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostics
from kcap.lang.imports import resolve_imports
from unit.lang.lang_trees import program


def resolve(text: str, directory: Path) -> tuple[ast.Program, list[str]]:
    """The program with its imports, and the titles of what is wrong."""
    found = Diagnostics()
    tree = resolve_imports(program(text), found, directory=str(directory))
    return tree, [d.title for d in found]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with scripts and headers."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "a.bt").write_text('#define A 1\nimport "lib/b.bt";\nbegin { a(); }\n')
    (tmp_path / "lib" / "b.bt").write_text('import "../a.bt"; let @b = hash(1); macro m { 1 }\n')
    (tmp_path / "lib" / "c.h").write_text("struct c { int x; };\n")
    (tmp_path / "lib" / "readme").write_text("")
    return tmp_path


def test_what_a_script_imports_comes_before_it_and_every_file_once(directory: Path) -> None:
    tree, titles = resolve(
        '#define B 2\nconfig = { x=1 }\nimport "a.bt"; import "./a.bt";\nend { }', directory
    )
    assert titles == []
    assert [d.name for d in tree.c_definitions] == ["A", "B"]
    assert [type(item).__name__ for item in tree.items] == [
        "MapDeclaration",
        "Macro",
        "Probe",
        "Probe",
    ]
    assert [p.attach_points[0].text for p in tree.probes] == ["begin", "end"]
    assert tree.imports == []
    assert tree.config is not None


def test_a_directory_gives_its_scripts_and_headers(directory: Path) -> None:
    tree, titles = resolve('import "lib";', directory)
    assert titles == []
    header = os.path.realpath(directory / "lib" / "c.h")
    assert [(d.kind, d.value) for d in tree.c_definitions] == [
        ("define", "1"),
        ("include", f'"{header}"'),
    ]
    assert len(tree.macros) == 1


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("none.bt", "none.bt can't be read: No such file or directory"),
        ("none.h", "none.h can't be read: No such file or directory"),
        ("x.bpf.c", "kcap can't import BPF programs written in C"),
        ("lib/readme", "lib/readme is of no kind that can be imported"),
        ("", "this is no path"),
    ],
)
def test_what_can_not_be_imported_is_an_error(directory: Path, path: str, title: str) -> None:
    assert resolve(f'import "{path}"; begin {{ }}', directory)[1] == [title]


def test_an_empty_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert resolve('import "d";', tmp_path)[1] == ["there is nothing to import in d"]


def test_nothing_is_imported_from_a_directory_that_anyone_may_write(directory: Path) -> None:
    (directory / "lib").chmod(0o777)
    path = os.path.realpath(directory / "lib")
    titles = [f"{path} is writable by everyone, so nothing is imported from it"]
    assert resolve('import "lib/b.bt";', directory)[1] == titles
    assert resolve('import "lib";', directory)[1] == titles


def test_errors_of_an_imported_script_name_its_file(directory: Path) -> None:
    (directory / "bad.bt").write_text("begin { ( }")
    found = Diagnostics()
    resolve_imports(program('import "bad.bt";'), found, directory=str(directory))
    (diagnostic,) = found
    assert diagnostic.span is not None
    assert diagnostic.span.location == f"{os.path.realpath(directory / 'bad.bt')}:1:11"


def test_an_imported_script_has_no_config_block(directory: Path) -> None:
    (directory / "config.bt").write_text("config = { x=1 }")
    assert resolve('import "config.bt";', directory)[1] == [
        "an imported script can't have a config block"
    ]
