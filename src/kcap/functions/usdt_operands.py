# SPDX-License-Identifier: Apache-2.0
"""``arg0`` and so on in usdt probes: operands in registers, in memory, or constant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.functions import registers
from kcap.kernel.helpers import Helper
from kcap.sema.types import Struct

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.sema.kerneltypes import KernelTypes
    from kcap.sema.probe import ProbeContext
    from kcap.symbols.usdt import Argument

EXTRA = "usdt_arguments"
"""Where ``ProbeContext.extra`` has the operands (``probes.usdt``)."""


def operands(context: ProbeContext) -> list[Argument] | None:
    """The operands of a usdt probe; None in other probes."""
    found: list[Argument] | None = context.extra.get(EXTRA)
    return found


def thread_pointer(types: KernelTypes) -> int | None:
    """Where struct task_struct has the thread pointer of a task that runs (arch/x86's
    do_arch_prctl_64 and CLONE_SETTLS note it), or None.

    A program that sets it by an instruction of its own (WRFSBASE) is not seen to do so before the
    task is scheduled anew.
    """
    task = types.struct("task_struct")
    thread = task.find("thread") if task is not None else None
    if thread is None or not isinstance(thread.type, Struct):
        return None
    base = thread.type.find("fsbase")
    return thread.offset + base.offset if base is not None else None


def emit_operand(operand: Argument, gen: Emitter, thread: int) -> str:
    """The value of an operand, extended to i64 by its sign; 0 where memory can't be read.

    :param thread: what :func:`thread_pointer` said, if the operand counts from there.
    """
    bits = 8 * operand.size
    if operand.constant is not None:
        return str(_wrapped(operand.constant, bits, operand.signed))
    if not operand.memory:
        whole = _register(operand.register, gen)
        if operand.shift:
            whole = gen.ir.op(f"lshr i64 {whole}, {operand.shift}")
        narrow = gen.ir.resize(whole, 64, bits, False)
        return gen.ir.resize(narrow, bits, 64, operand.signed)
    slot = gen.ir.alloca(operand.size, operand.size)
    address = _address(operand, gen)
    if operand.of_thread:
        task = gen.helper(Helper.get_current_task)
        base = gen.ir.alloca(8, 8)
        gen.read(base, 8, gen.ir.op(f"add i64 {task}, {thread}"), "kernel")
        address = gen.ir.op(f"add i64 {address}, {gen.ir.load('i64', base)}")
    gen.read(slot, operand.size, address, "user")
    loaded = gen.ir.load(f"i{bits}", slot)
    return gen.ir.resize(loaded, bits, 64, operand.signed)


def _wrapped(value: int, bits: int, signed: bool) -> int:
    """``value`` as an integer of ``bits`` bits has it."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def _address(operand: Argument, gen: Emitter) -> str:
    address = _register(operand.register, gen) if operand.register else "0"
    if operand.index_register:
        index = _register(operand.index_register, gen)
        scaled = gen.ir.op(f"mul i64 {index}, {operand.scale}")
        address = gen.ir.op(f"add i64 {address}, {scaled}")
    return gen.ir.op(f"add i64 {address}, {operand.displacement}")


def _register(name: str, gen: Emitter) -> str:
    """A register of the context; notes call it ``rdi``, the context's table ``di``."""
    offsets = registers.current().offsets
    known = name if name in offsets else name.removeprefix("r")
    return gen.ir.load("i64", gen.ir.offset(gen.ctx, offsets[known]), volatile=True)
