# SPDX-License-Identifier: Apache-2.0
"""How to get from a function's frame to its caller's, from ``.eh_frame``, as rows of a table.

A row holds from its place in the file up to the next row's. It says where the canonical frame
address (CFA) is, which is the caller's stack pointer, with the return address just below it, and
where the caller's frame pointer was saved. What compilers write for x86-64 fits; a row of what
does not (signal frames, a CFA to be computed) ends the stack. The sections are those of the
System V ABI for AMD64 (section 3.7) and the LSB (chapter 10.6), the instructions those of section
6.4 of the DWARF 5 standard. Read by hand: pyelftools takes a second for a C library, and more than
ten in an emulated guest.
"""

from __future__ import annotations

from struct import Struct, unpack_from
from struct import error as struct_error
from typing import NamedTuple

from kcap.errors import FileError
from kcap.records import dataclass, replace
from kcap.symbols.elf import ElfFile
from kcap.symbols.leb128 import sleb128, uleb128

#: Where the CFA is: not known, at an offset from rsp or rbp, as in a procedure linkage table.
UNKNOWN, FROM_SP, FROM_BP, IN_PLT = range(4)
#: The caller's rbp: unchanged, or saved at an offset from the CFA.
SAME, SAVED = range(2)

_RBP, _RSP, _RA = 6, 7, 16  # register numbers of the ABI, figure 3.36
#: What linkers write for a PLT: rsp + 8, and 8 more behind the push, from the eleventh byte on.
_PLT_EXPRESSION = bytes.fromhex("770880003f1a3b2a332422")
#: Bytes of the fixed-size encodings (DW_EH_PE_*), low four bits.
_FORMATS = {0: "<Q", 2: "<H", 3: "<I", 4: "<Q", 0xA: "<h", 0xB: "<i", 0xC: "<q"}
_PC_RELATIVE, _OMITTED = 0x10, 0xFF


class Row(NamedTuple):
    """From ``place`` (in the file) on: the CFA's kind and offset, rbp's kind and offset."""

    place: int
    cfa: int
    cfa_offset: int
    bp: int
    bp_offset: int


@dataclass(frozen=True, slots=True)
class _Rule:
    cfa: int = UNKNOWN
    cfa_offset: int = 0
    bp: int = SAME
    bp_offset: int = 0
    has_caller: bool = True


@dataclass(slots=True)
class _Common:
    """What a CIE says: alignment factors, pointer encoding, first instructions' result."""

    code_factor: int
    data_factor: int
    encoding: int
    augmented: bool
    usual: bool
    instructions: bytes
    rule: _Rule


def rows(path: str) -> list[Row]:
    """The table of a file, sorted by place; empty if it has none.

    :raises FileError: the file can't be read, or is damaged.
    """
    elf = ElfFile(path)
    try:
        section = elf.section(".eh_frame")
        if section is None:
            return []
        found = _Reader(elf.content(section), section.address).read()
    except (struct_error, LookupError, ValueError, ArithmeticError) as error:
        raise FileError(f"{path}: its .eh_frame makes no sense: {error}", path) from error
    finally:
        segments = elf.segments
        elf.close()
    placed: list[Row] = []
    for start, end, rules in sorted(found, key=lambda item: item[0]):
        segment = next((s for s in segments if s.address <= start < s.address + s.file_size), None)
        if segment is None:
            continue
        shift = segment.offset - segment.address
        if placed and placed[-1].place == start + shift:
            placed.pop()  # the end of the function before
        for address, rule in rules:
            known = rule.cfa if rule.has_caller else UNKNOWN
            placed.append(Row(address + shift, known, rule.cfa_offset, rule.bp, rule.bp_offset))
        placed.append(Row(end + shift, UNKNOWN, 0, SAME, 0))
    return placed


class _Reader:
    """Reads the records of a section.

    :param data: the section.
    :param address: where it is mapped.
    """

    def __init__(self, data: bytes, address: int) -> None:
        self._data = data
        self._address = address
        self._commons: dict[int, _Common] = {}

    def read(self) -> list[tuple[int, int, list[tuple[int, _Rule]]]]:
        """(start, end, [(address, rule)]) of every function."""
        found, at, data = [], 0, self._data
        while at + 4 <= len(data):
            (length,) = unpack_from("<I", data, at)
            if not length:  # the end, also in the middle where sections were joined
                at += 4
                continue
            if length == 0xFFFFFFFF:
                raise ValueError("64-bit records")
            (pointer,) = unpack_from("<I", data, at + 4)
            end = at + 4 + length
            if pointer:
                function = self._function(at + 4 - pointer, at + 8, end)
                if function is not None:
                    found.append(function)
            at = end
        return found

    def _common(self, at: int) -> _Common:
        known = self._commons.get(at)
        if known is None:
            known = self._commons[at] = self._read_common(at)
        return known

    def _read_common(self, at: int) -> _Common:
        data = self._data
        (length,) = unpack_from("<I", data, at)
        end, at = at + 4 + length, at + 9  # behind length, zero and version
        stop = data.index(b"\0", at)
        augmentation, at = data[at:stop], stop + 1
        code_factor, at = uleb128(data, at)
        data_factor, at = sleb128(data, at)
        register, at = uleb128(data, at)
        encoding = 0
        if augmentation[:1] == b"z":
            size, at = uleb128(data, at)
            inner, at = at, at + size
            for letter in augmentation[1:].decode():
                if letter == "R":
                    encoding = data[inner]
                if letter in "RL":
                    inner += 1
                elif letter == "P":
                    _, inner = self._pointer(inner + 1, data[inner])
        common = _Common(
            code_factor,
            data_factor,
            encoding,
            augmentation[:1] == b"z",
            register == _RA and b"S" not in augmentation,
            data[at:end],
            _Rule(),
        )
        common.rule = _run(common, common.instructions, 0)[-1][1]
        return common

    def _function(
        self, common_at: int, at: int, end: int
    ) -> tuple[int, int, list[tuple[int, _Rule]]] | None:
        common = self._common(common_at)
        start, at = self._pointer(at, common.encoding)
        size, at = self._pointer(at, common.encoding & 0x0F)
        if common.augmented:
            skipped, at = uleb128(self._data, at)
            at += skipped
        if not size:
            return None
        rules = _run(common, self._data[at:end], start) if common.usual else [(start, _Rule())]
        return start, start + size, rules

    def _pointer(self, at: int, encoding: int) -> tuple[int, int]:
        """(value, where the next field is) of an encoded pointer."""
        if encoding == _OMITTED:
            return 0, at
        kind = encoding & 0x0F
        if kind in (1, 9):
            value, behind = (uleb128 if kind == 1 else sleb128)(self._data, at)
        else:
            form = Struct(_FORMATS[kind])
            (value,) = form.unpack_from(self._data, at)
            behind = at + form.size
        if encoding & 0x70 == _PC_RELATIVE:
            value += self._address + at
        return value & 0xFFFF_FFFF_FFFF_FFFF, behind


