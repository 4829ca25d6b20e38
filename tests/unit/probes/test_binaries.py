# SPDX-License-Identifier: Apache-2.0
"""uprobe, uretprobe and usdt on small ELF files made by hand; libraries of the linker's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from struct import pack
from types import SimpleNamespace
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from kcap.kernel import features, uapi
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.probes.binaries import parse_ld_cache
from kcap.probes.demangle import matches_demangled
from kcap.probes.registry import Resolver, probe_type
from kcap.probes.system import System
from kcap.symbols.demangle import demangled
from kcap.symbols.elf import ElfFile
from unit.probes.frozen_machine import point
from unit.symbols.elf_maker import TEXT_ADDRESS, TEXT_OFFSET, elf, note

FUNCTIONS = [
    ("first", TEXT_ADDRESS + 0x10, 0x20),
    ("second", TEXT_ADDRESS + 0x30, 0x10),
    ("also_second", TEXT_ADDRESS + 0x30, 0x10),
    ("no_size", TEXT_ADDRESS + 0x80, 0),
    ("_ZN2ns1fEi", TEXT_ADDRESS + 0x90, 8),
    ("_ZN2ns1gEv", TEXT_ADDRESS + 0xA0, 8),
]
BASE = 0x402000


def probe_note(name: str, place: int, arguments: str, semaphore: int = 0) -> bytes:
    return note("app", name, arguments, TEXT_ADDRESS + place, BASE, semaphore)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program with functions and USDT probes."""
    notes = (
        probe_note("start", 0x10, "-4@%edi 8@%rsi")
        + probe_note("start", 0x14, "-4@%edx 8@%rsi")
        + probe_note("stop", 0x30, "8@$5", TEXT_ADDRESS + 0x200)
    )
    path = tmp_path_factory.mktemp("bin") / "program"
    path.write_bytes(elf(FUNCTIONS, notes, BASE))
    return str(path)


def refused(text: str, **options: Any) -> Diagnostic:
    with pytest.raises(ScriptError) as caught:
        Resolver(System(**options)).resolve(point(text), set())
    return caught.value.errors[0]


def resolved(text: str, *uses: str, **options: Any) -> list[Any]:
    return Resolver(System(**options)).resolve(point(text), set(uses))


def places(context: Any) -> list[tuple[str, int]]:
    return [(t.function, t.offset - TEXT_OFFSET) for t in context.targets]


def test_uprobe_is_placed_by_file_offset(program: str) -> None:
    (context,) = resolved(f"u:{program}:first")
    assert context.name == f"uprobe:{program}:first"
    assert places(context) == [("first", 0x10)]
    assert (context.program_type, context.arguments) == (uapi.BPF_PROG_TYPE_KPROBE, "registers")
    assert (context.space, context.function) == ("user", "first")
    (context,) = resolved(f"ur:{program}:first")
    assert (str(context.retval), context.arguments) == ("uint64", "none")


def test_a_wildcard_takes_each_place_once(program: str) -> None:
    (context,) = resolved(f"uprobe:{program}:*")
    assert [place for _, place in places(context)] == sorted(
        {address - TEXT_ADDRESS for _, address, _ in FUNCTIONS},
        key=lambda place: [p for _, p in places(context)].index(place),
    )
    assert len(context.targets) == 5
    names = [c.name for c in resolved(f"uprobe:{program}:*s*t*", "probe")]
    assert names == [f"uprobe:{program}:first"]


def test_a_wildcard_path_takes_all_elf_files(program: str) -> None:
    directory = os.path.dirname(program)
    Path(directory, "other").write_bytes(elf([("first", TEXT_ADDRESS + 8, 4)]))
    Path(directory, "text").write_text("no program")
    (context,) = resolved(f"uprobe:{directory}/*:first")
    assert [t.binary.name for t in context.targets] == [f"{directory}/other", program]


@pytest.fixture
def archive(program: str, tmp_path: Path) -> str:
    """An archive with the program, stored and compressed."""
    with ZipFile(tmp_path / "a.apk", "w") as made:
        made.write(program, "lib/p.so")
        made.write(program, "lib/small.so", ZIP_DEFLATED)
    return str(tmp_path / "a.apk")


