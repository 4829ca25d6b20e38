# SPDX-License-Identifier: Apache-2.0
"""Scratch memory: where a program keeps what is too large for the BPF stack.

It is the value of a per-CPU array. Each loaded program has an array of its own, so that another
program that interrupts it cannot write there, and from 5.12 (raw tracepoints: 6.1) the kernel
doesn't start a program while the same one is under way on the CPU (``prog->active`` in
kernel/bpf/trampoline.c). Before that, a counter of the nesting picks one of four values; programs
then run with preemption off, so that they nest strictly.

The kernel's per-CPU memory comes in pieces of at most 32 kB. A program that needs more has a plain
array with an element for each CPU (and level) instead: programs don't move to another CPU either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen.module import DEPTH, LEVELS, SCRATCH
from kcap.kernel.helpers import Helper

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter

_CPU = f"call i64 inttoptr (i64 {Helper.get_smp_processor_id} to ptr)()"
_LOOKUP = f"call ptr inttoptr (i64 {Helper.map_lookup_elem} to ptr)"


def prologue(gen: Emitter, zeros_at: int) -> list[str]:
    """The instructions that find the program's memory: ``%scratch``, and ``%zeros`` in it."""
    nested = not gen.module.features.recursion_guard
    return [
        "  %scratch_key = alloca i32, align 4",
        "  store i32 0, ptr %scratch_key",
        *(_enter() if nested else ()),
        *(_by_cpu(nested) if gen.module.scratch_by_cpu else ()),
        f"  %scratch = {_LOOKUP}(ptr @{SCRATCH}, ptr %scratch_key)",
        "  %scratch_missing = icmp eq ptr %scratch, null",
        "  br i1 %scratch_missing, label %no_scratch, label %start",
        "no_scratch:",
        "  ret i64 0",
        "start:",
        *(_take() if nested else ()),
        f"  %zeros = getelementptr i8, ptr %scratch, i64 {zeros_at}",
    ]


def _enter() -> list[str]:
    return [
        f"  %depth = {_LOOKUP}(ptr @{DEPTH}, ptr %scratch_key)",
        "  %depth_missing = icmp eq ptr %depth, null",
        "  br i1 %depth_missing, label %no_scratch, label %deeper",
        "deeper:",
        "  %level = load i64, ptr %depth",
        f"  %too_deep = icmp uge i64 %level, {LEVELS}",
        "  br i1 %too_deep, label %no_scratch, label %fits",
        "fits:",
        "  %level32 = trunc i64 %level to i32",
        "  store i32 %level32, ptr %scratch_key",
    ]


def _by_cpu(nested: bool) -> list[str]:
    """Turn the key (0 or the level) into that of the CPU's element."""
    return [
        f"  %cpu = {_CPU}",
        "  %cpu32 = trunc i64 %cpu to i32",
        f"  %cpu_first = mul i32 %cpu32, {LEVELS if nested else 1}",
        f"  %cpu_key = add i32 %cpu_first, {'%level32' if nested else '0'}",
        "  store i32 %cpu_key, ptr %scratch_key",
    ]


def _take() -> list[str]:
    return ["  %deeper_level = add i64 %level, 1", "  store i64 %deeper_level, ptr %depth"]


def leave(gen: Emitter) -> None:
    """Give the level back, at the end of the program."""
    level = gen.ir.load("i64", "%depth")
    gen.ir.store("i64", gen.ir.op(f"sub i64 {level}, 1"), "%depth")
