# SPDX-License-Identifier: Apache-2.0
"""DWARF that the compiler left outside of the program: ``.dwo`` files and ``.dwp`` packages.

With ``-gsplit-dwarf`` the program keeps a skeleton of each unit, with its addresses and the name of
the file that has the rest; ``dwp`` puts many such files into one beside the program. Section 7.3
of the DWARF 5 standard, and the GNU extension of DWARF 4 that came before
(https://gcc.gnu.org/wiki/DebugFission). pyelftools reads units, but follows none of these links.
"""

from __future__ import annotations

import os
from io import BytesIO
from struct import Struct, unpack_from
from typing import Any

from kcap.records import dataclass
from kcap.symbols.leb128 import uleb128
from kcap.symbols.perfile import kept_per_file

# pyelftools is not typed: its entries are Any.
Unit = Any
DwarfInfo = Any

_SKELETON = "DW_UT_skeleton"
_INDEX_HEADER = Struct("<HHIII")  # version, padding, sections, units, slots (section 7.3.5.3)
#: Columns of a package's index (DW_SECT_*) and the sections that they are of. Before DWARF 5 there
#: are others behind the numbers 5 and 8, whose sections have other names.
_COLUMNS = {1: "info", 3: "abbrev", 4: "line", 5: "loclists", 6: "str_offsets", 8: "rnglists"}
#: Bytes before the first offset of a unit's part of .debug_str_offsets (section 7.26); none before
#: DWARF 5.
_STR_OFFSETS_HEADER = 8
#: DW_FORM_GNU_addr_index and DW_FORM_GNU_str_index: the standard's DW_FORM_addrx and DW_FORM_strx.
_GNU_FORMS = {0x1F01: 0x1B, 0x1F02: 0x1A}


@dataclass(frozen=True, slots=True)
class _Split:
    """The sections of a ``.dwo`` or ``.dwp`` file, by name without ``.debug_`` and ``.dwo``."""

    sections: dict[str, bytes]

    def of_unit(self, unit_id: int) -> dict[str, bytes] | None:
        """The sections as the unit sees them, or None if the package has no such unit."""
        index = self.sections.get("cu_index")
        if index is None:
            return self.sections
        parts = _find_parts(index, unit_id)
        if parts is None:
            return None
        found = dict(self.sections)
        for column, (offset, size) in parts.items():
            name = _COLUMNS.get(column)
            if name in found:
                found[name] = found[name][offset : offset + size]
        return found


def whole_unit(info: DwarfInfo, unit: Unit, path: str) -> Unit:
    """The unit itself or, of a skeleton, the one that has its types and functions.

    :param info: the DWARF that ``unit`` is from.
    :param path: the file that it is from.
    :return: the skeleton if the other file is missing, or is not of the same build.
    """
    if unit["version"] >= 5 and unit["unit_type"] != _SKELETON:
        return unit
    top = unit.get_top_DIE()
    unit_id = _id(unit, top)
    if unit_id is None:
        return unit
    for candidate in _candidates(top, path):
        split = _read(candidate)
        sections = split.of_unit(unit_id) if split is not None else None
        found = _unit(sections, info, top) if sections is not None else None
        if found is not None and _id(found, found.get_top_DIE()) == unit_id:
            return found
    return unit


def _id(unit: Unit, top: Any) -> int | None:
    """What the two halves of a unit have in common; None if it is whole."""
    if unit["version"] >= 5:
        return int(unit["dwo_id"])
    found = top.attributes.get("DW_AT_GNU_dwo_id")
    return int(found.value) if found is not None else None


def _candidates(top: Any, path: str) -> list[str]:
    """Where a skeleton's other half may be: the package, the file that is named, the same beside
    the program (builds are moved)."""

    def text(name: str) -> str:
        found = top.attributes.get(name) or top.attributes.get(name.replace("AT_", "AT_GNU_"))
        return os.fsdecode(found.value) if found is not None else ""

    name, directory = text("DW_AT_dwo_name"), os.path.dirname(os.path.realpath(path))
    named = os.path.join(text("DW_AT_comp_dir"), name)
    base = os.path.basename(path).removesuffix(".debug")
    packages = [f"{directory}/{base}.dwp", f"{path}.dwp"]
    return [*packages, named, os.path.join(directory, os.path.basename(name))]