def test_a_file_in_an_archive_is_placed_by_the_offset_in_the_archive(
    program: str, archive: str
) -> None:
    start = Path(archive).read_bytes().index(b"\x7fELF")
    (context,) = resolved(f'uprobe:"{archive}!/lib/p.so":first')
    assert context.name == f"uprobe:{archive}!/lib/p.so:first"
    assert places(context) == [("first", start + 0x10)]
    (context,) = resolved(f'uprobe:"{archive}!/lib/p.so":{TEXT_ADDRESS + 0x30:#x}', unsafe=True)
    assert places(context) == [("second", start + 0x30)]
    (context,) = resolved(f'usdt:"{archive}!/lib/p.so":stop')
    assert context.targets[0].places == ((start + TEXT_OFFSET + 0x30, start + TEXT_OFFSET + 0x200),)


def test_a_file_that_cannot_be_mapped_from_an_archive_is_refused(archive: str) -> None:
    named = refused(f'uprobe:"{archive}!/lib/small.so":first').label
    assert named == f"lib/small.so is compressed in {archive}: it can't be mapped"
    named = refused(f'uprobe:"{archive}!/lib/q.so":first').label
    assert named == f"the archive {archive} has no lib/q.so, but lib/p.so"
    named = refused(f'uprobe:"{__file__}!/lib/q.so":first').label
    assert named == f"{__file__} is no ZIP archive, or a damaged one: File is not a zip file"
    data = bytearray(Path(archive).read_bytes())
    at = data.index(b"PK\1\2") + 42  # where the central directory says that lib/p.so is
    data[at : at + 4] = len(data).to_bytes(4, "little")
    Path(archive).write_bytes(data)
    named = refused(f'uprobe:"{archive}!/lib/p.so":first').label
    assert named.startswith(f"{archive} is no ZIP archive, or a damaged one: ")
    assert "does not exist" in refused('uprobe:"/nowhere.apk!/lib/q.so":first').label


def test_a_path_with_an_exclamation_mark_may_be_a_file_s_own(program: str, tmp_path: Path) -> None:
    (tmp_path / "odd!").mkdir()
    shutil.copy(program, tmp_path / "odd!" / "program")
    (context,) = resolved(f'uprobe:"{tmp_path}/odd!/program":first')
    assert places(context) == [("first", 0x10)]


def test_addresses_are_virtual_and_in_a_function(program: str) -> None:
    (context,) = resolved(f"uprobe:{program}:{TEXT_ADDRESS + 0x30:#x}")
    assert places(context) == [("second", 0x30)]
    error = refused(f"uprobe:{program}:10")
    assert error.title == f"Could not resolve address: {program}:0xa"


def test_files_of_bare_instructions_are_probed_by_the_place_in_them(tmp_path: Path) -> None:
    (tmp_path / "flat").write_bytes(b"\x55\xc3")
    (context,) = resolved(f"uprobe:{tmp_path}/flat:0x1", unsafe=True)
    assert [(t.function, t.offset) for t in context.targets] == [("", 1)]
    assert "is no ELF file" in refused(f"uprobe:{tmp_path}/flat:0x1").label


def test_offsets_that_may_be_inside_an_instruction_need_unsafe(program: str) -> None:
    error = refused(f"uprobe:{program}:first+4")
    assert error.title == "can't tell whether an instruction begins at first+4"
    (context,) = resolved(f"uprobe:{program}:first+4", unsafe=True)
    assert places(context) == [("first", 0x14)]
    (context,) = resolved(f'uprobe:{program}:"first"+0')
    assert places(context) == [("first", 0x10)]


@pytest.mark.parametrize(
    ("rest", "title"),
    [
        ("first+1000000", "Offset outside the function bounds ('first' size is 32)"),
        ("no_size", "Could not determine boundary for no_size (symbol has size 0)."),
    ],
)
def test_what_is_outside_of_functions_is_refused(program: str, rest: str, title: str) -> None:
    assert refused(f"uprobe:{program}:{rest}").title == title


def test_unknown_functions_and_files_are_corrected(program: str) -> None:
    error = refused(f"uprobe:{program}:secnd")
    assert error.title == f"No matches for uprobe {program}:secnd."
    assert error.help == ("did you mean second?",)
    error = refused(f"uprobe:{program}x:first")
    assert error.label == f"target file '{program}x' does not exist"
    assert error.help == (f"did you mean {program}?",)
    assert refused("uprobe:/etc/passwd:first").label == "/etc/passwd is no ELF file"


