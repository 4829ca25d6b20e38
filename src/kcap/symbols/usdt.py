# SPDX-License-Identifier: Apache-2.0
"""USDT probes: the notes that <sys/sdt.h> leaves in executables, and their arguments.

A note (section .note.stapsdt, name ``stapsdt``, type 3) holds three addresses (the probe, the
address that .stapsdt.base had, a semaphore or 0) and three strings (provider, name, arguments).
See https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation.
"""

from __future__ import annotations

from struct import error as struct_error
from struct import unpack_from
from typing import TYPE_CHECKING, NamedTuple

from kcap import elfnotes
from kcap.errors import FileError

if TYPE_CHECKING:
    from kcap.symbols.elf import ElfFile

_NT_STAPSDT = 3
_UNKNOWN = "of an unknown form"
_REGISTERS_64 = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip"]


class UsdtProbe(NamedTuple):
    """A probe at one place; the same provider and name may stand at several.

    :ivar provider: such as ``python``.
    :ivar name: such as ``gc__start``.
    :ivar offset: where in the file the instruction is.
    :ivar semaphore: where in the file the counter is that switches the probe on; 0: none.
    :ivar arguments: as the compiler wrote them, for ``parse_arguments``.
    """

    provider: str
    name: str
    offset: int
    semaphore: int
    arguments: str


class Argument(NamedTuple):
    """Where an argument is.

    :ivar size: bytes: 1, 2, 4 or 8.
    :ivar signed: whether it is signed.
    :ivar constant: its value, if it is one.
    :ivar register: it is in this register, or, with ``memory``, at an address based on it; the
        64-bit name (``rdi``), empty for a constant.
    :ivar memory: it is at ``register + index_register * scale + displacement``.
    :ivar displacement: bytes.
    :ivar index_register: that of the index, or empty.
    :ivar scale: 1, 2, 4 or 8.
    :ivar shift: bits to shift a register right by first (8 for ``ah`` and its like).
    :ivar symbol: a variable whose address is still to be added (:func:`place_argument`).
    :ivar of_thread: the address counts from the thread pointer (``%fs``).
    :ivar unreadable: why it can't be read; all else means nothing then.
    """

    size: int
    signed: bool
    constant: int | None = None
    register: str = ""
    memory: bool = False
    displacement: int = 0
    index_register: str = ""
    scale: int = 1
    shift: int = 0
    symbol: str = ""
    of_thread: bool = False
    unreadable: str = ""


def read_probes(elf: ElfFile) -> list[UsdtProbe]:
    """All USDT probes of a file, in the order of the notes.

    :raises FileError: the notes are damaged.
    """
    section = elf.section(".note.stapsdt")
    if section is None:
        return []
    base = elf.section(".stapsdt.base")
    linked = base.address if base is not None else None
    probes = []
    try:
        for note in elfnotes.notes(elf.content(section)):
            if note.owner == b"stapsdt\0" and note.kind == _NT_STAPSDT:
                probes.append(_probe(elf, note.description, linked))
    except (struct_error, ValueError) as error:
        raise FileError(f"{elf.path}: damaged USDT notes: {error}", elf.path) from error
    return probes


def _probe(elf: ElfFile, note: bytes, base: int | None) -> UsdtProbe:
    address, noted_base, semaphore = unpack_from("<QQQ", note)
    # prelink moves addresses and leaves notes as they are: the base section tells how far
    moved = base - noted_base if base is not None else 0
    provider, name, arguments = (part.decode() for part in note[24:].split(b"\0")[:3])
    offset = elf.file_offset(address + moved)
    if offset is None:
        raise ValueError(f"probe {provider}:{name} is outside of the file")
    place = elf.file_offset(semaphore + moved) if semaphore else 0
    return UsdtProbe(provider, name, offset, place or 0, arguments)


def parse_arguments(text: str) -> list[Argument]:
    """Read the arguments' places (x86-64 assembler operands).

    :param text: such as ``-4@%edi 8@-16(%rbp) 4@$5``.
    :return: one for each operand; those that can't be read say why.
    """
    return [_argument(part) for part in text.split()]


