# SPDX-License-Identifier: Apache-2.0
"""Frame tables, compared with what pyelftools reads from the same files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kcap.errors import FileError
from kcap.symbols.callframes import FROM_BP, FROM_SP, IN_PLT, SAVED, UNKNOWN, rows
from kcap.symbols.elf import ElfFile

pytest.importorskip("elftools")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

PROGRAM = """\
#include <stdio.h>
#include <stdlib.h>
static int leaf(int n) { return n + rand(); }
int with_frame(int n) { char *p = __builtin_alloca(n); snprintf(p, n, "%d", leaf(n)); return *p; }
int deep(int a, int b, int c, int d, int e, int f, int g) {
    char text[300];
    return snprintf(text, sizeof(text), "%d %d", a * b + c, d + e * f + g) + leaf(a) * text[3];
}
int main(int argc, char **argv) { return with_frame(argc) + deep(1, 2, 3, 4, 5, 6, argc); }
"""


@pytest.fixture(scope="module", params=["-O2 -fomit-frame-pointer", "-O0", "-O1 -no-pie"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("frames")
    (directory / "p.c").write_text(PROGRAM)
    options = request.param.split()
    subprocess.run(["gcc", "-w", *options, "p.c", "-o", "p"], cwd=directory, check=True)
    return str(directory / "p")


def expected(path: str) -> dict[int, tuple[int, int, int]]:
    """By address: (CFA's kind, CFA's offset, rbp's offset or 0), as pyelftools decodes them."""
    from elftools.dwarf.callframe import FDE
    from elftools.elf.elffile import ELFFile

    found = {}
    with Path(path).open("rb") as file:
        for entry in ELFFile(file).get_dwarf_info().EH_CFI_entries():
            if not isinstance(entry, FDE):
                continue
            for line in entry.get_decoded().table:
                cfa, saved = line["cfa"], line.get(6)
                caller = line.get(16)
                kind = {7: FROM_SP, 6: FROM_BP, None: IN_PLT}[cfa.reg]
                if caller is not None and caller.type == "UNDEFINED":
                    kind = UNKNOWN
                at = saved.arg if saved is not None and saved.type == "OFFSET" else 0
                found[line["pc"]] = (kind, cfa.offset or 0, at)
    return found


@needs_gcc
def test_rows_say_where_each_function_s_caller_is(program: str) -> None:
    elf = ElfFile(program)
    found = {
        elf.address_of(row.place): (
            row.cfa,
            row.cfa_offset,
            row.bp_offset if row.bp == SAVED else 0,
        )
        for row in rows(program)
    }
    wanted = expected(program)
    assert len(wanted) > 10
    for address, rule in wanted.items():
        if rule[0] == IN_PLT:
            assert found[address][0] == IN_PLT
        elif rule[0] == UNKNOWN:
            assert found[address][0] == UNKNOWN
        else:
            assert found[address] == rule, hex(address)


@needs_gcc
def test_rows_are_sorted_and_nothing_is_known_between_functions(program: str) -> None:
    found = rows(program)
    assert [row.place for row in found] == sorted({row.place for row in found})
    assert found[-1].cfa == UNKNOWN


def test_a_file_that_is_no_program_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    with pytest.raises(FileError, match="is no ELF file"):
        rows(str(tmp_path / "text"))
