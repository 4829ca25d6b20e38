# SPDX-License-Identifier: Apache-2.0
"""Operands of USDT probes: the emitted code against what the assembler means by them."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcap.functions.registers import X86_64
from kcap.kernel import uapi
from kcap.lang.diagnostic import ScriptError
from kcap.sema.probe import ProbeContext
from kcap.symbols.usdt import parse_arguments
from support.bpf_machine import MASK, Memory
from unit.codegen.script_machine import run

#: How the 8, 16, 32 and 64 lowest bits of the first eight registers are called.
NAMED = {
    "rax": ("al", "ax", "eax"), "rbx": ("bl", "bx", "ebx"), "rcx": ("cl", "cx", "ecx"),
    "rdx": ("dl", "dx", "edx"), "rsi": ("sil", "si", "esi"), "rdi": ("dil", "di", "edi"),
    "rbp": ("bpl", "bp", "ebp"), "rsp": ("spl", "sp", "esp"),
}  # fmt: skip
NUMBERED = [f"r{n}" for n in range(8, 16)]
#: Bits 8 to 15 of the first four.
HIGH = {"ah": "rax", "bh": "rbx", "ch": "rcx", "dh": "rdx"}
REGISTERS = [*NAMED, *NUMBERED]
ARGUMENTS = 12


class Everywhere(Memory):
    """Memory in which every byte follows from its address, as far as nothing else is there."""

    def read(self, address: int, size: int) -> bytes | None:
        return super().read(address, size) or content(address, size)


def content(address: int, size: int) -> bytes:
    return bytes(((at & MASK) * 0x9E3779B1 >> 11) & 0xFF for at in range(address, address + size))


class Operand(NamedTuple):
    """An operand: as it is written, and the bytes that it stands for when registers are known.

    :ivar bits: of a register or constant: (register or None, value, shift).
    :ivar address: (base, index, scale, displacement), or None.
    """

    text: str
    size: int
    is_signed: bool
    bits: tuple[str | None, int, int] = (None, 0, 0)
    address: tuple[str, str, int, int] | None = None

    def value(self, registers: dict[str, int]) -> int:
        """The argument as 64 bits."""
        if self.address is not None:
            base, index, scale, displacement = self.address
            at = registers.get(base, 0) + registers.get(index, 0) * scale + displacement
            data = content(at & MASK, self.size)
        else:
            register, value, shift = self.bits
            whole = registers[register] if register is not None else value
            data = (whole >> shift & MASK).to_bytes(8, "little")[: self.size]
        return int.from_bytes(data, "little", signed=self.is_signed) & MASK


def _register_name(register: str, size: int) -> str:
    if register in NAMED:
        return dict(zip((1, 2, 4, 8), (*NAMED[register], register), strict=True))[size]
    return register + {1: "b", 2: "w", 4: "d", 8: ""}[size]


@st.composite
def operands(draw: st.DrawFn) -> Operand:
    size, is_signed = draw(st.sampled_from([1, 2, 4, 8])), draw(st.booleans())
    start = f"{'-' * is_signed}{size}@"
    form = draw(st.sampled_from(["register", "high", "constant", "memory"]))
    if form == "register":
        register = draw(st.sampled_from(REGISTERS))
        text = f"{start}%{_register_name(register, size)}"
        return Operand(text, size, is_signed, (register, 0, 0))
    if form == "high":
        name = draw(st.sampled_from(sorted(HIGH)))
        return Operand(f"{'-' * is_signed}1@%{name}", 1, is_signed, (HIGH[name], 0, 8))
    if form == "constant":
        value = draw(st.integers(-(1 << 8 * size - 1), (1 << 8 * size) - 1))
        written = draw(st.sampled_from([str(value), hex(value)]))
        return Operand(f"{start}${written}", size, is_signed, (None, value, 0))
    base = draw(st.sampled_from(["", *REGISTERS, "rip"]))
    index = draw(st.sampled_from(["", *(r for r in REGISTERS if r != "rsp")]))
    index = "" if base == "rip" else index
    scale = draw(st.sampled_from([1, 2, 4, 8])) if index else 1
    displacement = draw(st.integers(-(1 << 31), (1 << 31) - 1))
    inside = f"%{base}" if base else ""
    if index:
        inside += f",%{index}" + (f",{scale}" if scale > 1 or draw(st.booleans()) else "")
    number = str(displacement) if displacement or not inside else ""
    text = f"{start}{number}" + (f"({inside})" if inside else "")
    return Operand(text, size, is_signed, address=(base, index, scale, displacement))


def context_of(text: str) -> ProbeContext:
    """A probe with these operands."""
    context = ProbeContext(
        "usdt", "usdt:app:hit", uapi.BPF_PROG_TYPE_KPROBE, arguments="registers", space="user"
    )
    context.extra["usdt_arguments"] = parse_arguments(text)
    return context


def evaluated(text: str, registers: dict[str, int]) -> list[int]:
    """What the arguments of a probe are, as a script prints them."""
    count = len(text.split())
    slots = [0] * (max(X86_64.offsets.values()) // 8 + 1)
    for name, value in registers.items():
        key = name if name in X86_64.offsets else name[1:]
        slots[X86_64.offsets[key] // 8] = value
    numbers = ", ".join(f"arg{n}" for n in range(count))
    script = f'usdt:app:hit {{ printf("{"%llu " * count}\\n", {numbers}); }}'
    done = run(script, context=context_of(text), slots=slots, memory=Everywhere())
    return [int(word) for word in done.text.split()]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(operands(), min_size=1, max_size=ARGUMENTS),
    st.lists(st.integers(0, MASK), min_size=17, max_size=17),
)
def test_every_form_of_operand_is_read_as_the_assembler_means_it(
    given_operands: list[Operand], values: list[int]
) -> None:
    registers = dict(zip([*REGISTERS, "rip"], values, strict=True))
    text = " ".join(operand.text for operand in given_operands)
    assert evaluated(text, registers) == [one.value(registers) for one in given_operands]


def test_an_operand_that_cant_be_read_is_an_error_only_where_it_is_used() -> None:
    text = "8f@%xmm0 8@%rax"
    context = context_of(text)
    assert run("usdt:app:hit { print(arg1); }", context=context, slots=[7] * 21).text == "7\n"
    with pytest.raises(ScriptError) as caught:
        run("usdt:app:hit { print(arg0); }", context=context)
    assert caught.value.errors[0].label == "operand 8f@%xmm0: uprobes do not see the register %xmm0"
