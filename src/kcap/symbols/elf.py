# SPDX-License-Identifier: Apache-2.0
"""Symbols and file offsets of 64-bit ELF executables and libraries.

uprobes want a place as an offset in the file, stacks give addresses; both need the program
headers and the symbol tables and nothing else. A library has 10,000 symbols and more: they are
read with ``struct.iter_unpack``, some ten times as fast as pyelftools builds its objects. DWARF is
pyelftools' business. The format is that of the System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from functools import cached_property
from mmap import ACCESS_READ, mmap
from stat import S_ISREG
from struct import Struct, iter_unpack
from struct import error as struct_error
from typing import TYPE_CHECKING, NamedTuple

from kcap.errors import FileError
from kcap.symbols import archive

if TYPE_CHECKING:
    from collections.abc import Iterator

_EHDR = Struct("<16sHHIQQQIHHHHHH")
_SHDR = Struct("<IIQQQQIIQQ")
_PHDR = Struct("<IIQQQQQQ")
_SYMBOL = "<IBBHQQ"

_PT_LOAD, _PT_TLS = 1, 7
_PF_X = 1
_SHT_SYMTAB, _SHT_NOBITS, _SHT_DYNSYM = 2, 8, 11
_STT_OBJECT, _STT_FUNC, _STT_TLS, _STT_GNU_IFUNC = 1, 2, 6, 10
_FUNCTIONS = (_STT_FUNC, _STT_GNU_IFUNC)
_ET_EXEC = 2
_DT_NEEDED = 1


class ElfSymbol(NamedTuple):
    """A function, or a variable.

    :ivar name: its name, mangled as in the file, without a version.
    :ivar address: virtual address before relocation.
    :ivar size: bytes; 0 where the file doesn't say.
    """

    name: str
    address: int
    size: int


class Section(NamedTuple):
    """A section header: name, type, virtual address, offset and size in the file, link."""

    name: str
    kind: int
    address: int
    offset: int
    size: int
    link: int


class Segment(NamedTuple):
    """A PT_LOAD program header: offset and virtual address, sizes in file and in memory."""

    offset: int
    address: int
    file_size: int
    memory_size: int
    executable: bool


class ElfFile:
    """An executable or library, mapped read-only.

    :param path: the file, or one in an archive (:mod:`kcap.symbols.archive`): then places are those
        in the archive.
    :raises FileError: it can't be read, or is no 64-bit little-endian ELF file.

    Paths may come from processes of other users: a FIFO in the place of a file is not waited for.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._data, self._start = _mapped(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise FileError(f"can't read {path}: {reason}", path) from error
        if self._data[:4] != b"\x7fELF":
            raise FileError(f"{path} is no ELF file", path)
        if self._data[4:6] != b"\x02\x01":
            raise FileError(
                f"{path} is a 32-bit or big-endian ELF file, which kcap can't probe", path
            )
        try:
            self._read_headers()
        except (struct_error, IndexError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> FileError:
        return FileError(f"{self.path} is a damaged ELF file: {error}", self.path)

    def _read_headers(self) -> None:
        fields = _EHDR.unpack_from(self._data)
        kind, phoff, shoff = fields[1], fields[5], fields[6]
        phentsize, phnum, shentsize, shnum, shstrndx = fields[9:14]
        self.is_relocatable = kind != _ET_EXEC
        headers = [_PHDR.unpack_from(self._data, phoff + i * phentsize) for i in range(phnum)]
        self.segments = [
            Segment(offset, address, in_file, in_memory, bool(flags & _PF_X))
            for kind, flags, offset, address, _, in_file, in_memory, _ in headers
            if kind == _PT_LOAD
        ]
        #: Bytes of a thread's own variables, and what they are aligned to.
        self._of_threads = next(((h[6], h[7]) for h in headers if h[0] == _PT_TLS), (0, 1))
        raw = [_SHDR.unpack_from(self._data, shoff + i * shentsize) for i in range(shnum)]
        names = self._slice(raw[shstrndx][4], raw[shstrndx][5]) if raw else b""
        self.sections = [Section(_string(names, h[0]), h[1], h[3], h[4], h[5], h[6]) for h in raw]

    def _slice(self, offset: int, size: int) -> bytes:
        if offset + size > len(self._data):
            raise ValueError("a section ends behind the end of the file")
        return self._data[offset : offset + size]

    def section(self, name: str) -> Section | None:
        """A section by name, or None."""
        return next((s for s in self.sections if s.name == name), None)

    def content(self, section: Section) -> bytes:
        """A section's bytes in the file: none if it is only in memory.

        :raises FileError: the file is shorter.
        """
        if section.kind == _SHT_NOBITS:
            return b""
        try:
            return self._slice(section.offset, section.size)
        except ValueError as error:
            raise self._damaged(error) from error

    @cached_property
    def functions(self) -> list[ElfSymbol]:
        """All functions that are defined here, by address; each name and address once.

        :raises FileError: a symbol table is damaged.
        """
        return self._symbols(_FUNCTIONS)

    @cached_property
    def function_names(self) -> list[str]:
        """The different names of :attr:`functions`, sorted: a third of the time, for lists.

        :raises FileError: a symbol table is damaged.
        """
        names: set[bytes] = set()
        for section in self._symbol_tables():
            try:
                names.update(self._names_in(section))
            except (struct_error, IndexError, ValueError) as error:
                raise self._damaged(error) from error
        return sorted(b"\n".join(names).decode("utf-8", "replace").split("\n")) if names else []

    def _symbol_tables(self) -> Iterator[Section]:
        return (each for each in self.sections if each.kind in (_SHT_SYMTAB, _SHT_DYNSYM))

    def _names_in(self, section: Section) -> set[bytes]:
        strings, table = self.content(self.sections[section.link]), self.content(section)
        index = strings.index
        names = {
            strings[at : index(b"\0", at)]
            for at, info, _, defined, address, _ in iter_unpack(_SYMBOL, table)
            if info & 0xF in _FUNCTIONS and defined and address
        }
        versioned = {name for name in names if b"@" in name}
        return names - versioned | {name.partition(b"@")[0] for name in versioned}

    def variable(self, name: str) -> ElfSymbol | None:
        """The variable with a name, the first if there are several; None if there is none.

        :raises FileError: a symbol table is damaged.
        """
        return next((s for s in self._symbols((_STT_OBJECT,)) if s.name == name), None)

    def thread_variable(self, name: str) -> int | None:
        """Where a program has a variable of each thread's own, in bytes from the thread pointer
        (%fs); None if there is none. (Of libraries only the dynamic linker knows.)

        They lie in front of it: https://www.akkadia.org/drepper/tls.pdf, 3.4.6, variant II.

        :raises FileError: a symbol table is damaged.
        """
        found = next((s for s in self._symbols((_STT_TLS,)) if s.name == name), None)
        size, alignment = self._of_threads
        return found.address - -(-size // max(1, alignment)) * alignment if found else None

    def _symbols(self, kinds: tuple[int, ...]) -> list[ElfSymbol]:
        found: dict[tuple[int, str], ElfSymbol] = {}
        for section in self._symbol_tables():
            try:
                self._read_symbols(section, kinds, found)
            except (struct_error, IndexError, ValueError) as error:
                raise self._damaged(error) from error
        return [found[key] for key in sorted(found)]

    def _read_symbols(
        self, section: Section, kinds: tuple[int, ...], found: dict[tuple[int, str], ElfSymbol]
    ) -> None:
        strings = self.content(self.sections[section.link])
        table = self.content(section)
        for name_at, info, _, index, address, size in iter_unpack(_SYMBOL, table):
            # the first of a thread's own variables is at 0
            if info & 0xF in kinds and index and (address or info & 0xF == _STT_TLS):
                end = strings.index(b"\0", name_at)
                # static symbol tables carry versions: memcpy@@GLIBC_2.14
                name = strings[name_at:end].partition(b"@")[0].decode("utf-8", "replace")
                found.setdefault((address, name), ElfSymbol(name, address, size))

    @cached_property
    def _by_name(self) -> dict[str, ElfSymbol]:
        return {symbol.name: symbol for symbol in reversed(self.functions)}

    @cached_property
    def _addresses(self) -> list[int]:
        return [symbol.address for symbol in self.functions]

    def function(self, name: str) -> ElfSymbol | None:
        """The function with a name, the first if there are several; None if there is none."""
        return self._by_name.get(name)

    def function_at(self, address: int) -> ElfSymbol | None:
        """The function that a virtual address (before relocation) lies in, or None."""
        index = bisect_right(self._addresses, address) - 1
        best = None
        while index >= 0:
            symbol = self.functions[index]
            if best is not None and symbol.address != best.address:
                break
            # of several names for one place the one that covers most of it
            if best is None or symbol.size > best.size:
                best = symbol
            index -= 1
        if best is None or address >= (best.address + best.size if best.size else self._end(best)):
            return None
        return best

    def _end(self, symbol: ElfSymbol) -> int:
        """Where the code ends that a function without a size may have."""
        for segment in self.segments:
            if segment.address <= symbol.address < segment.address + segment.memory_size:
                return segment.address + segment.memory_size
        return symbol.address

    def needed(self) -> list[str]:
        """The libraries that it is linked with (DT_NEEDED), as they are called there.

        :raises FileError: the file is damaged.
        """
        section = self.section(".dynamic")
        if section is None:
            return []
        try:
            strings = self.content(self.sections[section.link])
            entries = iter_unpack("<QQ", self.content(section))
            return [_string(strings, value) for tag, value in entries if tag == _DT_NEEDED]
        except (struct_error, IndexError, ValueError) as error:
            raise self._damaged(error) from error

    @property
    def interpreter(self) -> str:
        """The dynamic linker that it asks for, or ''."""
        section = self.section(".interp")
        return "" if section is None else os.fsdecode(self.content(section).rstrip(b"\0"))

    @property
    def fixed(self) -> bool:
        """Whether it is always mapped at the addresses that it was linked for (ET_EXEC)."""
        return int.from_bytes(self._data[16:18], "little") == 2

    def file_offset(self, address: int) -> int | None:
        """Where in the file a virtual address is, as uprobes want it; None if it isn't there."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.file_size:
                return address - segment.address + segment.offset + self._start
        return None

    def address_of(self, offset: int) -> int | None:
        """The virtual address (before relocation) of a mapped place in the file, or None."""
        offset -= self._start
        for segment in self.segments:
            if segment.offset <= offset < segment.offset + segment.file_size:
                return offset - segment.offset + segment.address
        return None

    def close(self) -> None:
        """Unmap the file."""
        self._data.close()


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode("utf-8", "replace")


def _mapped(path: str) -> tuple[mmap, int]:
    """A file's content, and where it begins in the file: not at 0 where that is an archive.

    :raises FileError: as :func:`kcap.symbols.archive.placed`.
    :raises OSError: it can't be read.
    :raises ValueError: it has none.
    """
    file, member = archive.split(path)
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if not status.st_size:
            raise ValueError("it is empty")
        if not member:
            return mmap(descriptor, 0, access=ACCESS_READ), 0
        start, size = archive.placed(file, member)
        copy = mmap(-1, size)
        copy.write(os.pread(descriptor, size, start))
        return copy, start
    finally:
        os.close(descriptor)