def _run(common: _Common, code: bytes, start: int) -> list[tuple[int, _Rule]]:
    """The rules that instructions make, each with the address that it holds from."""
    rule, kept, address = common.rule, [], start
    found: list[tuple[int, _Rule]] = []
    at = 0
    while at < len(code):
        operation = code[at]
        at += 1
        high, low = operation & 0xC0, operation & 0x3F
        step = -1
        if high == 0x40:  # advance_loc
            step = low
        elif high == 0x80:  # offset
            value, at = uleb128(code, at)
            rule = _saved(rule, low, value * common.data_factor)
        elif high == 0xC0:  # restore
            rule = _restored(rule, low, common.rule)
        elif operation in (1, 2, 3, 4):  # set_loc, advance_loc1, 2, 4
            if operation == 1:
                raise ValueError("DW_CFA_set_loc")
            size = 1 << (operation - 2)
            step, at = int.from_bytes(code[at : at + size], "little"), at + size
        elif operation == 0x0A:  # remember_state
            kept.append(rule)
        elif operation == 0x0B:  # restore_state
            rule = kept.pop()
        elif operation:
            rule, at = _change(common, rule, operation, code, at)
        if step > 0:
            found.append((address, rule))
            address += step * common.code_factor
    found.append((address, rule))
    return found


def _change(
    common: _Common, rule: _Rule, operation: int, code: bytes, at: int
) -> tuple[_Rule, int]:
    """The rule after an instruction with operands of its own, and where the next one is."""
    if operation == 0x0E:  # def_cfa_offset
        value, at = uleb128(code, at)
        return replace(rule, cfa_offset=value), at
    if operation == 0x13:  # def_cfa_offset_sf
        value, at = sleb128(code, at)
        return replace(rule, cfa_offset=value * common.data_factor), at
    if operation in (0x0F, 0x10, 0x16):  # def_cfa_expression, expression, val_expression
        register = -1
        if operation != 0x0F:
            register, at = uleb128(code, at)
        size, at = uleb128(code, at)
        return _computed(rule, register, code[at : at + size]), at + size
    if operation == 0x2E:  # GNU_args_size
        _, at = uleb128(code, at)
        return rule, at
    register, at = uleb128(code, at)
    if operation in (0x0C, 0x12):  # def_cfa, def_cfa_sf
        if operation == 0x0C:
            value, at = uleb128(code, at)
        else:
            value, at = sleb128(code, at)
            value *= common.data_factor
        return replace(rule, cfa=_kind(register), cfa_offset=value), at
    if operation == 0x0D:  # def_cfa_register
        return replace(rule, cfa=_kind(register)), at
    if operation in (0x05, 0x11):  # offset_extended, offset_extended_sf
        value, at = (uleb128 if operation == 0x05 else sleb128)(code, at)
        return _saved(rule, register, value * common.data_factor), at
    if operation in (0x06, 0x08):  # restore_extended, same_value
        return _restored(rule, register, common.rule if operation == 0x06 else _Rule()), at
    if operation == 0x07:  # undefined
        return replace(rule, has_caller=rule.has_caller and register != _RA), at
    if operation == 0x09:  # register: in another one
        _, at = uleb128(code, at)
        return replace(rule, cfa=UNKNOWN) if register in (_RBP, _RA) else rule, at
    raise ValueError(f"instruction {operation:#x}")


def _kind(register: int) -> int:
    return {_RSP: FROM_SP, _RBP: FROM_BP}.get(register, UNKNOWN)


def _saved(rule: _Rule, register: int, offset: int) -> _Rule:
    if register == _RBP:
        return replace(rule, bp=SAVED, bp_offset=offset)
    if register == _RA and offset != -8:
        return replace(rule, has_caller=False)
    return rule


def _restored(rule: _Rule, register: int, to: _Rule) -> _Rule:
    return replace(rule, bp=to.bp, bp_offset=to.bp_offset) if register == _RBP else rule


def _computed(rule: _Rule, register: int, expression: bytes) -> _Rule:
    """The rule with the CFA (-1) or a register given by a DWARF expression."""
    if register == -1:
        return replace(rule, cfa=IN_PLT if expression == _PLT_EXPRESSION else UNKNOWN)
    if register in (_RBP, _RA):
        return replace(rule, has_caller=False)
    return rule
