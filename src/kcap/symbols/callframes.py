# SPDX-License-Identifier: Apache-2.0
"""How to get from a function's frame to its caller's, from ``.eh_frame``, as rows of a table.

A row holds from its place in the file up to the next row's. It says where the canonical frame
address (CFA) is, which is the caller's stack pointer, with the return address just below it, and
where the caller's frame pointer was saved. What compilers write for x86-64 fits; a row of what
does not (signal frames, a CFA to be computed) ends the stack. The sections are those of the
System V ABI for AMD64 (section 3.7) and the LSB (chapter 10.6), the instructions those of section
6.4 of the DWARF 5 standard. Read by hand: pyelftools takes a second for a C library. A large one
(LLVM) has 120,000 functions and 1.5 million rows: half of the functions have the instructions of
others, so those are run once, and rows are packed at once.
"""

from __future__ import annotations

from functools import cache
from struct import Struct, unpack_from
from struct import error as struct_error
from typing import NamedTuple

from kcap.errors import FileError
from kcap.records import dataclass
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
_FORMATS = {
    kind: Struct(f"<{code}")
    for kind, code in zip((0, 2, 3, 4, 0xA, 0xB, 0xC), "QHIQhiq", strict=True)
}
_PC_RELATIVE, _OMITTED = 0x10, 0xFF
#: A row as BPF programs read it, little endian: place, CFA's offset, rbp's offset, both kinds.
ROW = Struct("<IiiBBxx")
_PLACE, _REST = Struct("<I"), Struct("<iiBBxx")


class Row(NamedTuple):
    """From ``place`` (in the file) on: the CFA's and rbp's offset, and their kinds."""

    place: int
    cfa_offset: int
    bp_offset: int
    cfa: int
    bp: int


class _Rule(NamedTuple):
    """How to get to the caller at some instruction."""

    cfa: int = UNKNOWN
    cfa_offset: int = 0
    bp: int = SAME
    bp_offset: int = 0
    has_caller: bool = True


@cache
def _packed(rule: _Rule) -> bytes:
    """A row without its place. Of millions of rules some hundred differ."""
    known = rule.cfa if rule.has_caller else UNKNOWN
    return _REST.pack(rule.cfa_offset, rule.bp_offset, known, rule.bp)


#: What holds behind a function.
_NOTHING = _packed(_Rule())
#: What instructions make of a function: (distance from its start, a row without its place).
_Rows = list[tuple[int, bytes]]


@dataclass(slots=True)
class _Common:
    """What a CIE says: alignment factors, pointer encoding, first instructions' result.

    :ivar known: what instructions of its functions made.
    """

    code_factor: int
    data_factor: int
    encoding: int
    augmented: bool
    usual: bool
    instructions: bytes
    rule: _Rule
    known: dict[bytes, _Rows]


def table(path: str) -> bytes:
    """The rows of a file, each a ``ROW``, sorted by place; none if it has no frame tables.

    :raises FileError: the file can't be read, or is damaged.
    """
    elf = ElfFile(path)
    try:
        section = elf.section(".eh_frame")
        if section is None:
            return b""
        functions = _Reader(elf.content(section), section.address).read()
        return _placed(functions, elf)
    except (struct_error, LookupError, ValueError, ArithmeticError) as error:
        raise FileError(f"{path}: its .eh_frame makes no sense: {error}", path) from error
    finally:
        elf.close()


def rows(path: str) -> list[Row]:
    """``table()``, unpacked."""
    return [Row(*values) for values in ROW.iter_unpack(table(path))]


def _placed(functions: list[tuple[int, int, _Rows]], elf: ElfFile) -> bytes:
    """The rows of (start, end, rows) of functions at their places in the file."""
    parts: list[bytes] = []
    behind, pack = -1, _PLACE.pack
    for start, end, found in sorted(functions, key=lambda function: function[0]):
        place = elf.file_offset(start)
        if place is None:
            continue
        if place == behind:
            del parts[-2:]  # the end of the function before
        for distance, rest in found:
            parts += pack(place + distance), rest
        behind = place + end - start
        parts += pack(behind), _NOTHING
    return b"".join(parts)


