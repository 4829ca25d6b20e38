# SPDX-License-Identifier: Apache-2.0
"""Instructions by hand, for feature probes and tests (``struct bpf_insn``).

Opcodes are those of Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

from struct import pack

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)


def insn(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    """One instruction."""
    return pack("<BBhI", opcode, src << 4 | dst, offset, imm & 0xFFFFFFFF)


def mov_imm(dst: int, value: int) -> bytes:
    """``dst = value`` (32 bits, sign-extended)."""
    return insn(0xB7, dst, imm=value)


def mov(dst: int, src: int) -> bytes:
    """``dst = src``."""
    return insn(0xBF, dst, src)


def add_imm(dst: int, value: int) -> bytes:
    """``dst += value``."""
    return insn(0x07, dst, imm=value)


def load_imm64(dst: int, value: int, source: int = 0) -> bytes:
    """``dst = value`` (64 bits); ``source`` a BPF_PSEUDO_* number. Counts as two instructions."""
    return insn(0x18, dst, source, imm=value) + insn(0, imm=value >> 32)


def load(dst: int, src: int, offset: int = 0) -> bytes:
    """``dst = *(u64 *)(src + offset)``."""
    return insn(0x79, dst, src, offset)


def store(dst: int, offset: int, src: int) -> bytes:
    """``*(u64 *)(dst + offset) = src``."""
    return insn(0x7B, dst, src, offset)


def store_imm(dst: int, offset: int, value: int) -> bytes:
    """``*(u64 *)(dst + offset) = value``."""
    return insn(0x7A, dst, 0, offset, value)


def jump_if_zero(dst: int, offset: int) -> bytes:
    """``if dst == 0`` skip ``offset`` instructions."""
    return insn(0x15, dst, 0, offset, 0)


def call(helper: int) -> bytes:
    """Call a helper."""
    return insn(0x85, imm=helper)


def call_function(offset: int) -> bytes:
    """Call a function of the program, ``offset`` instructions behind the next one."""
    return insn(0x85, 0, 1, imm=offset)


def exit_() -> bytes:
    """Return R0."""
    return insn(0x95)