@kept_per_file
def _read(path: str) -> _Split | None:
    """The sections of a file, None if it is none of this kind."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with open(path, "rb") as file:
            found = {}
            for section in ELFFile(file).iter_sections():
                if section.name.startswith(".debug_"):
                    name = section.name.removeprefix(".debug_").removesuffix(".dwo")
                    found[name] = section.data()
    except (OSError, ELFError):  # not there, or no ELF file
        return None
    return _Split(found) if "info" in found else None


def _unit(sections: dict[str, bytes], info: DwarfInfo, skeleton: Any) -> Unit | None:
    """The first unit of some sections, which finds its addresses in the program's own."""
    from inspect import signature

    from elftools.dwarf.die import DIE
    from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DWARFInfo

    if "DW_AT_GNU_dwo_id" in skeleton.attributes:
        sections = {**sections, "abbrev": _in_standard_forms(sections.get("abbrev", b""))}

    def described(parameter: str) -> Any:
        name = parameter.removeprefix("debug_").removesuffix("_sec")
        if name == "addr":
            return info.debug_addr_sec
        data = sections.get(name)
        return data and DebugSectionDescriptor(BytesIO(data), name, 0, len(data), 0)

    wanted = [name for name in signature(DWARFInfo).parameters if name.endswith("_sec")]
    split: DwarfInfo = DWARFInfo(info.config, **{name: described(name) for name in wanted})
    unit = next(split.iter_CUs(), None)
    if unit is None:
        return None
    # What a unit in a file of its own leaves out: it begins at the beginning, and the skeleton
    # says where its addresses are (section 3.1.3). pyelftools wants to be told.
    top = DIE(cu=unit, stream=split.debug_info_sec.stream, offset=unit.cu_die_offset)
    some = next(iter(skeleton.attributes.values()))
    strings = _STR_OFFSETS_HEADER if unit["version"] >= 5 else 0
    base = some._replace(name="DW_AT_str_offsets_base", value=strings)
    top.attributes.setdefault("DW_AT_str_offsets_base", base)
    for name in ("DW_AT_addr_base", "DW_AT_GNU_addr_base"):
        if name in skeleton.attributes:
            top.attributes.setdefault("DW_AT_addr_base", skeleton.attributes[name])
    unit._dielist.insert(0, top)
    unit._diemap.insert(0, unit.cu_die_offset)
    top._translate_indirect_attributes()
    return unit


def _in_standard_forms(abbrev: bytes) -> bytes:
    """Abbreviations (section 7.5.3 of DWARF 4) with the standard's forms in place of the GNU
    extension's, which have the same values; a LEB128 number may end in zeros, so that nothing
    moves."""
    made, at = bytearray(abbrev), 0
    while at < len(abbrev):
        code, at = uleb128(abbrev, at)
        if not code:  # the end of a unit's abbreviations
            continue
        _, at = uleb128(abbrev, at)
        at += 1  # whether there are children
        name = form = -1
        while name or form:
            name, form_at = uleb128(abbrev, at)
            form, at = uleb128(abbrev, form_at)
            if form in _GNU_FORMS:
                made[form_at:at] = bytes((_GNU_FORMS[form] | 0x80, 0))
    return bytes(made)


def _find_parts(index: bytes, unit_id: int) -> dict[int, tuple[int, int]] | None:
    """(offset, size) of a unit's part of each section by column, from a package's index."""
    _, _, sections, units, slots = _INDEX_HEADER.unpack_from(index)
    ids_at = _INDEX_HEADER.size
    rows_at = ids_at + 8 * slots
    columns_at = rows_at + 4 * slots
    ids = unpack_from(f"<{slots}Q", index, ids_at)
    rows = unpack_from(f"<{slots}I", index, rows_at)
    row = next((r for i, r in zip(ids, rows, strict=True) if r and i == unit_id), 0)
    if not row:
        return None
    columns = unpack_from(f"<{sections}I", index, columns_at)
    offsets_at = columns_at + 4 * sections * row
    offsets = unpack_from(f"<{sections}I", index, offsets_at)
    sizes = unpack_from(f"<{sections}I", index, offsets_at + 4 * sections * units)
    return dict(zip(columns, zip(offsets, sizes, strict=True), strict=True))
