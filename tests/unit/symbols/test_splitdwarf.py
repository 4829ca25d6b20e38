# SPDX-License-Identifier: Apache-2.0
"""DWARF in .dwo files and .dwp packages, in dwz's common files; programs are compiled for it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from kcap import btf as b
from kcap.errors import FileError
from kcap.probes import user_args
from kcap.symbols.dwarf import function_btf, line_addresses, types_btf
from kcap.symbols.elf import ElfFile

pytest.importorskip("elftools")
pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or shutil.which("objcopy") is None, reason="needs gcc and objcopy"
)

FIRST = "struct point { int x, y; };\nint first(struct point *p, char c) { return p->x + c; }\n"
MAIN = """\
struct box { long w; };
int first(void *, char);
long second(struct box *b, unsigned n) { return b->w + n; }
int main(void) { return first == 0 && second == 0; }
"""
JUNK = b"?" * 24
COLUMNS = {"info": 1, "abbrev": 3, "str_offsets": 6}


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


@pytest.fixture(params=[5, 4], ids=["dwarf5", "gnu_dwarf4"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def program(tmp_path: Path, version: int) -> Path:
    """A program of two units whose DWARF is in .dwo files beside it."""
    objects = []
    for name, text in (("first", FIRST), ("main", MAIN)):
        (tmp_path / f"{name}.c").write_text(text)
        objects.append(tmp_path / f"{name}.o")
        options = ("-O0", f"-gdwarf-{version}", "-gsplit-dwarf", "-c")
        run("gcc", *options, tmp_path / f"{name}.c", "-o", objects[-1])
    run("gcc", "-o", tmp_path / "program", *objects)
    return tmp_path / "program"


def listing(program: Path, function: str) -> list[str]:
    symbol = ElfFile(str(program)).function(function)
    assert symbol is not None
    return user_args.listing(str(program), function, symbol.address)


def package(dwo: Path, made: Path, unit_id: int, version: int) -> None:
    """A package of one unit, each section with something else in front of the unit's part."""
    arguments = []
    sizes = {}
    for name in COLUMNS:
        part = made.parent / f"{name}.part"
        run("objcopy", "-O", "binary", "--only-section", f".debug_{name}.dwo",
            "--set-section-flags", f".debug_{name}.dwo=alloc", dwo, part)  # fmt: skip
        sizes[name] = part.stat().st_size
        part.write_bytes(JUNK + part.read_bytes())
        arguments += ["--update-section", f".debug_{name}.dwo={part}"]
    index = struct.pack("<HHIII", version, 0, len(COLUMNS), 1, 2) + struct.pack("<QQ", 0, unit_id)
    index += struct.pack("<II", 0, 1) + struct.pack("<3I", *COLUMNS.values())
    index += struct.pack("<3I", *[len(JUNK)] * 3) + struct.pack("<3I", *sizes.values())
    (made.parent / "index").write_bytes(index)
    run("objcopy", "--add-section", f".debug_cu_index={made.parent / 'index'}", *arguments, dwo,
        made)  # fmt: skip


def skeleton_id(program: Path, number: int) -> int:
    from elftools.elf.elffile import ELFFile

    with program.open("rb") as file:
        unit = list(ELFFile(file).get_dwarf_info().iter_CUs())[number]
        if unit["version"] >= 5:
            return int(unit["dwo_id"])
        return int(unit.get_top_DIE().attributes["DW_AT_GNU_dwo_id"].value)


def test_parameters_come_from_the_dwo_file_of_their_unit(program: Path) -> None:
    assert listing(program, "first") == ["struct point* p", "char c"]
    assert listing(program, "second") == ["struct box* b", "unsigned int n"]


def test_types_and_lines_are_found(program: Path) -> None:
    types = types_btf(str(program))
    assert types is not None
    assert {"point", "box"} <= set(types.names(b.Struct))
    second = ElfFile(str(program)).function("second")
    assert second is not None
    assert line_addresses(str(program), "main.c", 3)[0] == second.address


def test_a_program_that_was_moved_has_its_dwo_files_beside_it(
    program: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (program, tmp_path / "first.dwo"):
        path.rename(moved / path.name)
    assert listing(moved / "program", "first") == ["struct point* p", "char c"]


def test_a_package_is_searched_for_the_unit(program: Path, tmp_path: Path, version: int) -> None:
    dwo = tmp_path / "first.dwo"
    index_version = version if version >= 5 else 2  # of the GNU extension
    package(dwo, tmp_path / "program.dwp", skeleton_id(program, 0), index_version)
    dwo.unlink()
    assert listing(program, "first") == ["struct point* p", "char c"]
    assert listing(program, "second") == ["struct box* b", "unsigned int n"]  # not packed


def test_without_the_other_half_nothing_is_known(program: Path, tmp_path: Path) -> None:
    (tmp_path / "first.dwo").unlink()
    symbol = ElfFile(str(program)).function("first")
    assert symbol is not None
    assert function_btf(str(program), symbol.address) is None


def test_that_of_another_build_is_not_taken(program: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "main.dwo", tmp_path / "first.dwo")
    assert listing(program, "first") == []


SHARED = """\
struct point { int x, y; struct point *next; };
struct a_struct_that_two_programs_share { long a_member_of_it; struct point *points; };
"""
ONE_OF_TWO = """\
#include "shared.h"
int NAME(struct point *p, struct a_struct_that_two_programs_share *s, char c) { return p->x + c; }
int main(void) { return NAME == 0; }
"""


@pytest.fixture
def pair(tmp_path: Path, version: int) -> tuple[Path, Path]:
    """Two programs whose DWARF is for the most part in a file that they share."""
    (tmp_path / "shared.h").write_text(SHARED)
    for name in ("first", "second"):
        (tmp_path / f"{name}.c").write_text(ONE_OF_TWO.replace("NAME", name))
        options = ("-O0", f"-gdwarf-{version}", "-o")
        run("gcc", *options, tmp_path / name, tmp_path / f"{name}.c")
    first, second = tmp_path / "first", tmp_path / "second"
    run("dwz", "-m", tmp_path / "common.debug", "-r", first, second)
    return first, second


@pytest.mark.skipif(shutil.which("dwz") is None, reason="needs dwz")
def test_what_dwz_moved_to_a_common_file_is_found(pair: tuple[Path, Path]) -> None:
    for program in pair:
        parameters = ["struct point* p", "struct a_struct_that_two_programs_share* s", "char c"]
        assert listing(program, program.name) == parameters
        types = types_btf(str(program))
        assert types is not None
        assert {"point", "a_struct_that_two_programs_share"} <= set(types.names(b.Struct))


@pytest.mark.skipif(shutil.which("dwz") is None, reason="needs dwz")
def test_a_common_file_that_is_missing_or_of_another_build_is_an_error(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copy(pair[0], tmp_path / "common.debug")
    with pytest.raises(FileError, match=r"half of its .* is in common.debug, which is not there"):
        types_btf(str(pair[0]))
    assert listing(pair[0], "first") == []