def place_argument(argument: Argument, variable: int | None, probe: int, fixed: bool) -> Argument:
    """An argument with the address of its symbol put in.

    :param variable: the symbol's address as it was linked, or its distance from the thread pointer;
        None: the file does not have it.
    :param probe: where the probe is, as it was linked.
    :param fixed: the file is mapped where it was linked for, wherever a register points to.
    """
    if variable is None:
        return argument._replace(unreadable=f"the file does not say where {argument.symbol} is")
    if argument.of_thread:
        return argument._replace(symbol="", displacement=argument.displacement + variable)
    if argument.register == "rip":  # which is the probe's own place when it is hit
        return argument._replace(symbol="", displacement=argument.displacement + variable - probe)
    if not fixed:
        return argument._replace(unreadable=f"{argument.symbol} is wherever the file is mapped")
    return argument._replace(symbol="", displacement=argument.displacement + variable)


def _argument(text: str) -> Argument:
    size_text, _, operand = text.partition("@")
    try:
        size = _number(size_text.rstrip("f"))
        if abs(size) not in (1, 2, 4, 8):
            raise ValueError(f"it has {abs(size)} bytes")
        return _operand(abs(size), size < 0, operand)
    except ValueError as error:
        return Argument(8, False, unreadable=f"operand {text}: {error}")


def _operand(size: int, signed: bool, operand: str) -> Argument:
    """:raises ValueError: it is of a form that can't be read."""
    if operand.startswith("$"):
        constant, symbol = _sum(operand[1:])
        if symbol:
            raise ValueError("the address of a symbol")
        return Argument(size, signed, constant)
    of_thread = operand.startswith("%fs:")
    operand = operand.removeprefix("%fs:")
    if operand.startswith("%"):
        register, shift = _register(operand)
        return Argument(size, signed, register=register, shift=shift)
    number, opening, inside = operand.partition("(")
    if opening and not inside.endswith(")"):
        raise ValueError(_UNKNOWN)
    base, index, scale = ([*inside[:-1].split(","), "", ""])[:3]
    displacement, symbol = _sum(number)
    if of_thread and symbol:
        symbol, _, relocation = symbol.partition("@")
        if relocation != "tpoff":
            raise ValueError(_UNKNOWN)
    return Argument(
        size,
        signed,
        register=_register(base)[0] if base else "",
        memory=True,
        displacement=displacement,
        index_register=_register(index)[0] if index else "",
        scale=_number(scale or "1"),
        symbol=symbol,
        of_thread=of_thread,
    )


def _sum(text: str) -> tuple[int, str]:
    """(the numbers added up, the symbol among them or '') of ``-16``, ``table+8``, ``4+x``.

    :raises ValueError: it is no sum of numbers and at most one symbol.
    """
    number, symbol = 0, ""
    for term in text.replace("-", "+-").split("+"):
        if term.removeprefix("-")[:1].isdigit():
            number += _number(term)
        elif term and (symbol or term.startswith("-")):
            raise ValueError(_UNKNOWN)
        else:
            symbol = symbol or term
    return number, symbol


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(_UNKNOWN) from None


def _register(text: str) -> tuple[str, int]:
    """(64-bit register, shift) of ``%edi``, ``%r8d``, ``%ah``, ...

    :raises ValueError: the context of a uprobe has no such register.
    """
    name = text.removeprefix("%")
    if name.startswith("r") and name[1:].rstrip("dwb").isdigit():  # r8d, r10w, r15b
        return name.rstrip("dwb"), 0
    if name in _REGISTERS_64:
        return name, 0
    if name[:1] == "e" and f"r{name[1:]}" in _REGISTERS_64:
        return f"r{name[1:]}", 0
    if f"r{name}" in _REGISTERS_64:  # ax, si
        return f"r{name}", 0
    if name.endswith("l") and f"r{name[:-1]}" in _REGISTERS_64:  # dil, sil, bpl
        return f"r{name[:-1]}", 0
    if name[1:] in ("l", "h") and f"r{name[0]}x" in _REGISTERS_64:  # al, ah
        return f"r{name[0]}x", 8 if name[1] == "h" else 0
    raise ValueError(f"uprobes do not see the register {text}")