def test_a_missing_function_is_an_error_and_an_unmatched_wildcard_is_not(program: str) -> None:
    assert resolved(f"uprobe:{program}:nothing*") == []


def test_cpp_names_are_matched_demangled(program: str) -> None:
    if demangled("_ZN2ns1fEi") != "ns::f(int)":
        pytest.skip("no C++ runtime library on this machine")
    (context,) = resolved(f'uprobe:{program}:cpp:"ns::f"')
    assert places(context) == [("_ZN2ns1fEi", 0x90)]
    (context,) = resolved(f'uprobe:{program}:cpp:"ns::*"')
    assert len(context.targets) == 2


def test_overloads_are_told_apart_by_parameters() -> None:
    assert matches_demangled("ns::f", "ns::f(int)")
    assert matches_demangled("ns::f(int)", "ns::f(int)")
    assert not matches_demangled("ns::f(char)", "ns::f(int)")


def test_uprobe_lists(program: str) -> None:
    listed = list(probe_type("uprobe").names([program, "*second"], System()))
    assert listed == [f"uprobe:{program}:also_second", f"uprobe:{program}:second"]
    assert list(probe_type("uprobe").names([], System())) == []


def test_usdt_places_with_equal_operands_share_a_program(program: str) -> None:
    (context,) = resolved(f"usdt:{program}:start")
    assert context.name == f"usdt:{program}:app:start"
    (target,) = context.targets
    assert [offset - TEXT_OFFSET for offset, _ in target.places] == [0x10, 0x14]
    split = resolved(f"usdt:{program}:app:start", "arg0")
    assert [c.extra["usdt_arguments"][0].register for c in split] == ["rdi", "rdx"]
    assert [len(c.targets[0].places) for c in split] == [1, 1]


def test_usdt_semaphores_are_file_offsets(program: str) -> None:
    (context,) = resolved(f"U:{program}::stop")
    assert context.targets[0].places == ((TEXT_OFFSET + 0x30, TEXT_OFFSET + 0x200),)
    assert context.extra["usdt_arguments"][0].constant == 5


def test_one_program_tells_the_usdt_probes_of_a_wildcard_apart(program: str) -> None:
    (context,) = resolved(f"usdt:{program}:*")
    assert len(context.targets) == 2
    assert "target_names" not in context.extra
    (context,) = resolved(f"usdt:{program}:app:st*", "probe")
    names = [f"usdt:{program}:app:start", f"usdt:{program}:app:stop"]
    assert context.extra["target_names"] == names
    split = resolved(f"usdt:{program}:app:st*", "probe", "comptime")
    assert [c.name for c in split] == names