class _Reader:
    """Reads the records of a section.

    :param data: the section.
    :param address: where it is mapped.
    """

    def __init__(self, data: bytes, address: int) -> None:
        self._data = data
        self._address = address
        self._commons: dict[int, _Common] = {}

    def read(self) -> list[tuple[int, int, _Rows]]:
        """(start, end, rows) of every function."""
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
            {},
        )
        common.rule = _run(common, common.instructions)[1]
        return common

    def _function(self, common_at: int, at: int, end: int) -> tuple[int, int, _Rows] | None:
        common = self._common(common_at)
        start, at = self._pointer(at, common.encoding)
        size, at = self._pointer(at, common.encoding & 0x0F)
        if common.augmented:
            skipped, at = uleb128(self._data, at)
            at += skipped
        if not size:
            return None
        code = self._data[at:end]
        found = common.known.get(code)
        if found is None:
            found = _run(common, code)[0] if common.usual else [(0, _NOTHING)]
            common.known[code] = found
        return start, start + size, found

    def _pointer(self, at: int, encoding: int) -> tuple[int, int]:
        """(value, where the next field is) of an encoded pointer."""
        if encoding == _OMITTED:
            return 0, at
        kind = encoding & 0x0F
        if kind in (1, 9):
            value, behind = (uleb128 if kind == 1 else sleb128)(self._data, at)
        else:
            form = _FORMATS[kind]
            (value,) = form.unpack_from(self._data, at)
            behind = at + form.size
        if encoding & 0x70 == _PC_RELATIVE:
            value += self._address + at
        return value & 0xFFFF_FFFF_FFFF_FFFF, behind


def _run(common: _Common, code: bytes) -> tuple[_Rows, _Rule]:
    """The rows that instructions make, and the rule that holds in the end."""
    rule, kept, distance = common.rule, [], 0
    found: _Rows = []
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
        elif operation == 0x0E:  # def_cfa_offset
            value, at = code[at], at + 1
            if value >= 0x80:
                value, at = uleb128(code, at - 1)
            rule = _Rule(rule.cfa, value, rule.bp, rule.bp_offset, rule.has_caller)
        elif operation == 0x0A:  # remember_state
            kept.append(rule)
        elif operation == 0x0B:  # restore_state
            rule = kept.pop()
        elif operation:
            rule, at = _change(common, rule, operation, code, at)
        if step > 0:
            found.append((distance, _packed(rule)))
            distance += step * common.code_factor
    found.append((distance, _packed(rule)))
    return found, rule


def _change(
    common: _Common, rule: _Rule, operation: int, code: bytes, at: int
) -> tuple[_Rule, int]:
    """The rule after an instruction with operands of its own, and where the next one is."""
    if operation == 0x13:  # def_cfa_offset_sf
        value, at = sleb128(code, at)
        return rule._replace(cfa_offset=value * common.data_factor), at
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
        return rule._replace(cfa=_kind(register), cfa_offset=value), at
    if operation == 0x0D:  # def_cfa_register
        return rule._replace(cfa=_kind(register)), at
    if operation in (0x05, 0x11):  # offset_extended, offset_extended_sf
        value, at = (uleb128 if operation == 0x05 else sleb128)(code, at)
        return _saved(rule, register, value * common.data_factor), at
    if operation in (0x06, 0x08):  # restore_extended, same_value
        return _restored(rule, register, common.rule if operation == 0x06 else _Rule()), at
    if operation == 0x07:  # undefined
        return rule._replace(has_caller=rule.has_caller and register != _RA), at
    if operation == 0x09:  # register: in another one
        _, at = uleb128(code, at)
        return rule._replace(cfa=UNKNOWN) if register in (_RBP, _RA) else rule, at
    raise ValueError(f"instruction {operation:#x}")


def _kind(register: int) -> int:
    return {_RSP: FROM_SP, _RBP: FROM_BP}.get(register, UNKNOWN)


def _saved(rule: _Rule, register: int, offset: int) -> _Rule:
    if register == _RBP:
        return rule._replace(bp=SAVED, bp_offset=offset)
    if register == _RA and offset != -8:
        return rule._replace(has_caller=False)
    return rule


def _restored(rule: _Rule, register: int, to: _Rule) -> _Rule:
    return rule._replace(bp=to.bp, bp_offset=to.bp_offset) if register == _RBP else rule


def _computed(rule: _Rule, register: int, expression: bytes) -> _Rule:
    """The rule with the CFA (-1) or a register given by a DWARF expression."""
    if register == -1:
        return rule._replace(cfa=IN_PLT if expression == _PLT_EXPRESSION else UNKNOWN)
    if register in (_RBP, _RA):
        return rule._replace(has_caller=False)
    return rule
