# SPDX-License-Identifier: Apache-2.0
"""Classic BPF into the traced program: one block of LLVM IR for each instruction.

What the instructions mean is what libpcap's own interpreter does (``bpf_filter.c``), which tests
compare this with: all arithmetic is of 32 bits unsigned, a load that the packet has not enough
bytes for ends the filter with "no", so does a division by zero; a shift by 32 or more gives 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kcap.functions.pcap_filter import Instruction

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.ir import Operand
    from kcap.functions.skb_frame import Frame

_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = (mode << 5 for mode in range(6))
_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1}
_X: Final = 0x08
_A: Final = 0x10
_TXA: Final = 0x80
_ARITHMETIC: Final = {
    0x00: "add", 0x10: "sub", 0x20: "mul", 0x30: "udiv", 0x40: "or", 0x50: "and",
    0x90: "urem", 0xA0: "xor",
}  # fmt: skip
_SHIFTS: Final = {0x60: "shl", 0x70: "lshr"}
_NEG: Final = 0x80
_DIVISIONS: Final = ("udiv", "urem")
_JA: Final = 0x00
_COMPARISONS: Final = {0x10: "eq", 0x20: "ugt", 0x30: "uge"}
_JSET: Final = 0x40


def translate(gen: Emitter, program: Sequence[Instruction], frame: Frame) -> Operand:
    """Emit a filter; whether it accepts the frame, an i1.

    :param program: as libpcap makes it: jumps go forward only, the last instruction returns.
    """
    return _Translation(gen, program, frame).emit()


class _Translation:
    def __init__(self, gen: Emitter, program: Sequence[Instruction], frame: Frame) -> None:
        self.ir, self.program, self.frame = gen.ir, program, frame
        stem = self.ir.fresh("filter")
        self.labels = [f"{stem}_{number}" for number in range(len(program))]
        self.rejected, self.end = f"{stem}_no", f"{stem}_end"
        self.a, self.x, self.result = (self._register() for _ in range(3))
        self.memory: dict[int, Operand] = {}

    def _register(self) -> Operand:
        """A 32-bit variable, 0 at first; LLVM makes a register of it."""
        where = self.ir.alloca(4, 4)
        self.ir.store("i32", "0", where)
        return where

    def _cell(self, number: int) -> Operand:
        return self.memory[number]

    def emit(self) -> Operand:
        ir = self.ir
        for each in self.program:
            kind, mode = each.code & 7, each.code & 0xE0
            if kind in (_ST, _STX) or (kind in (_LD, _LDX) and mode == _MEM):
                self.memory.setdefault(each.k, "")
        for number in self.memory:
            self.memory[number] = self._register()
        for number, each in enumerate(self.program):
            ir.label(self.labels[number])
            self._instruction(number, each)
        ir.label(self.rejected)
        ir.store("i32", "0", self.result)
        ir.label(self.end)
        return ir.compare("ne", "i32", ir.load("i32", self.result), "0")

    def _instruction(self, number: int, each: Instruction) -> None:
        kind = each.code & 7
        if kind in (_LD, _LDX):
            self._set(self.a if kind == _LD else self.x, self._loaded(each))
        elif kind in (_ST, _STX):
            self._set(self._cell(each.k), self._get(self.a if kind == _ST else self.x))
        elif kind == _ALU:
            self._alu(each)
        elif kind == _JMP:
            self._jump(number, each)
        elif kind == _RET:
            value = self._get(self.a) if each.code & 0x18 == _A else _constant(each.k)
            self._set(self.result, value)
            self.ir.jump(self.end)
        elif each.code & 0xF8 == _TXA:
            self._set(self.a, self._get(self.x))
        else:
            self._set(self.x, self._get(self.a))

    def _get(self, where: Operand) -> Operand:
        return self.ir.load("i32", where)

    def _set(self, where: Operand, value: Operand) -> None:
        self.ir.store("i32", value, where)

    def _loaded(self, each: Instruction) -> Operand:
        mode, ir = each.code & 0xE0, self.ir
        if mode == _IMM:
            return _constant(each.k)
        if mode == _MEM:
            return self._get(self._cell(each.k))
        if mode == _LEN:
            return ir.resize(self.frame.length, 64, 32, False)
        if mode == _MSH:
            byte = self.frame.load(each.k, 1, self.rejected)
            return ir.op(f"shl i32 {ir.op(f'and i32 {byte}, 15')}, 2")
        size = _SIZES[each.code & 0x18]
        if mode == _ABS:
            return self.frame.load(each.k, size, self.rejected)
        index = ir.resize(self._get(self.x), 32, 64, False)
        return self.frame.load(ir.op(f"add i64 {index}, {each.k}"), size, self.rejected)

    def _operand(self, each: Instruction) -> Operand:
        return self._get(self.x) if each.code & _X else _constant(each.k)

    def _alu(self, each: Instruction) -> None:
        ir, operation = self.ir, each.code & 0xF0
        left = self._get(self.a)
        if operation == _NEG:
            self._set(self.a, ir.op(f"sub i32 0, {left}"))
            return
        right = self._operand(each)
        if operation in _SHIFTS:
            amount = ir.op(f"and i32 {right}, 31")
            shifted = ir.op(f"{_SHIFTS[operation]} i32 {left}, {amount}")
            small = ir.compare("ult", "i32", right, "32")
            self._set(self.a, ir.select(small, "i32", shifted, "0"))
            return
        name = _ARITHMETIC[operation]
        if name in _DIVISIONS:
            divisible = ir.fresh("divisible")
            ir.branch(ir.compare("ne", "i32", right, "0"), divisible, self.rejected)
            ir.label(divisible)
        self._set(self.a, ir.op(f"{name} i32 {left}, {right}"))

    def _jump(self, number: int, each: Instruction) -> None:
        ir, operation = self.ir, each.code & 0xF0
        following = number + 1
        if operation == _JA:
            ir.jump(self.labels[following + each.k])
            return
        left, right = self._get(self.a), self._operand(each)
        if operation == _JSET:
            holds = ir.compare("ne", "i32", ir.op(f"and i32 {left}, {right}"), "0")
        else:
            holds = ir.compare(_COMPARISONS[operation], "i32", left, right)
        ir.branch(holds, self.labels[following + each.jt], self.labels[following + each.jf])


def _constant(value: int) -> Operand:
    """A 32-bit constant as LLVM writes it."""
    return str(value - (1 << 32) if value >> 31 else value)
