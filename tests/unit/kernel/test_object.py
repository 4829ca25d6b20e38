# SPDX-License-Identifier: Apache-2.0
"""Reading and linking objects that LLVM just emitted."""

from __future__ import annotations

from struct import unpack_from

import pytest

from kcap.kernel.errors import ObjectError
from kcap.kernel.object import BpfObject
from kcap.kernel.programs import relocate
from kcap.kernel.spec import FunctionSpec, ProgramSpec, Relocation

IR = r"""
target triple = "bpfel"
@m1 = external global i64, section ".maps"
@m2 = global i64 0, section ".maps"
@counter = global i64 5, section ".data.x"
@second = global i64 6, section ".data.x"
@.str = private constant [4 x i8] c"abc\00", section ".rodata"
define internal i64 @unused_by_2(ptr %map, ptr %key, ptr %val, ptr %ctx) noinline {
  %v = load i64, ptr %val
  %h = call i64 inttoptr (i64 5 to ptr)()
  %r = and i64 %h, %v
  %s = call i64 @leaf(i64 %r)
  %q = and i64 %s, 1
  ret i64 %q
}
define internal i64 @sub(i64 %x) noinline {
  %h = call i64 inttoptr (i64 5 to ptr)()
  %r = xor i64 %h, %x
  %c = call i64 @leaf(i64 %r)
  ret i64 %c
}
define internal i64 @leaf(i64 %x) noinline {
  %h = call i64 inttoptr (i64 8 to ptr)()
  %r = xor i64 %h, %x
  ret i64 %r
}
define i64 @probe_1(ptr %ctx) section "kprobe/x" {
  %a = call i64 inttoptr (i64 164 to ptr)(ptr @m1, ptr @unused_by_2, ptr %ctx, i64 0)
  %b = call i64 @sub(i64 %a)
  %c = load i64, ptr @second
  %d = add i64 %b, %c
  store i64 %d, ptr @counter
  %e = call i64 inttoptr (i64 6 to ptr)(ptr @.str, i64 4)
  ret i64 0
}
define i64 @probe_2(ptr %ctx) section "kprobe/y" {
  %a = call i64 inttoptr (i64 1 to ptr)(ptr @m2, ptr %ctx)
  %b = call i64 @sub(i64 1)
  ret i64 %b
}
"""


def compile_ir(text: str) -> bytes:
    """Compile IR for BPF as the code generator does."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(text)
    target = llvm.Target.from_triple("bpfel").create_target_machine(cpu="v3", opt=2)
    emitted: bytes = target.emit_object(module)
    return emitted


@pytest.fixture(scope="module")
def emitted() -> bytes:
    return compile_ir(IR)


def relative(insns: bytes, insn: int) -> int:
    """The instruction a relative reference at an instruction leads to."""
    target: int = unpack_from("<i", insns, insn * 8 + 4)[0]
    return insn + 1 + target


def test_programs_are_the_global_functions_with_their_sections(emitted: bytes) -> None:
    programs = BpfObject(emitted).programs()
    assert [(p.name, p.section) for p in programs] == [
        ("probe_1", "kprobe/x"),
        ("probe_2", "kprobe/y"),
    ]


def test_only_functions_that_a_program_reaches_are_linked_behind_it(emitted: bytes) -> None:
    first, second = BpfObject(emitted).programs()
    assert [f.name for f in first.functions] == ["probe_1", "unused_by_2", "sub", "leaf"]
    assert [f.name for f in second.functions] == ["probe_2", "sub", "leaf"]
    assert first.functions[0] == FunctionSpec("probe_1", 0)


def test_calls_lead_to_where_the_functions_were_put(emitted: bytes) -> None:
    for program in BpfObject(emitted).programs():
        starts = {f.insn for f in program.functions}
        calls = [
            i
            for i in range(len(program.insns) // 8)
            if program.insns[i * 8] == 0x85 and program.insns[i * 8 + 1] == 0x10
        ]
        assert calls
        assert {relative(program.insns, i) for i in calls} <= starts


def test_a_callback_is_loaded_as_pseudo_func(emitted: bytes) -> None:
    program = BpfObject(emitted).programs()[0]
    loads = [
        i
        for i in range(len(program.insns) // 8)
        if program.insns[i * 8] == 0x18 and program.insns[i * 8 + 1] >> 4 == 4
    ]
    assert [relative(program.insns, i) for i in loads] == [program.functions[1].insn]
    assert program.functions[1].name == "unused_by_2"


def test_maps_and_data_are_left_to_the_loader(emitted: bytes) -> None:
    first, second = BpfObject(emitted).programs()
    assert [(r.kind, r.symbol, r.addend) for r in first.relocations] == [
        ("map", "m1", 0),
        ("map_value", ".data.x", 8),
        ("map_value", ".data.x", 0),
        ("map_value", ".rodata", 0),
    ]
    assert second.relocations == (Relocation(second.relocations[0].insn, "map", "m2"),)


def test_data_sections_become_maps_and_constants_are_frozen(emitted: bytes) -> None:
    maps = {m.name: m for m in BpfObject(emitted).data_maps()}
    assert maps[".rodata"].contents == b"abc\0"
    assert (maps[".rodata"].freeze, maps[".rodata"].flags) == (True, 0x80)
    assert maps[".data.x"].contents == b"\x05" + bytes(7) + b"\x06" + bytes(7)
    assert (maps[".data.x"].freeze, maps[".data.x"].value_size) == (False, 16)


def test_a_call_to_a_function_that_is_not_there_is_left_to_loading() -> None:
    text = """
    target triple = "bpfel"
    declare i64 @bpf_session_is_return(ptr)
    define i64 @p(ptr %ctx) section "x" {
      %a = call i64 @bpf_session_is_return(ptr %ctx)
      ret i64 %a
    }
    """
    (program,) = BpfObject(compile_ir(text)).programs()
    (relocation,) = program.relocations
    assert (relocation.kind, relocation.symbol) == ("kfunc", "bpf_session_is_return")
    constants = ((relocation.symbol, 0x12345),)
    spec = ProgramSpec(program.name, 2, program.insns, 0, program.relocations, constants=constants)
    at = 8 * relocation.insn
    assert relocate(spec, {})[at : at + 8] == bytes.fromhex("85 20 0000 45230100")


def test_other_files_are_refused() -> None:
    with pytest.raises(ObjectError, match="not a 64-bit little-endian BPF relocatable"):
        BpfObject(b"\x7fELF\x02\x01" + bytes(100))
    with pytest.raises(ObjectError, match="damaged"):
        BpfObject(b"\x7fELF")


def test_a_file_cut_short_is_refused(emitted: bytes) -> None:
    with pytest.raises(ObjectError):
        BpfObject(emitted[: len(emitted) // 2])
