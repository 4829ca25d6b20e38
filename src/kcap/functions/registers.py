# SPDX-License-Identifier: Apache-2.0
"""Registers that kprobes and uprobes see: struct pt_regs (struct user_pt_regs on arm64).

Facts: arch/x86/include/asm/ptrace.h, arch/arm64/include/uapi/asm/ptrace.h, and the calling
conventions (System V ABI AMD64, AAPCS64). Every register takes 8 bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from kcap.records import dataclass


@dataclass(frozen=True, slots=True)
class Registers:
    """The registers of one architecture.

    :param offsets: bytes into the context, by the names that ``reg()`` takes.
    :param arguments: the registers of the first integer arguments of a function.
    :param returned: the register of the result.
    :param pc: the instruction pointer.
    :param sp: the stack pointer.
    :param stack_arguments: bytes from the stack pointer, at a function's entry, to the first
        argument that is passed on the stack.
    """

    offsets: Mapping[str, int]
    arguments: tuple[str, ...]
    returned: str
    pc: str
    sp: str
    stack_arguments: int


_X86_ORDER = (
    "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si",
    "di", "orig_ax", "ip", "cs", "flags", "sp", "ss",
)  # fmt: skip

X86_64 = Registers(
    # bpftrace takes pc for ip, too
    {
        **{name: 8 * index for index, name in enumerate(_X86_ORDER)},
        "pc": 8 * _X86_ORDER.index("ip"),
    },
    ("di", "si", "dx", "cx", "r8", "r9"),
    "ax",
    "ip",
    "sp",
    8,  # the return address is on top
)

AARCH64 = Registers(
    {**{f"r{n}": 8 * n for n in range(31)}, "sp": 248, "pc": 256, "pstate": 264},
    tuple(f"r{n}" for n in range(8)),
    "r0",
    "pc",
    "sp",
    0,
)

_BY_MACHINE = {"x86_64": X86_64, "aarch64": AARCH64}


def current() -> Registers:
    """The registers of this machine; x86-64's where it is not known."""
    return _BY_MACHINE.get(os.uname().machine, X86_64)
