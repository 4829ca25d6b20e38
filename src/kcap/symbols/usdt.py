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

from kcap.errors import FileError

if TYPE_CHECKING:
    from kcap.symbols.elf import ElfFile

_NOTE_TYPE = 3
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


def read_probes(elf: ElfFile) -> list[UsdtProbe]:
    """All USDT probes of a file, in the order of the notes.

    :raises FileError: the notes are damaged.
    """
    section = elf.section(".note.stapsdt")
    if section is None:
        return []
    base = elf.section(".stapsdt.base")
    data = elf.content(section)
    probes = []
    at = 0
    try:
        while at + 12 <= len(data):
            name_size, size, kind = unpack_from("<III", data, at)
            start = at + 12 + (name_size + 3 & ~3)
            if kind == _NOTE_TYPE and data[at + 12 : at + 20] == b"stapsdt\0":
                note = data[start : start + size]
                probes.append(_probe(elf, note, base.address if base is not None else None))
            at = start + (size + 3 & ~3)
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
    :raises ValueError: an operand of an unknown form.
    """
    return [_argument(part) for part in text.split()]


def _argument(text: str) -> Argument:
    size_text, at, operand = text.partition("@")
    if not at:
        raise ValueError(f"{text!r} is no USDT argument")
    size = int(size_text.rstrip("f"))
    signed, size = size < 0, abs(size)
    if operand.startswith("$"):
        return Argument(size, signed, int(operand[1:], 0))
    if operand.startswith("%"):
        register, shift = _register(operand)
        return Argument(size, signed, register=register, shift=shift)
    displacement, opening, inside = operand.partition("(")
    if not opening or not inside.endswith(")"):
        raise ValueError(f"{text!r}: operands of this form can't be read")
    base, index, scale = ([*inside[:-1].split(","), "", ""])[:3]
    return Argument(
        size,
        signed,
        register=_register(base)[0] if base else "",
        memory=True,
        displacement=int(displacement or "0", 0),
        index_register=_register(index)[0] if index else "",
        scale=int(scale or "1"),
    )


def _register(text: str) -> tuple[str, int]:
    """(64-bit register, shift) of ``%edi``, ``%r8d``, ``%ah``, ..."""
    name = text.removeprefix("%")
    if name.startswith("r") and name[1:].rstrip("dwb").isdigit():  # r8d, r10w, r15b
        return name.rstrip("dwb"), 0
    if name in _REGISTERS_64:
        return name, 0
    if name[0] == "e" and f"r{name[1:]}" in _REGISTERS_64:
        return f"r{name[1:]}", 0
    if f"r{name}" in _REGISTERS_64:  # ax, si
        return f"r{name}", 0
    if name.endswith("l") and f"r{name[:-1]}" in _REGISTERS_64:  # dil, sil, bpl
        return f"r{name[:-1]}", 0
    if name[1:] in ("l", "h") and f"r{name[0]}x" in _REGISTERS_64:  # al, ah
        return f"r{name[0]}x", 8 if name[1] == "h" else 0
    raise ValueError(f"unknown register {text}")
