# SPDX-License-Identifier: Apache-2.0
"""Whatever a traced program's file is like: it is read, or there is one error that says so."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcap.errors import FileError
from kcap.symbols import callframes, dwarf, usdt
from kcap.symbols.debugfile import debug_file
from kcap.symbols.elf import ElfFile
from kcap.symbols.frames import SourceFrames

pytest.importorskip("elftools")
pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

PROGRAM = "struct s { int a; } x; int work(struct s *p) { return p->a; } int main() { return 0; }"
DAMAGED = (".debug_", ".eh_frame", ".symtab", ".strtab", ".dyn", ".note")


class Program:
    """A program with debugging information, and copies of it in which bytes were changed."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "p")
        (directory / "p.c").write_text(PROGRAM)
        command = ["gcc", "-w", "-g", "-o", self.path, str(directory / "p.c")]
        subprocess.run(command, check=True)
        self.data = Path(self.path).read_bytes()
        self.copies = count(1)
        elf = ElfFile(self.path)
        work = elf.function("work")
        assert work is not None
        self.work = work.address
        sections = [s for s in elf.sections if s.name.startswith(DAMAGED)]
        self.places = [at for s in sections for at in range(s.offset, s.offset + s.size)]
        self.places += range(64)  # the header
        elf.close()

    def damaged(self, changes: dict[int, int], length: int) -> str:
        """A copy with other bytes at some of its places, and perhaps cut off."""
        data = bytearray(self.data)
        for place, byte in changes.items():
            data[self.places[place % len(self.places)]] = byte
        path = f"{self.path}.damaged"
        Path(path).write_bytes(data[:length] if length < len(data) else data)
        time = next(self.copies)  # two within a tick of the clock are different files, too
        os.utime(path, ns=(time, time))
        return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program(tmp_path_factory.mktemp("damaged"))


def read_symbols(path: str) -> None:
    elf = ElfFile(path)
    try:
        for symbol in elf.functions:
            elf.function_at(symbol.address)
        assert elf.function_names == sorted(elf.function_names)
        elf.needed()
        elf.thread_variable("x")
        usdt.read_probes(elf)
    finally:
        elf.close()


@settings(max_examples=30)
@given(
    st.dictionaries(st.integers(0, 1 << 16), st.integers(0, 255), max_size=20),
    st.integers(0, 1 << 16),
)
def test_a_damaged_file_is_read_or_is_an_error(
    program: Program, changes: dict[int, int], length: int
) -> None:
    path = program.damaged(changes, length if length % 8 == 0 else 1 << 16)
    for read in (
        read_symbols,
        callframes.rows,
        debug_file,
        dwarf.types_btf,
        lambda name: dwarf.function_btf(name, program.work),
        lambda name: dwarf.line_addresses(name, "p.c", 1),
        lambda name: SourceFrames(name).find(program.work),
    ):
        try:
            read(path)
        except FileError as error:
            assert error.message.startswith((path, f"can't read {path}"))  # noqa: PT017


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="it is no regular file"):
        ElfFile(str(tmp_path / "pipe"))
