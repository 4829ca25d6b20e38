# SPDX-License-Identifier: Apache-2.0
"""Names for processes that have ended, by what the kernel said of them while they ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcap.kernel.mapping_events import Executed, Forked, Mapped
from kcap.symbols import process
from kcap.symbols.process import ProcessSymbols
from unit.symbols.elf_maker import TEXT_ADDRESS, TEXT_OFFSET, elf

START = 0x7F0000000000


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "program"
    path.write_bytes(elf([("work", TEXT_ADDRESS, 0x40)]))
    return str(path)


@pytest.fixture
def symbols(tmp_path: Path) -> ProcessSymbols:
    return ProcessSymbols(str(tmp_path / "proc"))


def mapped(pid: int, path: str) -> Mapped:
    return Mapped(pid, START, START + 0x1000, TEXT_OFFSET, path)


def name(symbols: ProcessSymbols, pid: int) -> str | None:
    found = symbols.find(pid, START + 0x10)
    return f"{found.name}+{found.offset}" if found is not None else None


def test_what_it_mapped_is_known(symbols: ProcessSymbols, program: str) -> None:
    symbols.note(mapped(7, program))
    assert name(symbols, 7) == "work+16"
    assert name(symbols, 8) is None
    assert symbols.find(7, START + 0x1000) is None


def test_a_copy_has_what_its_parent_had(symbols: ProcessSymbols, program: str) -> None:
    symbols.note(mapped(7, program))
    symbols.note(Forked(8, 7))
    symbols.note(Forked(9, 8))
    assert name(symbols, 9) == "work+16"


def test_numbers_that_are_given_again_make_no_circle(symbols: ProcessSymbols, program: str) -> None:
    symbols.note(Forked(8, 7))
    symbols.note(Forked(7, 8))  # 7 had ended
    assert name(symbols, 8) is None


def test_a_long_line_of_copies_leads_to_the_first(symbols: ProcessSymbols, program: str) -> None:
    symbols.note(mapped(1, program))
    for pid in range(2, 4000):
        symbols.note(Forked(pid, pid - 1))
    assert name(symbols, 3999) == "work+16"


def test_a_library_that_is_loaded_again_and_again_is_kept_once(
    symbols: ProcessSymbols, program: str
) -> None:
    for _ in range(3):
        symbols.note(mapped(7, program))
        symbols.note(mapped(7, "/other"))
    assert [mapping.path for mapping in symbols._noted[7]] == [program, "/other"]


def test_a_program_that_is_executed_leaves_nothing_of_the_one_before(
    symbols: ProcessSymbols, program: str
) -> None:
    symbols.note(mapped(7, program))
    symbols.note(Executed(7))
    assert name(symbols, 7) is None


def test_a_number_that_is_used_again_is_another_process(
    symbols: ProcessSymbols, program: str
) -> None:
    symbols.note(mapped(7, program))
    symbols.note(Forked(7, 1))
    assert name(symbols, 7) is None


def test_memory_that_is_no_file_is_left_out(symbols: ProcessSymbols) -> None:
    for other in ("//anon", "[vdso]"):
        symbols.note(mapped(7, other))
    assert name(symbols, 7) is None


def test_the_oldest_processes_are_forgotten(
    symbols: ProcessSymbols, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MOST_NOTED", 2)
    for pid in (7, 8, 9):
        symbols.note(mapped(pid, program))
    assert [name(symbols, pid) for pid in (7, 8, 9)] == [None, "work+16", "work+16"]
