# SPDX-License-Identifier: Apache-2.0
"""Names of addresses in processes."""

from __future__ import annotations

from pathlib import Path

from kcap.symbols.process import ProcessSymbols, UserSymbol
from unit.symbols.elf_maker import TEXT_ADDRESS, TEXT_OFFSET, elf

FUNCTIONS = [("test", TEXT_ADDRESS + 0x20, 0x10)]
FIXED, RELOCATABLE = 2, 3


def test_addresses_of_a_process_that_has_ended_are_looked_up_in_what_is_traced(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf(FUNCTIONS, kind=FIXED))
    symbols = ProcessSymbols(str(tmp_path), [str(tmp_path / "gone"), str(program)])
    assert symbols.find(7, TEXT_ADDRESS + 0x24) == UserSymbol("test", 4, str(program))
    assert symbols.find(7, TEXT_ADDRESS + 0x40) is None


def test_files_that_may_be_mapped_anywhere_say_nothing_of_such_addresses(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.write_bytes(elf(FUNCTIONS, kind=RELOCATABLE))
    assert ProcessSymbols(str(tmp_path), [str(library)]).find(7, TEXT_ADDRESS + 0x24) is None


def test_a_file_that_was_replaced_is_read_where_the_process_has_it_mapped(tmp_path: Path) -> None:
    program, old = tmp_path / "program", tmp_path / "proc/7/map_files/555500001000-555500002000"
    program.write_bytes(elf([("new", TEXT_ADDRESS, 0x40)]))
    old.parent.mkdir(parents=True)
    old.write_bytes(elf([("old", TEXT_ADDRESS, 0x40)]))
    line = f"555500001000-555500002000 r-xp {TEXT_OFFSET:08x} 08:01 9 {program} (deleted)\n"
    (tmp_path / "proc/7/maps").write_text(line)
    symbols = ProcessSymbols(str(tmp_path / "proc"))
    assert symbols.find(7, 0x555500001004) == UserSymbol("old", 4, str(program))


def test_a_file_that_was_replaced_has_no_names_where_it_cannot_be_opened(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf([("new", TEXT_ADDRESS, 0x40)]))
    (tmp_path / "7").mkdir()
    line = f"555500001000-555500002000 r-xp {TEXT_OFFSET:08x} 08:01 9 {program} (deleted)\n"
    (tmp_path / "7/maps").write_text(line)
    assert ProcessSymbols(str(tmp_path)).find(7, 0x555500001004) is None
