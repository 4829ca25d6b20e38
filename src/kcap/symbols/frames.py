# SPDX-License-Identifier: Apache-2.0
"""Source lines and inlined functions of an address, from DWARF.

One address stands for several frames where functions were inlined: the line table says which line
the instruction is of, and each inlined function where it was called from. Units of a file are read
when an address lies in them. Attributes and tags are those of the DWARF 5 standard, section 3.3 and
6.2, which older versions share.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kcap.symbols.dwarf import HOLDERS, Die, DwarfInfo, dwarf_size, entry_name, read_dwarf, reading

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Debugging information of more bytes is left alone: reading it would take many seconds.
SIZE_LIMIT = 256 << 20
_SCOPES = ("DW_TAG_lexical_block", "DW_TAG_try_block", "DW_TAG_catch_block")


class SourceFrame(NamedTuple):
    """A function that an address is in.

    :ivar name: its name, mangled where the file has it so; '' if the file doesn't say.
    :ivar file: the source file's path; '' if not known.
    :ivar line: the line that is executed; 0 if not known.
    """

    name: str
    file: str
    line: int


class SourceFrames:
    """Looks up addresses of one file, and keeps what it has read of it.

    :param path: an ELF file with DWARF; of others, nothing is known.
    :param limit: as :data:`SIZE_LIMIT`.
    :raises FileError: it can't be read.
    """

    def __init__(self, path: str, limit: int = SIZE_LIMIT) -> None:
        self._info: DwarfInfo | None = None
        if dwarf_size(path) <= limit:
            self._info = read_dwarf(path)
        self._path = path
        self._units: dict[int, _Unit] = {}

    def find(self, address: int) -> list[SourceFrame]:
        """The frames of a virtual address (before relocation), the innermost inlined function
        first and the function that it all became a part of last; empty if nothing is known.

        :raises FileError: the DWARF makes no sense.
        """
        return self._asked(address, lambda unit: unit.frames(address)) or []

    def line(self, address: int) -> str:
        """The source file, as it was named when it was compiled, and the line of an address
        (``net/ipv4/udp.c:2312``); '' if not known. Much quicker than :meth:`find`.

        :raises FileError: the DWARF makes no sense.
        """
        return self._asked(address, lambda unit: unit.place(address)) or ""

    def _asked(self, address: int, ask: Callable[[_Unit], T]) -> T | None:
        """What the unit says that an address is of; None if there is none."""
        if self._info is None:
            return None
        with reading(self._path):
            unit = self._unit_at(address)
            return ask(unit) if unit is not None else None

    def _unit_at(self, address: int) -> _Unit | None:
        assert self._info is not None
        ranges = self._info.get_aranges()
        offset = ranges.cu_offset_at_addr(address) if ranges is not None else None
        if offset is None:
            offset = next((at for low, high, at in self._bounds if low <= address < high), None)
        if offset is None:
            return None
        if offset not in self._units:
            self._units[offset] = _Unit(self._info, self._info.get_CU_at(offset))
        return self._units[offset]

    @cached_property
    def _bounds(self) -> list[tuple[int, int, int]]:
        """(first address, address behind, offset of the unit) of every range of every unit."""
        assert self._info is not None
        return [
            (low, high, unit.cu_offset)
            for unit in self._info.iter_CUs()
            for low, high in _ranges(self._info, unit, unit.get_top_DIE())
        ]


class _Unit:
    """One compilation unit.

    :param info: the file's DWARF.
    :param unit: pyelftools' unit.
    """

    def __init__(self, info: DwarfInfo, unit: Any) -> None:
        self._info = info
        self._unit = unit

    def frames(self, address: int) -> list[SourceFrame]:
        """See :meth:`SourceFrames.find`."""
        chain = self._chain(self._unit.get_top_DIE(), address)
        file, line = self._line(address)
        if not chain:
            return [SourceFrame("", file, line)] if line else []
        found = []
        for die in reversed(chain):
            found.append(SourceFrame(entry_name(die), file, line))
            file = self._file(_number(die, "DW_AT_call_file"))
            line = _number(die, "DW_AT_call_line")
        return found

    def place(self, address: int) -> str:
        """See :meth:`SourceFrames.line`."""
        file, line = self._line(address)
        if not line:
            return ""
        base = _text(self._unit.get_top_DIE(), "DW_AT_comp_dir")
        name = os.path.relpath(file, base) if base else file
        return f"{file if name.startswith('..') else name}:{line}"

    def _chain(self, parent: Die, address: int) -> list[Die]:
        """The function that an address is in, and those inlined in each other there."""
        for die in parent.iter_children():
            if die.tag in HOLDERS:
                found = self._chain(die, address)
                if found:
                    return found
            elif die.tag in ("DW_TAG_subprogram", "DW_TAG_inlined_subroutine"):
                if self._holds(die, address):
                    return [die, *self._chain(die, address)]
            elif die.tag in _SCOPES and self._holds(die, address):
                return self._chain(die, address)
        return []

    def _holds(self, die: Die, address: int) -> bool:
        return any(low <= address < high for low, high in _ranges(self._info, self._unit, die))

    def _line(self, address: int) -> tuple[str, int]:
        """The file and line of the instruction at an address; ('', 0) if not known."""
        rows = self._rows
        index = bisect_right(rows, address, key=lambda row: row[0]) - 1
        if index < 0 or rows[index][2] == 0:
            return "", 0
        return self._file(rows[index][1]), rows[index][2]

    @cached_property
    def _program(self) -> Any:
        return self._info.line_program_for_CU(self._unit)

    @cached_property
    def _rows(self) -> list[tuple[int, int, int]]:
        """(address, file, line) of the line table, by address; line 0 behind a sequence's end."""
        entries = self._program.get_entries() if self._program is not None else ()
        states = [entry.state for entry in entries if entry.state is not None]
        rows = [(s.address, s.file, 0 if s.end_sequence else s.line) for s in states]
        # Where one sequence ends and another begins, the beginning comes last.
        return sorted(rows, key=lambda row: (row[0], row[2] != 0))

    def _file(self, number: int) -> str:
        """The path of a source file by its number in the line table's header."""
        program = self._program
        if program is None:
            return ""
        first = 0 if program["version"] >= 5 else 1  # section 6.2.4 of DWARF 5
        files, directories = program["file_entry"], program["include_directory"]
        if not first <= number < len(files) + first:
            return ""
        entry = files[number - first]
        base = _text(self._unit.get_top_DIE(), "DW_AT_comp_dir")
        index = entry.dir_index - first
        directory = directories[index].decode("utf-8", "replace") if index >= 0 else ""
        return os.path.normpath(
            os.path.join(base, directory, entry.name.decode("utf-8", "replace"))
        )


