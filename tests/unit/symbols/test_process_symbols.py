# SPDX-License-Identifier: Apache-2.0
"""Names of addresses in processes."""

from __future__ import annotations

from pathlib import Path

from kcap.symbols.process import ProcessSymbols, UserSymbol
from unit.symbols.elf_maker import TEXT_ADDRESS, elf

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
