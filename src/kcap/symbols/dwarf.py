# SPDX-License-Identifier: Apache-2.0
"""Functions of a program and their types from DWARF, as BTF.

The types that a function's parameters need are written as BTF (:mod:`kcap.btf.build`), so that
everything that knows kernel types knows a program's, too. pyelftools reads the DWARF; it is
imported when that is asked for. Attributes and tags are those of the DWARF 5 standard, chapters 3
to 5, which older versions share.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from kcap import btf as b
from kcap.btf.build import BtfBuilder
from kcap.btf.types import INT_BOOL, INT_SIGNED
from kcap.errors import FileError, KcapError
from kcap.symbols.archive import open_binary
from kcap.symbols.debugfile import common_file
from kcap.symbols.elf import ElfFile
from kcap.symbols.splitdwarf import whole_unit

if TYPE_CHECKING:
    from collections.abc import Iterator

# pyelftools is not typed: its entries are Any.
Die = Any
DwarfInfo = Any

_SIGNED = {5, 6, 13}  # DW_ATE_signed, _signed_char, _signed_fixed
_DW_ATE_BOOLEAN, _DW_ATE_FLOAT = 2, 4
_MODIFIERS = {
    "DW_TAG_const_type": b.Const,
    "DW_TAG_volatile_type": b.Volatile,
    "DW_TAG_restrict_type": b.Restrict,
}
_POINTERS = (
    "DW_TAG_pointer_type",
    "DW_TAG_reference_type",
    "DW_TAG_rvalue_reference_type",
    "DW_TAG_ptr_to_member_type",
)
_DEEP = 60
_BY_REFERENCE = 4  # DW_CC_pass_by_reference
_IN_COMMON_FILE = "DW_FORM_GNU_ref_alt"
#: Entries that functions are defined in.
HOLDERS = ("DW_TAG_namespace", "DW_TAG_class_type", "DW_TAG_structure_type")
_COMPOSITES = ("DW_TAG_structure_type", "DW_TAG_class_type", "DW_TAG_union_type")


def function_btf(path: str, address: int, name: str = "") -> b.Btf | None:
    """The function at an address, and all types that its parameters and returned value need.

    :param path: an ELF file.
    :param address: where the function begins, as its symbol has it.
    :param name: what to call the function in the BTF.
    :return: BTF with one Func; None if the file has no DWARF, or none for that function.
    :raises FileError: the file can't be read, or its DWARF makes no sense.
    """
    with _opened(path) as info:
        if info is None:
            return None
        found = _subprogram(info, address, path)
        if found is None:
            return None
        writer = _Writer()
        proto = writer.prototype(found)
        writer.builder.func(name or _name(found), proto)
        return writer.finish(path)


def types_btf(path: str) -> b.Btf | None:
    """All named structs, unions, enums and typedefs of a program.

    :raises FileError: as :func:`function_btf`.
    """
    with _opened(path) as info:
        if info is None:
            return None
        writer = _Writer()
        for unit in info.iter_CUs():
            for die in _entries(whole_unit(info, unit, path).get_top_DIE()):
                wanted = (*_COMPOSITES, "DW_TAG_enumeration_type", "DW_TAG_typedef")
                if die.tag in wanted and "DW_AT_declaration" not in die.attributes:
                    writer.type(die)
        return writer.finish(path)


def _entries(unit: Die) -> Iterator[Die]:
    """The entries of a unit, those that it shares with other programs included."""
    for die in unit.iter_children():
        imported = die.attributes.get("DW_AT_import")
        if die.tag == "DW_TAG_imported_unit" and imported.form == _IN_COMMON_FILE:
            yield from _entries(die.get_DIE_from_attribute("DW_AT_import"))
        else:
            yield die


def line_addresses(path: str, file: str, line: int, column: int = 0) -> list[int]:
    """Where the code of a source line begins: the lowest address in each unit that has it.

    :param file: the source file's name, or the end of its path.
    :param column: only code of this column; 0 for any.
    :raises FileError: as :func:`function_btf`.
    """
    found = set()
    with _opened(path) as info:
        if info is None:
            return []
        for unit in info.iter_CUs():
            program = info.line_program_for_CU(unit)
            if program is None:
                continue
            wanted = _file_numbers(program, file)
            places = [
                entry.state.address
                for entry in program.get_entries()
                if entry.state is not None
                and not entry.state.end_sequence
                and entry.state.is_stmt
                and entry.state.line == line
                and entry.state.file in wanted
                and column in (0, entry.state.column)
            ]
            if places:
                found.add(min(places))
    return sorted(found)


def _file_numbers(program: Any, name: str) -> set[int]:
    """The numbers that a line program has for a source file."""
    first = 0 if program["version"] >= 5 else 1  # section 6.2.4 of DWARF 5
    found = set()
    for number, entry in enumerate(program["file_entry"], first):
        directories = program["include_directory"]
        index = entry.dir_index - first
        known = directories[index] if 0 <= index < len(directories) else b""
        full = f"{known.decode('utf-8', 'replace')}/{entry.name.decode('utf-8', 'replace')}"
        if full == name or full.endswith(f"/{name.removeprefix('./')}"):
            found.add(number)
    return found


def dwarf_size(path: str) -> int:
    """Bytes of a file's debugging information; 0 if it has none.

    :raises FileError: it can't be read.
    """
    elf = ElfFile(path)
    size = sum(s.size for s in elf.sections if s.name.startswith((".debug_", ".zdebug_")))
    elf.close()
    return size


def read_dwarf(path: str) -> DwarfInfo | None:
    """pyelftools' view of a file's DWARF, which lasts; None if there is none.

    :raises FileError: as :func:`function_btf`.
    """
    with _opened(path) as info:
        return info


def entry_name(die: Die) -> str:
    """The name that the linker knows a function by; '' if it has none."""
    linked = _attribute(die, "DW_AT_linkage_name")
    return linked.decode("utf-8", "replace") if isinstance(linked, bytes) else _name(die)


@contextmanager
def _opened(path: str) -> Iterator[DwarfInfo | None]:
    """The DWARF of a file, or None if it has none or pyelftools is missing."""
    try:
        from elftools.elf.elffile import ELFFile
    except ImportError:
        yield None
        return
    try:
        with reading(path), open_binary(path) as file:
            elf = ELFFile(file, partial(_open_common, path))
            yield elf.get_dwarf_info() if elf.has_dwarf_info(strict=True) else None
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror}", path) from error


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Make one error of what pyelftools raises in damaged files, which may be anything.

    :raises FileError: in the place of what was raised within, but for errors of kcap and OSError.
    """
    try:
        yield
    except (KcapError, OSError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        message = f"{path}: its debugging information makes no sense: {reason}"
        raise FileError(message, path) from error


def _open_common(path: str, name: str) -> IO[bytes]:
    """The file with what several programs' debugging information has in common.

    :raises FileError: it is not there.
    """
    elf = ElfFile(path)
    section = elf.section(".gnu_debugaltlink")
    build_id = elf.content(section).partition(b"\0")[2].hex() if section is not None else ""
    elf.close()
    found = common_file(path, name, build_id)
    if not found:
        message = f"{path}: half of its debugging information is in {name}, which is not there"
        raise FileError(message, path, hint="install all of the package with debug symbols")
    return open(found, "rb")


def _subprogram(info: DwarfInfo, address: int, path: str) -> Die | None:
    """The definition of the function that begins at an address, in a file or what it refers to."""
    ranges = info.get_aranges()
    offset = ranges.cu_offset_at_addr(address) if ranges is not None else None
    units = [info.get_CU_at(offset)] if offset is not None else info.iter_CUs()
    for unit in units:
        for die in functions_below(whole_unit(info, unit, path).get_top_DIE()):
            low = die.attributes.get("DW_AT_low_pc")
            if low is not None and low.value == address:
                return die
    return None


def functions_below(die: Die) -> Iterator[Die]:
    """The functions of an entry, those of the namespaces and classes in it included: clang defines
    functions there, gcc behind them."""
    for child in die.iter_children():
        if child.tag == "DW_TAG_subprogram":
            yield child
        elif child.tag in HOLDERS:
            yield from functions_below(child)


def _attribute(die: Die, name: str) -> Any:
    """An attribute's value, also that of the declaration it was made from; or None."""
    found = die.attributes.get(name)
    if found is not None:
        return found.value
    for link in ("DW_AT_specification", "DW_AT_abstract_origin"):
        if link in die.attributes:
            return _attribute(die.get_DIE_from_attribute(link), name)
    return None


def _name(die: Die) -> str:
    value = _attribute(die, "DW_AT_name")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _type_of(die: Die) -> Die | None:
    """The entry that DW_AT_type names, or None for void."""
    if "DW_AT_type" in die.attributes:
        return die.get_DIE_from_attribute("DW_AT_type")
    for link in ("DW_AT_specification", "DW_AT_abstract_origin"):
        if link in die.attributes:
            return _type_of(die.get_DIE_from_attribute(link))
    return None


class _Writer:
    """Writes entries as BTF types, each once.

    A struct may lead to itself: it gets its number before its members are written. Behind a long
    chain of pointers structs are only declared; they are found by name when they are followed.
    """

    def __init__(self) -> None:
        self.builder = BtfBuilder()
        self._ids: dict[tuple[Any, int], int] = {}  # by unit and offset in its file
        self._index = 0
        self._depth = 0

    def finish(self, name: str) -> b.Btf:
        """The BTF of all that was asked for."""
        return b.Btf(self.builder.to_bytes(), None, name)

    def prototype(self, die: Die) -> int:
        """The type of a function or of what a function pointer points to."""
        params = []
        for child in die.iter_children():
            if child.tag == "DW_TAG_formal_parameter":
                type_ = _type_of(child)
                written = self._pointer(child) if _is_referenced(type_) else self.type(type_)
                params.append(b.Param(_name(child), written))
            elif child.tag == "DW_TAG_unspecified_parameters":
                params.append(b.Param("", 0))
        return self.builder.func_proto(self.type(_type_of(die)), params)

    def type(self, die: Die | None) -> int:
        """The id of a type; 0 for void."""
        if die is None:
            return 0
        known = self._ids.get((die.cu, die.offset))
        if known is None:
            self._depth += 1
            known = self._write(die)
            self._depth -= 1
            if not (self._depth >= _DEEP and die.tag in _COMPOSITES):
                self._ids[die.cu, die.offset] = known
        return known

    def _write(self, die: Die) -> int:
        tag = die.tag
        if tag == "DW_TAG_base_type":
            return self._base(die)
        if tag in _POINTERS:
            return self._pointer(die)
        if tag in _MODIFIERS:
            return self.builder.modifier(_MODIFIERS[tag], self.type(_type_of(die)))
        if tag == "DW_TAG_typedef":
            return self.builder.modifier(b.Typedef, self.type(_type_of(die)), _name(die))
        if tag in _COMPOSITES:
            return self._composite(die)
        if tag == "DW_TAG_enumeration_type":
            return self._enum(die)
        if tag == "DW_TAG_array_type":
            return self._array(die)
        if tag == "DW_TAG_subroutine_type":
            return self.prototype(die)
        if tag == "DW_TAG_atomic_type":
            return self.type(_type_of(die))
        return 0  # unspecified types (nullptr_t) and other languages' own: void

    def _base(self, die: Die) -> int:
        size, encoding = _attribute(die, "DW_AT_byte_size") or 0, _attribute(die, "DW_AT_encoding")
        name = _name(die)
        if encoding == _DW_ATE_FLOAT:
            return self.builder.floating(name, size)
        if encoding == _DW_ATE_BOOLEAN:
            return self.builder.integer(name, size, INT_BOOL)
        return self.builder.integer(name, size, INT_SIGNED if encoding in _SIGNED else 0)

    def _pointer(self, die: Die) -> int:
        return self.builder.pointer(self.type(_type_of(die)))

    def _composite(self, die: Die) -> int:
        name, union = _name(die), die.tag == "DW_TAG_union_type"
        if "DW_AT_declaration" in die.attributes or self._depth > _DEEP:
            return self.builder.forward(name, union)
        self._ids[die.cu, die.offset] = reserved = self.builder.reserve()
        members = [m for child in die.iter_children() if (m := self._member(child)) is not None]
        size = _attribute(die, "DW_AT_byte_size") or 0
        write = self.builder.union if union else self.builder.struct
        self.builder.write(reserved, write(name, size, members))
        return reserved

    def _member(self, die: Die) -> b.Member | None:
        if die.tag not in ("DW_TAG_member", "DW_TAG_inheritance") or _is_static(die):
            return None
        bits = _attribute(die, "DW_AT_bit_size") or 0
        at = _attribute(die, "DW_AT_data_bit_offset")
        if at is None:
            at = 8 * _location(die)
            if bits:  # DWARF 3 and before: counted from the most significant bit of the storage
                storage = _attribute(die, "DW_AT_byte_size") or 4
                at += 8 * storage - bits - (_attribute(die, "DW_AT_bit_offset") or 0)
        return b.Member(_name(die), self.type(_type_of(die)), at, bits)

    def _enum(self, die: Die) -> int:
        values = [
            (_name(child), _attribute(child, "DW_AT_const_value") or 0)
            for child in die.iter_children()
            if child.tag == "DW_TAG_enumerator"
        ]
        size = _attribute(die, "DW_AT_byte_size") or 4
        return self.builder.enum(_name(die), values, size, any(value < 0 for _, value in values))

    def _array(self, die: Die) -> int:
        element = self.type(_type_of(die))
        counts = [_count(c) for c in die.iter_children() if c.tag == "DW_TAG_subrange_type"]
        for count in reversed(counts or [0]):
            self._index = self._index or self.builder.integer("__ARRAY_SIZE_TYPE__", 4)
            element = self.builder.array(element, self._index, count)
        return element


def _is_referenced(die: Die | None) -> bool:
    """Whether values of a type are passed by a pointer to them, as C++ passes those that are more
    than their bytes."""
    while die is not None and die.tag in (*_MODIFIERS, "DW_TAG_typedef"):
        die = _type_of(die)
    return die is not None and _attribute(die, "DW_AT_calling_convention") == _BY_REFERENCE


def _is_static(die: Die) -> bool:
    return "DW_AT_external" in die.attributes or "DW_AT_declaration" in die.attributes


def _location(die: Die) -> int:
    """Bytes from the beginning of the struct; 0 in a union, or where it must be computed."""
    value = _attribute(die, "DW_AT_data_member_location")
    return value if isinstance(value, int) else 0


def _count(die: Die) -> int:
    count = _attribute(die, "DW_AT_count")
    if isinstance(count, int):
        return count
    upper = _attribute(die, "DW_AT_upper_bound")
    return upper + 1 if isinstance(upper, int) else 0
