# SPDX-License-Identifier: Apache-2.0
"""Names of addresses in processes, for ``usym`` and ``ustack``.

A process' mappings say which file an address lies in; the file's symbols say which function. Files
are opened as the process sees them (/proc/PID/root), so that containers work; what an upgrade has
replaced is read where the process has it mapped (/proc/PID/map_files). Of processes that have
ended, what the kernel said of them while they ran is known, if somebody listened
(:meth:`ProcessSymbols.note`).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from kcap.errors import FileError
from kcap.kernel.mapping_events import Executed, Forked, Mapped
from kcap.symbols.elf import ElfFile
from kcap.symbols.perfile import identity

if TYPE_CHECKING:
    from kcap.kernel.mapping_events import Change
    from kcap.symbols.frames import SourceFrame, SourceFrames


#: The most processes of which the kernel's reports are kept; the oldest are forgotten.
MOST_NOTED = 4096
#: Behind the path of a mapped file that has none any more, in /proc/PID/maps.
DELETED = " (deleted)"


class Mapping(NamedTuple):
    """An executable mapping of a file: addresses, offset in the file, the file's path.

    :ivar deleted: the file has no path any more; if there is one at its path, it is another.
    """

    start: int
    end: int
    offset: int
    path: str
    deleted: bool = False

    def names(self, pid: int | str, proc: str = "/proc") -> tuple[str, ...]:
        """Where the file may be opened while the process has it mapped, the best first.

        :param pid: the process.
        :param proc: where procfs is mounted.
        """
        if self.deleted:  # opening it there takes CAP_SYS_ADMIN (CAP_CHECKPOINT_RESTORE from 5.9)
            return (f"{proc}/{pid}/map_files/{self.start:x}-{self.end:x}",)
        return f"{proc}/{pid}/root{self.path}", self.path


class UserSymbol(NamedTuple):
    """The function an address lies in.

    :ivar name: its name, mangled as in the file.
    :ivar offset: bytes behind its start.
    :ivar path: the file.
    """

    name: str
    offset: int
    path: str


def parse_maps(text: str) -> list[Mapping]:
    """The executable file mappings in the text of /proc/PID/maps, by address."""
    mappings = []
    for line in text.splitlines():
        # address perms offset dev inode path; the path may hold spaces
        bounds, permissions, offset, _, inode, *rest = line.split(None, 5)
        if "x" in permissions and inode != "0" and rest:
            start, end = (int(bound, 16) for bound in bounds.split("-"))
            path = rest[0].removesuffix(DELETED)
            mappings.append(Mapping(start, end, int(offset, 16), path, path != rest[0]))
    return mappings


class ProcessSymbols:
    """Looks up addresses of processes; keeps what it has read.

    :param proc: where procfs is mounted.
    :param programs: files that addresses of processes without mappings (they have ended) are
        looked up in, if they are always mapped at the same address.
    """

    def __init__(self, proc: str = "/proc", programs: Sequence[str] = ()) -> None:
        self._proc = proc
        self._programs = programs
        self._maps: dict[int, list[Mapping]] = {}
        self._noted: dict[int, list[Mapping]] = {}
        self._parents: dict[int, int] = {}
        self._files: dict[tuple[int, ...] | None, ElfFile | None] = {None: None}
        self._opened: dict[tuple[str, ...], ElfFile | None] = {}
        self._sources: dict[str, SourceFrames | None] = {}

    def remember(self, pid: int) -> None:
        """Read a process' mappings now, so that its addresses can be named after it has ended."""
        mappings = self._read_maps(pid)
        if mappings:
            self._maps[pid] = mappings

    def note(self, change: Change) -> None:
        """Keep what the kernel says of a process, for when it has ended."""
        if isinstance(change, Mapped):
            if change.path.startswith("/"):
                mapping = Mapping(change.start, change.end, change.offset, change.path)
                noted = self._noted.setdefault(change.pid, [])
                if mapping in noted:  # a library that is loaded again and again
                    noted.remove(mapping)
                noted.append(mapping)
        else:  # it begins anew
            self._maps.pop(change.pid, None)
            self._noted.pop(change.pid, None)
            self._parents.pop(change.pid, None)
            if isinstance(change, Forked):
                self._parents[change.pid] = change.parent
            elif isinstance(change, Executed):
                self._noted[change.pid] = []
        for known in (self._noted, self._parents):
            if len(known) > MOST_NOTED:
                del known[next(iter(known))]

    def find(self, pid: int, address: int) -> UserSymbol | None:
        """The function an address of a process lies in; None if that can't be told (the process
        has ended, the code has no symbols)."""
        place = self._place(pid, address)
        if place is None:
            return None
        elf, virtual, path = place
        symbol = elf.function_at(virtual)
        return UserSymbol(symbol.name, virtual - symbol.address, path) if symbol else None

    def source(self, pid: int, address: int, *, called: bool = False) -> list[SourceFrame]:
        """The functions inlined at an address, innermost first, and last the one that it is in,
        with their source lines; empty where there is no debugging information.

        :param called: it is where a call returns to: the call stands before it.
        """
        place = self._place(pid, address)
        if place is None:
            return []
        elf, virtual, path = place
        frames = self._source_of(elf, path)
        try:
            return frames.find(virtual - called) if frames is not None else []
        except FileError:  # damaged: names are all that is shown
            return []

    def _source_of(self, elf: ElfFile, path: str) -> SourceFrames | None:
        if elf.path not in self._sources:
            from kcap.symbols.debugfile import debug_file
            from kcap.symbols.frames import SourceFrames

            # The name that the process has for the file is gone with the process.
            found = (name for name in (elf.path, path) if self._files.get(identity(name)) is elf)
            try:
                told = debug_file(name) if (name := next(found, "")) else ""
                self._sources[elf.path] = SourceFrames(told) if told else None
            except FileError:
                self._sources[elf.path] = None
        return self._sources[elf.path]

    def _place(self, pid: int, address: int) -> tuple[ElfFile, int, str] | None:
        """The file that an address lies in, its virtual address there, the file's path."""
        mapping = self._mapping(pid, address)
        if mapping is None:
            return None if pid in self._maps else self._in_programs(address)
        elf = self._file(mapping.names(pid, self._proc))
        virtual = elf.address_of(address - mapping.start + mapping.offset) if elf else None
        return (elf, virtual, mapping.path) if elf and virtual is not None else None

    def _in_programs(self, address: int) -> tuple[ElfFile, int, str] | None:
        for path in self._programs:
            elf = self._file((path,))
            if elf is not None and elf.fixed and elf.function_at(address) is not None:
                return elf, address, path
        return None

    def _mapping(self, pid: int, address: int) -> Mapping | None:
        """By what procfs says or, of a process that has ended, what the kernel said; what that has
        not mapped itself it has from the one that it is a copy of."""
        process: int | None = pid
        seen: set[int] = set()  # numbers are given again: a parent's perhaps to its grandchild
        while process is not None and process not in seen:
            found = self._current_mapping(process, address)
            if found is not None or process in self._maps:
                return found
            for mapping in reversed(self._noted.get(process, ())):
                if mapping.start <= address < mapping.end:
                    return mapping
            seen.add(process)
            process = self._parents.get(process)
        return None

    def _current_mapping(self, pid: int, address: int) -> Mapping | None:
        found = _find(self._maps.get(pid, []), address)
        if found is None:  # first time, or mapped since (dlopen, exec)
            self.remember(pid)
            found = _find(self._maps.get(pid, []), address)
        return found

    def _read_maps(self, pid: int) -> list[Mapping]:
        try:
            with open(f"{self._proc}/{pid}/maps", encoding="utf-8", errors="replace") as file:
                return parse_maps(file.read())
        except OSError:  # the process has ended
            return []

    def _file(self, names: tuple[str, ...]) -> ElfFile | None:
        """The file that has one of some names, the first that there is."""
        if names not in self._opened:
            self._opened[names] = self._open(names)
        return self._opened[names]

    def _open(self, names: tuple[str, ...]) -> ElfFile | None:
        """The file, once for all processes that map it; None if it can't be read."""
        name = next(filter(os.path.exists, names), "")
        key = identity(name)
        if key not in self._files:
            try:
                self._files[key] = ElfFile(name)
            except FileError:  # no ELF file: code without names
                self._files[key] = None
        return self._files[key]


def _find(mappings: list[Mapping], address: int) -> Mapping | None:
    index = bisect_right(mappings, address, key=lambda m: m.start) - 1
    if index >= 0 and address < mappings[index].end:
        return mappings[index]
    return None
