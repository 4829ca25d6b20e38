# SPDX-License-Identifier: Apache-2.0
"""Which functions and lines an address of a program is in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kcap.errors import FileError
from kcap.symbols.elf import ElfFile
from kcap.symbols.frames import SourceFrames

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

PROGRAM = """\
static int marks[8];
static inline __attribute__((always_inline)) void inner(int n)
{
    __asm__ volatile("nop; nop; nop; nop");
}
static inline __attribute__((always_inline)) void outer(int n)
{
    inner(n);
}
__attribute__((noinline)) int host(int n)
{
    outer(n);
    return marks[n & 7];
}
__attribute__((noinline)) int plain(int n)
{
    return n + 1;
}
int main(int argc, char **argv) { return host(argc) + plain(argc); }
"""
NOP = b"\x90\x90\x90\x90"


@pytest.fixture(scope="module", params=["-gdwarf-4", "-gdwarf-5"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with an inlined function in an inlined function."""
    directory = tmp_path_factory.mktemp("frames")
    (directory / "lines.c").write_text(PROGRAM)
    command = ["gcc", "-O2", request.param, "-o", "lines", "lines.c"]
    subprocess.run(command, check=True, cwd=directory)
    return directory / "lines"


def place_of_nops(path: Path) -> int:
    elf = ElfFile(str(path))
    host = elf.function("host")
    assert host is not None
    offset = elf.file_offset(host.address)
    assert offset is not None
    code = path.read_bytes()[offset : offset + host.size]
    return host.address + code.index(NOP)


def test_functions_inlined_in_each_other_are_told_with_the_line_each_was_called_from(
    program: Path,
) -> None:
    found = SourceFrames(str(program)).find(place_of_nops(program))
    source = str(program.parent / "lines.c")
    assert found == [("inner", source, 4), ("outer", source, 8), ("host", source, 12)]


def test_a_function_of_its_own_is_told_with_its_line(program: Path) -> None:
    symbol = ElfFile(str(program)).function("plain")
    assert symbol is not None
    frames = SourceFrames(str(program)).find(symbol.address)
    assert [frame.name for frame in frames] == ["plain"]
    assert frames[0].line in (16, 17, 18)


def test_units_are_found_without_a_table_of_addresses(program: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    command = ["objcopy", "--remove-section=.debug_aranges", str(program), str(bare)]
    subprocess.run(command, check=True)
    names = [frame.name for frame in SourceFrames(str(bare)).find(place_of_nops(bare))]
    assert names == ["inner", "outer", "host"]


def test_nothing_is_known_of_code_without_debugging_information(
    program: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "stripped"
    subprocess.run(["objcopy", "--strip-debug", program, bare], check=True)
    assert SourceFrames(str(bare)).find(place_of_nops(bare)) == []


def test_nothing_is_known_outside_of_the_program(program: Path) -> None:
    assert SourceFrames(str(program)).find(0x7FFF0000) == []


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="missing"):
        SourceFrames(str(tmp_path / "missing"))
