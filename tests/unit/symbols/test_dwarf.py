# SPDX-License-Identifier: Apache-2.0
"""Functions and types of programs from DWARF; a program is compiled for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from kcap import btf as b
from kcap.btf import render
from kcap.functions import registers
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes import user_args
from kcap.probes.registry import Resolver
from kcap.probes.system import System
from kcap.sema.kerneltypes import KernelTypes
from kcap.symbols.dwarf import function_btf, functions_below, line_addresses, types_btf
from kcap.symbols.elf import ElfFile

pytest.importorskip("elftools")
pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

PROGRAM = """\
#include <stdbool.h>
enum color { RED, GREEN = 5 };
typedef unsigned long word_t;
struct node { struct node *next; int value : 5; unsigned flag : 3; union { char c; long l; }; };
struct pair { long a, b; };
struct big { long a[4]; };
int first(int n, const char *text, struct node *node, enum color color, word_t word, bool yes,
          int seventh) { return n; }
long by_value(struct pair p, int after, struct big big, double d, int last) { return p.a; }
void nothing(void) {}
void callback(int (*f)(struct node *, ...), int matrix[2][3], volatile void *restrict p) {}
struct pair global;
int main(void) { return sizeof(global) * 0; }
"""


@pytest.fixture(scope="module", params=["-gdwarf-4", "-gdwarf-5"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program with debugging information."""
    return build(tmp_path_factory.mktemp("dwarf"), request.param)


def build(directory: Path, *options: str) -> str:
    source, made = directory / "p.c", directory / "p"
    source.write_text(PROGRAM)
    subprocess.run(["gcc", "-O0", "-w", *options, "-o", made, source], check=True)
    return str(made)


def address(path: str, name: str) -> int:
    symbol = ElfFile(path).function(name)
    assert symbol is not None
    return symbol.address


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "first",
            ["int n", "const char* text", "struct node* node", "enum color color", "word_t word",
             "_Bool yes", "int seventh"],
        ),
        ("by_value", ["struct pair p", "int after", "struct big big", "double d", "int last"]),
        ("nothing", []),
    ],
)  # fmt: skip
def test_parameters_are_listed(program: str, name: str, expected: list[str]) -> None:
    assert user_args.listing(program, name, address(program, name)) == expected


def places(found: user_args.UserArguments | None) -> dict[str, list[int | tuple[int, int]]]:
    """Where each argument is."""
    assert found is not None
    return {
        field.name: [
            found.places[n // 8] for n in range(field.offset, field.offset + field.slot, 8)
        ]
        for field in found.struct.all_fields()
    }


X86 = registers.current() is registers.X86_64
DI, SI, DX, CX, R8, R9, SP = (
    registers.X86_64.offsets[name] for name in ("di", "si", "dx", "cx", "r8", "r9", "sp")
)


@pytest.mark.skipif(not X86, reason="the registers are x86-64's")
def test_integers_are_in_registers_until_these_are_used_up(program: str) -> None:
    found = user_args.arguments(program, "first", address(program, "first"), KernelTypes())
    assert places(found) == {
        "n": [DI], "text": [SI], "node": [DX], "color": [CX], "word": [R8], "yes": [R9],
        "seventh": [(SP, 8)],
    }  # fmt: skip
    assert found is not None
    types = [str(field.type) for field in found.struct.all_fields()]
    assert types[:3] == ["int32", "int8 *", "struct node *"]


@pytest.mark.skipif(not X86, reason="the registers are x86-64's")
def test_structs_by_value_are_in_registers_or_on_the_stack(program: str) -> None:
    found = user_args.arguments(program, "by_value", address(program, "by_value"), KernelTypes())
    assert places(found) == {
        "p": [DI, SI], "after": [DX], "big": [(SP, 8 * n) for n in (1, 2, 3, 4)], "last": [CX],
    }  # fmt: skip


def test_structs_are_laid_out_as_the_compiler_did(program: str) -> None:
    btf = function_btf(program, address(program, "first"), "first")
    assert btf is not None
    node = btf.get("node", b.Struct)
    assert [(m.name, m.bit_offset, m.bitfield_size) for m in node.members] == [
        ("next", 0, 0),
        ("value", 64, 5),
        ("flag", 69, 3),
        ("", 128, 0),
    ]
    assert node.size == 24
    pointer = b.resolve(btf, node.members[0].type_id)
    assert isinstance(pointer, b.Ptr)
    assert b.resolve(btf, pointer.type_id) is node
    assert btf.get("color", b.Enum).values == (("RED", 0), ("GREEN", 5))


def test_function_pointers_and_arrays(program: str) -> None:
    btf = function_btf(program, address(program, "callback"), "callback")
    assert btf is not None
    proto = btf.prototype(btf.get("callback", b.Func))
    assert [render.type_name(btf, p.type_id) for p in proto.params] == [
        "int (*)(struct node *, ...)",
        "int (*)[3]",
        "volatile void *restrict",
    ]


def entry(tag: str, *children: SimpleNamespace, name: str = "") -> SimpleNamespace:
    """An entry as pyelftools has it."""
    return SimpleNamespace(tag=f"DW_TAG_{tag}", name=name, iter_children=lambda: iter(children))


def test_functions_are_found_in_namespaces_and_classes_where_clang_defines_them() -> None:
    method = entry("subprogram", name="a::b::C::m")
    inner = entry("namespace", entry("class_type", method), entry("subprogram", name="a::b::f"))
    unit = entry("compile_unit", entry("namespace", inner), entry("subprogram", name="main"))
    found = [function.name for function in functions_below(unit)]
    assert found == ["a::b::C::m", "a::b::f", "main"]


def test_all_named_types_are_there_for_casts(program: str) -> None:
    btf = types_btf(program)
    assert btf is not None
    assert {"node", "pair", "big"} <= set(btf.names(b.Struct))
    assert btf.get("pair", b.Struct).size == 16


def test_without_debugging_information_there_is_nothing(tmp_path: Path) -> None:
    program = build(tmp_path, "-g0")
    assert function_btf(program, address(program, "first")) is None
    assert types_btf(program) is None
    assert user_args.arguments(program, "first", address(program, "first"), KernelTypes()) is None


def test_an_address_in_the_middle_is_no_function(program: str) -> None:
    assert function_btf(program, address(program, "first") + 1) is None


@pytest.mark.parametrize("file", ["p.c", "./p.c"])
def test_a_line_with_the_head_of_a_function_is_its_address(program: str, file: str) -> None:
    lines = PROGRAM.splitlines()
    line = lines.index("void nothing(void) {}") + 1
    assert line_addresses(program, file, line)[0] == address(program, "nothing")


def test_lines_without_code_and_other_files_have_no_address(program: str) -> None:
    assert line_addresses(program, "p.c", 2) == []
    assert line_addresses(program, "q.c", 9) == []
    assert line_addresses(program, "dwarf/other/p.c", 9) == []


def test_uprobes_attach_to_source_lines(program: str) -> None:
    line = PROGRAM.splitlines().index("void nothing(void) {}") + 1
    text = f"uprobe:{program}@p.c:{line} {{ }}"
    (probe,) = parse(Source("stdin", text)).probes
    (context,) = Resolver(System()).resolve(probe.attach_points[0], set())
    assert context.name == f"uprobe:{program}@p.c:{line}"
    place = ElfFile(program).file_offset(address(program, "nothing"))
    assert [(t.function, t.offset) for t in context.targets] == [("nothing", place)]
