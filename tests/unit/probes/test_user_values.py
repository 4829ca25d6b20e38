# SPDX-License-Identifier: Apache-2.0
"""``args`` of functions of programs by value, with registers and a stack as the ABI has them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from struct import pack

import pytest

from kcap.functions import registers
from kcap.probes.registry import Resolver
from kcap.probes.system import System
from support.bpf_machine import Memory
from unit.codegen.script_machine import run
from unit.probes.frozen_machine import point

pytest.importorskip("elftools")
pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
    pytest.mark.skipif(registers.current() is not registers.X86_64, reason="x86-64's ABI"),
]

PROGRAM = """\
struct one { int a; char b; };
struct two { long x; unsigned char y[5]; short z; };
struct mixed { double d; long n; };
struct floats { float f[4]; };
struct big { long n[3]; char name[8]; struct big *next; };
struct holder { struct two inner; };
int by_value(struct one one, struct two two, int after, struct mixed m, double d, struct big big,
             int last, struct two spilled, char c) { return 0; }
int wide(__int128 w, struct floats f, struct holder h, int n) { return 0; }
int many(long a, long b, long c, long d, long e, __int128 w, long f, long g, long double x,
         __int128 v, long last) { return 0; }
int main(void) { return 0; }
"""
STACK, ELSEWHERE = 0x7FFC_0000_1000, 0x5555_0000_0000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("values")
    (directory / "p.c").write_text(PROGRAM)
    made = directory / "p"
    subprocess.run(["gcc", "-O0", "-w", "-g", "-o", made, directory / "p.c"], check=True)
    return made


def printed(program: Path, function: str, block: str, values: list[int], stack: bytes) -> str:
    """What a block prints at a function's entry.

    :param values: those of the registers of arguments.
    :param stack: what is on top of the stack, the return address first.
    """
    known = registers.current()
    slots = [0] * (max(known.offsets.values()) // 8 + 1)
    for name, value in zip((*known.arguments, known.sp), (*values, STACK), strict=True):
        slots[known.offsets[name] // 8] = value
    text = f"uprobe:{program}:{function}"
    (context,) = Resolver(System()).resolve(point(text), {"args"})
    memory = Memory()
    memory.add(STACK, stack)
    memory.add(ELSEWHERE, pack("<qqq8sQ", 1, 2, 3, b"behind", 0))
    return run(f"{text} {{ {block} }}", context=context, slots=slots, memory=memory).text


def test_a_struct_by_value_is_read_where_the_caller_put_it(program: Path) -> None:
    one = int.from_bytes(pack("<ic", -7, b"q"), "little")
    two = pack("<q5sxh", 1 << 40, bytes([1, 2, 3, 4, 5]), -9)
    first, second = int.from_bytes(two[:8], "little"), int.from_bytes(two[8:], "little")
    big = pack("<qqq8sQ", 10, 20, 30, b"bigname", ELSEWHERE)
    stack = pack("<Q", 0xBAD) + big + two + pack("<q", ord("z"))
    block = """
        printf("%d %c|%lld %d %d|%d\\n", args.one.a, args.one.b, args.two.x, args.two.y[3],
          args.two.z, args.after);
        printf("%lld %s %s|%d|%lld %d|%c\\n", args.big.n[2], args.big.name, args.big.next->name,
          args.last, args.spilled.x, args.spilled.y[4], args.c);
        $copy = args.two; printf("%d\\n", $copy.z);
    """
    # struct mixed takes a register of each kind, and is left out.
    text = printed(program, "by_value", block, [one, first, second, 4242, 77, 99], stack)
    assert text == "-7 q|1099511627776 4 -9|4242\n30 bigname behind|99|1099511627776 5|z\n-9\n"


def test_numbers_of_two_registers_and_structs_in_structs(program: Path) -> None:
    two = pack("<q5sxh", 11, bytes(5), 22)
    halves = [int.from_bytes(two[at : at + 8], "little") for at in (0, 8)]
    block = """printf("%llu %llu|%d|%d\\n", args.w[0], args.w[1], args.h.inner.z, args.n);"""
    assert printed(program, "wide", block, [4, 3, *halves, 5, 0], bytes(8)) == "4 3|22|5\n"


def test_all_arguments_can_be_kept_and_printed(program: Path) -> None:
    two = pack("<q5sxh", 11, bytes(5), 22)
    halves = [int.from_bytes(two[at : at + 8], "little") for at in (0, 8)]
    block = """print(args); $all = args; printf("%d %d\\n", $all.n, $all.h.inner.z);
        @[args.h.inner] = 1; print((args.n, args.h.inner.x)); print(@);"""
    inner = "{ .x = 11, .y = [0,0,0,0,0], .z = 22 }"
    text = printed(program, "wide", block, [4, 3, *halves, 5, 0], bytes(8))
    printed_args = f"{{ .w = [4,3], .h = {{ .inner = {inner} }}, .n = 5 }}"
    assert text == f"{printed_args}\n5 22\n(5, 11)\n@[{inner}]: 1\n"


def test_what_is_aligned_to_sixteen_bytes_leaves_gaps_on_the_stack(program: Path) -> None:
    # w finds one register left and leaves it to f; the words behind g and in x say nothing.
    stack = pack("<11Q", 0xBAD, 11, 12, 7, 0xBAD, 0xBAD, 0xBAD, 21, 22, 99, 0xBAD)
    block = """printf("%llu %llu|%d %d|%llu %llu|%d\\n", args.w[0], args.w[1], args.f, args.g,
        args.v[0], args.v[1], args.last);"""
    text = printed(program, "many", block, [1, 2, 3, 4, 5, 6], stack)
    assert text == "11 12|6 7|21 22|99\n"