def _ranges(info: DwarfInfo, unit: Any, die: Die) -> list[tuple[int, int]]:
    """(first address, address behind) of each piece of an entry's code."""
    low, high = die.attributes.get("DW_AT_low_pc"), die.attributes.get("DW_AT_high_pc")
    if low is not None and high is not None:
        is_address = high.form in ("DW_FORM_addr", "DW_FORM_addrx")
        return [(low.value, high.value if is_address else low.value + high.value)]
    ranges = die.attributes.get("DW_AT_ranges")
    lists = info.range_lists() if ranges is not None else None
    if lists is None:
        return []
    base = _number(unit.get_top_DIE(), "DW_AT_low_pc")
    found = []
    for entry in lists.get_range_list_at_offset(ranges.value, unit):
        if type(entry).__name__ == "BaseAddressEntry":
            base = entry.base_address
        else:
            start = 0 if getattr(entry, "is_absolute", False) else base
            found.append((start + entry.begin_offset, start + entry.end_offset))
    return found


def _number(die: Die, name: str) -> int:
    found = die.attributes.get(name)
    return found.value if found is not None and isinstance(found.value, int) else 0


def _text(die: Die, name: str) -> str:
    found = die.attributes.get(name)
    return found.value.decode("utf-8", "replace") if found is not None else ""
