# SPDX-License-Identifier: Apache-2.0
"""Reading and linking the BPF objects that LLVM emits.

A reader of exactly what LLVM's BPF back end writes (64-bit little-endian ELF relocatables with a
symbol table and REL sections), by ``struct``: it stands on the way from a script to its first
event, and importing pyelftools costs 46 ms, more than compiling a short script does. Files from
elsewhere (user programs, their DWARF) are pyelftools' business.

Linking follows what libbpf documents in Documentation/bpf/llvm_reloc.rst: a program is a global
function in a section of its own; functions that it calls (R_BPF_64_32, or a relative call that
the assembler already resolved) or passes as callbacks (R_BPF_64_64 to a function) are appended
behind it; what refers to maps, data sections and the kernel's functions is left as a Relocation
for the loader.
"""

from __future__ import annotations

from struct import Struct, iter_unpack, unpack_from
from struct import error as struct_error

from kcap.kernel import uapi
from kcap.kernel.errors import ObjectError
from kcap.kernel.spec import FunctionSpec, MapSpec, Relocation
from kcap.records import dataclass

_EHDR = Struct("<16sHHIQQQIHHHHHH")
_SHDR = Struct("<IIQQQQIIQQ")
_INSN = Struct("<BBhi")

_EM_BPF = 247
_ET_REL = 1
_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS, _SHT_REL = 2, 4, 8, 9
_SHF_ALLOC, _SHF_EXECINSTR = 2, 4
_STT_NOTYPE, _STT_OBJECT, _STT_FUNC, _STT_SECTION = 0, 1, 2, 3
_STB_GLOBAL = 1
_SHN_UNDEF = 0
_R_BPF_64_64, _R_BPF_64_32 = 1, 10

_CALL = 0x85  # BPF_JMP | BPF_CALL
_LDDW = 0x18  # BPF_LD | BPF_IMM | BPF_DW


@dataclass(slots=True, frozen=True)
class Symbol:
    """A symbol: ``section`` is an index, 0 if undefined; ``value`` and ``size`` in bytes."""

    name: str
    kind: int
    is_global: bool
    section: int
    value: int
    size: int


@dataclass(slots=True)
class Section:
    """A section: its bytes, and relocations by offset as (type, symbol index)."""

    name: str
    executable: bool
    data: bytes
    relocations: dict[int, tuple[int, int]]


@dataclass(slots=True, frozen=True)
class LinkedProgram:
    """A program with the functions it needs.

    :param name: the symbol.
    :param section: the section it was in.
    :param insns: instructions, its own first.
    :param relocations: references to maps and data.
    :param functions: name and first instruction of every function, its own first.
    """

    name: str
    section: str
    insns: bytes
    relocations: tuple[Relocation, ...]
    functions: tuple[FunctionSpec, ...]


