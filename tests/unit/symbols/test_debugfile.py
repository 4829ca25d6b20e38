# SPDX-License-Identifier: Apache-2.0
"""Finding the debugging information of stripped programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kcap.symbols.debugfile import _told, debug_file

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or shutil.which("objcopy") is None, reason="needs gcc and objcopy"
)


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


@pytest.fixture
def stripped(tmp_path: Path) -> tuple[Path, Path]:
    """(a stripped program with a build id, its debugging information)."""
    (tmp_path / "p.c").write_text("int main(void) { return 0; }")
    program, debug = tmp_path / "p", tmp_path / "elsewhere" / "p.debug"
    debug.parent.mkdir()
    run("gcc", "-g", "-Wl,--build-id", "-o", program, tmp_path / "p.c")
    run("objcopy", "--only-keep-debug", program, debug)
    run("objcopy", "--strip-all", program)
    return program, debug


def test_a_directory_that_was_named_is_searched(stripped: tuple[Path, Path]) -> None:
    program, debug = stripped
    assert debug_file(str(program)) == ""
    assert debug_file(str(program), ("/nowhere", str(debug.parent))) == str(debug)


def test_a_relative_directory_counts_from_the_program_too(stripped: tuple[Path, Path]) -> None:
    program, debug = stripped
    found = debug_file(str(program), (f"./{debug.parent.name}",))
    assert Path(found).samefile(debug)


def test_the_build_id_finds_it(stripped: tuple[Path, Path], tmp_path: Path) -> None:
    program, debug = stripped
    _, build_id, _ = _told(str(program))
    there = tmp_path / "root" / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
    there.parent.mkdir(parents=True)
    debug.rename(there)
    assert debug_file(str(program), (str(tmp_path / "root"),)) == str(there)


def test_a_damaged_note_tells_no_build_id(stripped: tuple[Path, Path]) -> None:
    program, _ = stripped
    data = program.read_bytes()
    note = data.index(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0")
    for damaged in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x03\0\0\0"):
        program.write_bytes(data[:note] + damaged + data[note + 4 :])
        assert _told(str(program))[1] == ""


def test_the_debug_link_is_followed_into_dot_debug(stripped: tuple[Path, Path]) -> None:
    program, debug = stripped
    other = program.parent / ".debug" / "other.name"
    other.parent.mkdir()
    debug.rename(other)
    run("objcopy", f"--add-gnu-debuglink={other}", program)
    assert debug_file(str(program)) == str(other)


def test_that_of_another_build_is_not_taken(stripped: tuple[Path, Path], tmp_path: Path) -> None:
    program, debug = stripped
    (tmp_path / "q.c").write_text("int main(void) { return 1; }")
    run("gcc", "-g", "-Wl,--build-id", "-o", debug, tmp_path / "q.c")
    assert debug_file(str(program), (str(debug.parent),)) == ""


def test_without_build_ids_the_debug_link_has_to_fit(tmp_path: Path) -> None:
    (tmp_path / "p.c").write_text("int main(void) { return 0; }")
    program, debug = tmp_path / "p", tmp_path / "p.debug"
    run("gcc", "-g", "-Wl,--build-id=none", "-o", program, tmp_path / "p.c")
    run("objcopy", "--only-keep-debug", program, debug)
    run("objcopy", "--strip-all", f"--add-gnu-debuglink={debug}", program)
    assert debug_file(str(program)) == str(debug)
    run("gcc", "-g3", "-Wl,--build-id=none", "-o", debug, tmp_path / "p.c")
    assert debug_file(str(program)) == ""


def test_a_program_that_has_its_own_needs_no_other(tmp_path: Path) -> None:
    (tmp_path / "p.c").write_text("int main(void) { return 0; }")
    run("gcc", "-g", "-o", tmp_path / "p", tmp_path / "p.c")
    assert debug_file(str(tmp_path / "p")) == str(tmp_path / "p")


def test_debugging_information_that_is_installed_later_is_found(
    stripped: tuple[Path, Path],
) -> None:
    program, debug = stripped
    assert debug_file(str(program)) == ""
    beside = debug.rename(program.parent / "p.debug")
    assert debug_file(str(program)) == str(beside)


def test_a_program_that_was_built_anew_is_asked_again(stripped: tuple[Path, Path]) -> None:
    program, debug = stripped
    assert debug_file(str(program), (str(debug.parent),)) == str(debug)
    run("gcc", "-g", "-Wl,--build-id", "-o", program, program.with_suffix(".c"))
    assert debug_file(str(program), (str(debug.parent),)) == str(program)