WITH_VARIABLES = r"""
static int table[4] = {1, 2, 3, 4};
int counter = 5;
#define PROBE(operands) __asm__ volatile ( \
    "990: nop\n.pushsection .note.stapsdt,\"?\",\"note\"\n.balign 4\n" \
    ".4byte 992f-991f, 994f-993f, 3\n991: .asciz \"stapsdt\"\n992: .balign 4\n" \
    "993: .8byte 990b, _.stapsdt.base, 0\n.asciz \"app\"\n.asciz \"hit\"\n" \
    ".asciz \"" operands "\"\n994: .balign 4\n.popsection\n" \
    ".ifndef _.stapsdt.base\n" \
    ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n" \
    ".weak _.stapsdt.base\n.hidden _.stapsdt.base\n_.stapsdt.base: .space 1\n" \
    ".size _.stapsdt.base, 1\n.popsection\n.endif\n" :: "m"(table), "m"(counter))
int main(void) {
  PROBE("-4@table+8(%%rip) -4@counter(%%rip)");
  PROBE("-4@table+8(%%rip) -4@counter(%%rip)");
  return table[1] + counter;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_operands_in_variables_are_found_from_each_place_of_the_probe(tmp_path: Path) -> None:
    (tmp_path / "p.c").write_text(WITH_VARIABLES)
    path = tmp_path / "p"
    subprocess.run(["gcc", "-O1", "-o", path, tmp_path / "p.c"], check=True)
    file = ElfFile(str(path))
    table, counter = file.variable("table"), file.variable("counter")
    assert table is not None
    assert counter is not None
    contexts = resolved(f"usdt:{path}:hit", "arg0", "arg1")
    assert len(contexts) == 2
    for context in contexts:
        ((offset, _),) = context.targets[0].places
        here = file.address_of(offset)
        assert here is not None
        first, second = context.extra["usdt_arguments"]
        assert here + first.displacement == table.address + 8
        assert here + second.displacement == counter.address
    assert len(resolved(f"usdt:{path}:hit")) == 1


def test_one_program_tells_the_uprobes_of_a_wildcard_apart(program: str) -> None:
    (context,) = resolved(f"uprobe:{program}:_ZN2*", "probe")
    assert context.name == f"uprobe:{program}:_ZN2*"
    names = [f"uprobe:{program}:_ZN2ns1fEi", f"uprobe:{program}:_ZN2ns1gEv"]
    assert context.extra["target_names"] == names
    assert context.extra["target_index"] in ("cookie", "load")
    split = resolved(f"uprobe:{program}:_ZN2*", "probe", "comptime")
    assert [c.name for c in split] == names
    (one,) = resolved(f"uprobe:{program}:_ZN2ns1f*", "probe")
    assert (one.name, "target_names" in one.extra) == (names[0], False)


def test_links_for_many_places_of_a_process_wait_for_kernels_that_see_its_threads(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (context,) = resolved(f"uprobe:{program}:_ZN2*")

    def attach_type(release: str, pid: int | None) -> int:
        monkeypatch.setattr(features, "uprobe_multi", lambda: True)
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
        (load,) = probe_type("uprobe").load_specs(context, System(pid=pid))
        return load.expected_attach_type

    assert attach_type("6.9.12-amd64", None) == uapi.BPF_TRACE_UPROBE_MULTI
    assert attach_type("6.9.12-amd64", 1) == 0
    assert attach_type("6.10-rc3", 1) == uapi.BPF_TRACE_UPROBE_MULTI


def test_an_unknown_usdt_probe_is_corrected(program: str) -> None:
    error = refused(f"usdt:{program}:app:strat")
    assert error.title == f"No matches for usdt {program}:app:strat."
    assert error.help == ("did you mean start?",)


def test_usdt_lists(program: str) -> None:
    assert list(probe_type("usdt").names([program, "*"], System())) == [
        f"usdt:{program}:app:start",
        f"usdt:{program}:app:stop",
    ]
    assert list(probe_type("usdt").names([program, "other", "*"], System())) == []


def ld_cache(entries: list[tuple[int, str, str]]) -> bytes:
    """A cache with (flags, soname, path), behind one of the older format."""
    strings, rows = b"", b""
    start = 48 + 24 * len(entries)
    for flags, soname, path in entries:
        key = start + len(strings)
        strings += soname.encode() + b"\0"
        value = start + len(strings)
        strings += path.encode() + b"\0"
        rows += pack("<iIIIQ", flags, key, value, 0, 0)
    header = pack(
        "<20sIIBxxxIIII", b"glibc-ld.so.cache1.1", len(entries), len(strings), 2, 0, 0, 0, 0
    )
    assert len(header) == 48
    return b"ld.so-1.7.0\0" + bytes(4) + header + rows + strings


def test_the_linker_s_cache_gives_libraries_of_this_architecture() -> None:
    data = ld_cache(
        [
            (0x0303, "libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6"),
            (0x0003, "libc.so.6", "/lib/i386-linux-gnu/libc.so.6"),
            (0x0303, "libm.so.6", "/lib/x86_64-linux-gnu/libm.so.6"),
        ]
    )
    assert parse_ld_cache(data, "x86_64") == (
        ("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6"),
        ("libm.so.6", "/lib/x86_64-linux-gnu/libm.so.6"),
    )
    assert parse_ld_cache(b"nothing", "x86_64") == ()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_an_error_says_that_a_file_is_stripped(tmp_path: Path) -> None:
    (tmp_path / "l.c").write_text("static int hidden(void) { return 1; }\nint seen(void)"
                                  " { return hidden(); }\n")  # fmt: skip
    command = ["gcc", "-O0", "-shared", "-s", "-o", str(tmp_path / "l.so"), str(tmp_path / "l.c")]
    subprocess.run(command, check=True)
    assert resolved(f"uprobe:{tmp_path}/l.so:seen")[0].function == "seen"
    error = refused(f"uprobe:{tmp_path}/l.so:hidden")
    assert error.title == f"No matches for uprobe {tmp_path}/l.so:hidden."
    assert error.label == "no such function in the file"
    assert error.notes == ("the file is stripped: only its exported functions have names",)