class BpfObject:
    """A BPF object in memory.

    :param data: the ELF file.
    :raises ObjectError: it is not a BPF relocatable or is damaged.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self.sections = _read_sections(data)
            self.symbols = _read_symbols(data, self.sections)
        except (struct_error, IndexError, ValueError) as error:
            raise ObjectError(f"BPF object is damaged: {error}") from error
        self._functions = {
            (s.section, s.value): s for s in self.symbols if s.kind == _STT_FUNC and s.section
        }

    def programs(self) -> list[LinkedProgram]:
        """All programs (global functions outside .text), linked, in the order of symbols.

        :raises ObjectError: a reference that can't be resolved.
        """
        return [
            _Linker(self, symbol).link()
            for symbol in self.symbols
            if symbol.kind == _STT_FUNC
            and symbol.is_global
            and symbol.section
            and self.sections[symbol.section].name != ".text"
        ]

    def data_maps(self) -> tuple[MapSpec, ...]:
        """Arrays for the data sections that programs refer to: .rodata*, .data*, .bss*."""
        return tuple(
            MapSpec(
                section.name,
                uapi.BPF_MAP_TYPE_ARRAY,
                4,
                len(section.data),
                1,
                uapi.BPF_F_RDONLY_PROG if section.name.startswith(".rodata") else 0,
                section.data,
                freeze=section.name.startswith(".rodata"),
            )
            for section in self.sections
            if section.data and section.name.startswith((".rodata", ".data", ".bss"))
        )

    def function_at(self, section: int, offset: int) -> Symbol:
        """The function that begins at an offset.

        :raises ObjectError: none does.
        """
        try:
            return self._functions[section, offset]
        except KeyError:
            name = self.sections[section].name
            raise ObjectError(f"no function begins at {name}+{offset:#x}") from None


def _read_sections(data: bytes) -> list[Section]:
    ident, kind, machine, *_, shoff = _EHDR.unpack_from(data)[:7]
    if ident[:6] != b"\x7fELF\x02\x01" or kind != _ET_REL or machine != _EM_BPF:
        raise ObjectError("not a 64-bit little-endian BPF relocatable")
    shentsize, shnum, shstrndx = _EHDR.unpack_from(data)[11:14]
    headers = [_SHDR.unpack_from(data, shoff + i * shentsize) for i in range(shnum)]
    names = _bytes(data, headers[shstrndx])
    sections = [
        Section(_string(names, h[0]), bool(h[2] & _SHF_EXECINSTR), _bytes(data, h), {})
        for h in headers
    ]
    for header, section in zip(headers, list(sections), strict=True):
        if header[1] == _SHT_RELA and sections[header[7]].executable:
            raise ObjectError(f"{section.name}: RELA relocations, which LLVM doesn't emit for BPF")
        if header[1] == _SHT_REL:
            sections[header[7]].relocations = {
                offset: (info & 0xFFFFFFFF, info >> 32)
                for offset, info in iter_unpack("<QQ", section.data)
            }
    return sections


def _read_symbols(data: bytes, sections: list[Section]) -> list[Symbol]:
    names = next((s.data for s in sections if s.name == ".strtab"), b"\0")
    table = next((s.data for s in sections if s.name == ".symtab"), b"")
    return [
        Symbol(_string(names, name), info & 0xF, info >> 4 == _STB_GLOBAL, section, value, size)
        for name, info, _, section, value, size in iter_unpack("<IBBHQQ", table)
    ]


def _bytes(data: bytes, header: tuple[int, ...]) -> bytes:
    kind, offset, size = header[1], header[4], header[5]
    if kind == _SHT_NOBITS:
        return bytes(size)
    if kind and offset + size > len(data):
        raise ObjectError("BPF object is cut short")
    return data[offset : offset + size] if kind else b""


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()


class _Linker:
    """Lays a program and the functions it reaches out in one run of instructions."""

    def __init__(self, obj: BpfObject, program: Symbol) -> None:
        self._object = obj
        self._order = [program]
        self._starts = {program: 0}
        self._code = bytearray()
        self._relocations: list[Relocation] = []
        # (index of the instruction, function): filled in when all functions have their places
        self._references: list[tuple[int, Symbol]] = []

    def link(self) -> LinkedProgram:
        for function in self._order:  # grows while it is walked
            self._append(function)
        for insn, function in self._references:
            self._patch_relative(insn, self._starts[function])
        program = self._order[0]
        return LinkedProgram(
            program.name,
            self._object.sections[program.section].name,
            bytes(self._code),
            tuple(self._relocations),
            tuple(FunctionSpec(f.name, self._starts[f]) for f in self._order),
        )

    def _append(self, function: Symbol) -> None:
        section = self._object.sections[function.section]
        first = len(self._code) // 8
        self._starts[function] = first
        body = section.data[function.value : function.value + function.size]
        if not body or len(body) % 8:
            raise ObjectError(f"{function.name}: {len(body)} bytes are no instructions")
        self._code += body
        index, count = 0, len(body) // 8
        while index < count:
            opcode, registers = body[index * 8], body[index * 8 + 1]
            relocation = section.relocations.get(function.value + index * 8)
            if relocation is not None:
                self._relocate(first + index, *relocation)
            elif opcode == _CALL and registers >> 4 == uapi.BPF_PSEUDO_CALL:
                offset = self._imm(first + index)
                target = function.value + (index + offset + 1) * 8
                self._refer(first + index, function.section, target)
            index += 2 if opcode == _LDDW else 1

    def _relocate(self, insn: int, kind: int, symbol_index: int) -> None:
        symbol = self._object.symbols[symbol_index]
        if kind == _R_BPF_64_32:
            if not symbol.section:  # not in the object: the kernel's
                self._relocations.append(Relocation(insn, "kfunc", symbol.name))
                return
            # The immediate holds (addend / 8) - 1, whether the symbol is a function or its section.
            target = symbol.value + (self._imm(insn) + 1) * 8
            self._refer(insn, symbol.section, target)
        elif kind == _R_BPF_64_64:
            self._relocate_load(insn, symbol)
        else:
            raise ObjectError(f"relocation of type {kind} to {symbol.name}")

    def _relocate_load(self, insn: int, symbol: Symbol) -> None:
        addend = symbol.value + self._imm(insn)
        if not symbol.section:
            self._relocations.append(Relocation(insn, "map", symbol.name))
            return
        section = self._object.sections[symbol.section]
        if section.executable:
            self._refer(insn, symbol.section, addend)
            self._code[insn * 8 + 1] = self._code[insn * 8 + 1] & 0xF | uapi.BPF_PSEUDO_FUNC << 4
        elif section.name == ".maps":
            self._relocations.append(Relocation(insn, "map", self._map_at(symbol, addend)))
        else:
            self._relocations.append(Relocation(insn, "map_value", section.name, addend))

    def _map_at(self, symbol: Symbol, offset: int) -> str:
        if symbol.kind != _STT_SECTION:
            return symbol.name
        for other in self._object.symbols:
            if (other.section, other.value) == (symbol.section, offset) and other.name:
                return other.name
        raise ObjectError(f"no map at .maps+{offset:#x}")

    def _refer(self, insn: int, section: int, offset: int) -> None:
        function = self._object.function_at(section, offset)
        if function not in self._starts:
            self._starts[function] = -1
            self._order.append(function)
        self._references.append((insn, function))

    def _imm(self, insn: int) -> int:
        value: int = unpack_from("<i", self._code, insn * 8 + 4)[0]
        return value

    def _patch_relative(self, insn: int, target: int) -> None:
        _INSN.pack_into(
            self._code,
            insn * 8,
            self._code[insn * 8],
            self._code[insn * 8 + 1],
            0,
            target - insn - 1,
        )
