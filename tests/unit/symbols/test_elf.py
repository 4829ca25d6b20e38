# SPDX-License-Identifier: Apache-2.0
"""Functions, offsets and USDT probes of small executables."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kcap.errors import FileError
from kcap.symbols.elf import ElfFile, ElfSymbol
from kcap.symbols.process import Mapping, ProcessSymbols, UserSymbol, parse_maps
from kcap.symbols.usdt import (
    Argument,
    UsdtProbe,
    parse_arguments,
    place_argument,
    read_probes,
)
from unit.symbols.elf_maker import TEXT_ADDRESS, TEXT_OFFSET, elf, note

FUNCTIONS = [
    ("main", TEXT_ADDRESS + 0x100, 0x40),
    ("readline", TEXT_ADDRESS + 0x200, 0x20),
    ("readline_alias@@V1", TEXT_ADDRESS + 0x200, 0x10),
    ("_start", TEXT_ADDRESS, 0),
]


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "program"
    path.write_bytes(elf(FUNCTIONS))
    return str(path)


def test_functions_are_listed_by_address_without_versions(program: str) -> None:
    assert [(f.name, f.size) for f in ElfFile(program).functions] == [
        ("_start", 0),
        ("main", 0x40),
        ("readline", 0x20),
        ("readline_alias", 0x10),
    ]


def test_a_function_has_its_place_in_the_file(program: str) -> None:
    file = ElfFile(program)
    main = file.function("main")
    assert main == ElfSymbol("main", TEXT_ADDRESS + 0x100, 0x40)
    assert file.file_offset(main.address) == TEXT_OFFSET + 0x100
    assert file.address_of(TEXT_OFFSET + 0x100) == main.address
    assert file.function("undefined") is None
    assert file.file_offset(0x10) is None


@pytest.mark.parametrize(
    ("offset", "name"),
    [
        (0x100, "main"),
        (0x13F, "main"),
        (0x140, None),
        (0x205, "readline"),
        (0x220, None),
        (0x50, "_start"),
    ],
)
def test_an_address_lies_in_a_function(program: str, offset: int, name: str | None) -> None:
    found = ElfFile(program).function_at(TEXT_ADDRESS + offset)
    assert (found.name if found else None) == name


def test_a_function_without_a_size_ends_with_its_segment(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(elf([("_fini", TEXT_ADDRESS + 0x20, 0)]))
    file = ElfFile(str(path))
    assert file.function_at(TEXT_ADDRESS + 0x30) == ElfSymbol("_fini", TEXT_ADDRESS + 0x20, 0)
    assert file.function_at(0x7FFF_F7E0_724A) is None


def test_an_address_below_all_functions_has_none(program: str) -> None:
    assert ElfFile(program).function_at(TEXT_ADDRESS - 1) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't read .*: it is empty"),
        (b"#!/bin/sh\n", "is no ELF file"),
        (b"\x7fELF\x01\x01" + bytes(60), "is a 32-bit or big-endian ELF file"),
        (b"\x7fELF\x02\x01" + bytes(10), "is a damaged ELF file"),
        (elf(FUNCTIONS)[:2000], "is a damaged ELF file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(FileError, match=message):
        ElfFile(str(path))


def test_a_damaged_symbol_table_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(elf(FUNCTIONS, strtab_size=5))
    with pytest.raises(FileError, match="is a damaged ELF file"):
        _ = ElfFile(str(path)).functions


def test_usdt_probes_follow_their_base_when_it_moved(tmp_path: Path) -> None:
    notes = note("python", "gc__start", "-4@%edi", TEXT_ADDRESS + 0x10, 0x5000, 0)
    notes += note("app", "request", "8@-16(%rbp) 4@$5", TEXT_ADDRESS + 0x20, 0x5000, TEXT_ADDRESS)
    path = tmp_path / "file"
    path.write_bytes(elf(FUNCTIONS, notes, base=0x5100))
    assert read_probes(ElfFile(str(path))) == [
        UsdtProbe("python", "gc__start", TEXT_OFFSET + 0x110, 0, "-4@%edi"),
        UsdtProbe("app", "request", TEXT_OFFSET + 0x120, TEXT_OFFSET + 0x100, "8@-16(%rbp) 4@$5"),
    ]


def test_a_file_without_notes_has_no_usdt_probes(program: str) -> None:
    assert read_probes(ElfFile(program)) == []


def test_damaged_notes_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(elf(FUNCTIONS, note("a", "b", "", TEXT_ADDRESS, 0, 0)[:40]))
    with pytest.raises(FileError, match="damaged USDT notes"):
        read_probes(ElfFile(str(path)))


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("-4@%edi", Argument(4, True, register="rdi")),
        ("8@%rax", Argument(8, False, register="rax")),
        ("1@%sil", Argument(1, False, register="rsi")),
        ("1@%ah", Argument(1, False, register="rax", shift=8)),
        ("1@%bl", Argument(1, False, register="rbx")),
        ("2@%dx", Argument(2, False, register="rdx")),
        ("4@%r10d", Argument(4, False, register="r10")),
        ("8@%r8", Argument(8, False, register="r8")),
        ("1@%r15b", Argument(1, False, register="r15")),
        ("4@$5", Argument(4, False, 5)),
        ("-4@$-1", Argument(4, True, -1)),
        ("8@-16(%rbp)", Argument(8, False, None, "rbp", True, -16)),
        ("8@(%rsp)", Argument(8, False, None, "rsp", True)),
        ("8@8(%rax,%rbx,4)", Argument(8, False, None, "rax", True, 8, "rbx", 4)),
        ("8f@%rax", Argument(8, False, register="rax")),
        ("8@%fs:0", Argument(8, False, memory=True, of_thread=True)),
        ("-4@%fs:-8(%rax)", Argument(4, True, None, "rax", True, -8, of_thread=True)),
    ],
)
def test_operands_of_the_assembler(text: str, argument: Argument) -> None:
    assert parse_arguments(text) == [argument]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "operand x: of an unknown form"),
        ("4@1(%rax", "operand 4@1(%rax: of an unknown form"),
        ("4@a+b(%rip)", "operand 4@a+b(%rip): of an unknown form"),
        ("4@1-a(%rip)", "operand 4@1-a(%rip): of an unknown form"),
        ("16@%rax", "operand 16@%rax: it has 16 bytes"),
        ("8@$table", "operand 8@$table: the address of a symbol"),
        ("8f@%xmm0", "operand 8f@%xmm0: uprobes do not see the register %xmm0"),
        ("4@%fs:x", "operand 4@%fs:x: of an unknown form"),
        ("4@%gs:8", "operand 4@%gs:8: uprobes do not see the register %gs:8"),
    ],
)
def test_an_operand_that_cant_be_read_says_why(text: str, why: str) -> None:
    first, second = parse_arguments(f"{text} 8@%rax")
    assert first.unreadable == why
    assert second == Argument(8, False, register="rax")


def test_a_variable_is_found_from_where_the_probe_is() -> None:
    argument, bare = parse_arguments("-4@table+8(%rip) 8@4+table(,%rax,8)")
    assert (argument.symbol, argument.displacement, argument.register) == ("table", 8, "rip")
    placed = place_argument(argument, 0x4010, 0x1234, fixed=False)
    assert (placed.symbol, placed.displacement) == ("", 0x4010 + 8 - 0x1234)
    assert place_argument(bare, 0x404000, 0x401000, fixed=True).displacement == 0x404004
    assert "wherever the file is" in place_argument(bare, 0x4000, 0x1000, fixed=False).unreadable
    assert "does not say where table is" in place_argument(bare, None, 0, fixed=True).unreadable


def test_a_variable_of_a_thread_is_found_from_the_thread_pointer() -> None:
    (argument,) = parse_arguments("-4@%fs:own@tpoff+4")
    assert (argument.symbol, argument.of_thread) == ("own", True)
    placed = place_argument(argument, -16, 0x1234, fixed=False)
    assert (placed.symbol, placed.displacement) == ("", -12)
    assert "does not say where own is" in place_argument(argument, None, 0, fixed=True).unreadable


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_program_has_the_variables_of_a_thread_in_front_of_the_thread_pointer(
    tmp_path: Path,
) -> None:
    source, made = tmp_path / "p.c", tmp_path / "p"
    source.write_text("__thread int one = 1; __thread long two = 2; void _start(void) {}")
    subprocess.run(["gcc", "-nostdlib", "-static", "-o", made, source], check=True)
    elf = ElfFile(str(made))
    found = {name: elf.thread_variable(name) for name in ("one", "two", "three")}
    assert found == {"one": -16, "two": -8, "three": None}


MAPS = """00400000-00401000 r--p 00000000 08:01 12 /usr/bin/pro gram
00401000-00402000 r-xp 00001000 08:01 12 /usr/bin/pro gram (deleted)
7f0000000000-7f0000001000 r-xp 00000000 00:00 0
7ffff0000000-7ffff0002000 r-xp 00000000 00:00 0 [vdso]
"""


def test_executable_file_mappings_are_read() -> None:
    assert parse_maps(MAPS) == [
        Mapping(0x401000, 0x402000, 0x1000, "/usr/bin/pro gram", deleted=True)
    ]


def test_an_address_in_a_process_has_a_name(tmp_path: Path, program: str) -> None:
    (tmp_path / "77").mkdir()
    line = f"555500001000-555500002000 r-xp 00001000 08:01 9 {program}\n"
    (tmp_path / "77/maps").write_text(line)
    symbols = ProcessSymbols(str(tmp_path))
    assert symbols.find(77, 0x555500001104) == UserSymbol("main", 4, program)
    assert symbols.find(77, 0x555500001180) is None
    assert symbols.find(77, 0x1000) is None
    assert symbols.find(78, 0x555500001104) is None
    (tmp_path / "77/maps").unlink()  # the process ends: what was read stays
    assert symbols.find(77, 0x555500001100) == UserSymbol("main", 0, program)
