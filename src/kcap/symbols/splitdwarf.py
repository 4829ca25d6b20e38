# SPDX-License-Identifier: Apache-2.0
"""DWARF that the compiler left outside of the program: ``.dwo`` files and ``.dwp`` packages.

With ``-gsplit-dwarf`` the program keeps a skeleton of each unit, with its addresses and the name of
the file that has the rest; ``dwp`` puts many such files into one beside the program. Section 7.3
of the DWARF 5 standard. pyelftools reads units, but follows none of these links; the GNU extension
of DWARF 4 that came before is not read.
"""

from __future__ import annotations

import os
from functools import cache
from io import BytesIO
from struct import Struct, unpack_from
from typing import Any

from kcap.records import dataclass

# pyelftools is not typed: its entries are Any.
Unit = Any
DwarfInfo = Any

_SKELETON = "DW_UT_skeleton"
_INDEX_HEADER = Struct("<HHIII")  # version, padding, sections, units, slots (section 7.3.5.3)
#: Columns of a package's index (DW_SECT_*) and the sections that they are of.
_COLUMNS = {1: "info", 3: "abbrev", 4: "line", 5: "loclists", 6: "str_offsets", 8: "rnglists"}
#: Bytes before the first offset of a unit's part of .debug_str_offsets (section 7.26).
_STR_OFFSETS_HEADER = 8


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
    if unit.header.get("unit_type") != _SKELETON:
        return unit
    top, unit_id = unit.get_top_DIE(), unit["dwo_id"]
    for candidate in _candidates(top, path):
        split = _read(candidate)
        sections = split.of_unit(unit_id) if split is not None else None
        found = _unit(sections, info, top) if sections is not None else None
        if found is not None and found["dwo_id"] == unit_id:
            return found
    return unit


def _candidates(top: Any, path: str) -> list[str]:
    """Where a skeleton's other half may be: the package, the file that is named, the same beside
    the program (builds are moved)."""

    def text(name: str) -> str:
        found = top.attributes.get(name)
        return os.fsdecode(found.value) if found is not None else ""

    name, directory = text("DW_AT_dwo_name"), os.path.dirname(os.path.realpath(path))
    named = os.path.join(text("DW_AT_comp_dir"), name)
    base = os.path.basename(path).removesuffix(".debug")
    packages = [f"{directory}/{base}.dwp", f"{path}.dwp"]
    return [*packages, named, os.path.join(directory, os.path.basename(name))]


@cache
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
    base = some._replace(name="DW_AT_str_offsets_base", value=_STR_OFFSETS_HEADER)
    top.attributes.setdefault("DW_AT_str_offsets_base", base)
    if "DW_AT_addr_base" in skeleton.attributes:
        top.attributes.setdefault("DW_AT_addr_base", skeleton.attributes["DW_AT_addr_base"])
    unit._dielist.insert(0, top)
    unit._diemap.insert(0, unit.cu_die_offset)
    top._translate_indirect_attributes()
    return unit


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
