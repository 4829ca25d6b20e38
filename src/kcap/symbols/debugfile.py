# SPDX-License-Identifier: Apache-2.0
"""Where the debugging information of a stripped program is.

The places are GDB's ("Debugging Information in Separate Files" in its manual): by build id, and by
the name in the section ``.gnu_debuglink``, in the program's directory, in ``.debug`` below it, and
below directories for debugging information.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from kcap import elfnotes
from kcap.errors import FileError
from kcap.symbols.archive import split
from kcap.symbols.elf import ElfFile
from kcap.symbols.perfile import kept_per_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GLOBAL = "/usr/lib/debug"
_CHECKSUM = 4
"""Bytes of the CRC-32 at the end of ``.gnu_debuglink``."""


class _Link(NamedTuple):
    """What ``.gnu_debuglink`` says of the other file.

    :ivar name: '' without that section.
    :ivar checksum: CRC-32 of the whole file.
    """

    name: str = ""
    checksum: int = 0

    def fits(self, path: str) -> bool:
        """Whether a file is the one that is meant, as far as it can be told."""
        return not self.name or _checksum(path) == self.checksum


@kept_per_file
def _checksum(path: str) -> int:
    """A file's CRC-32."""
    checksum = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            checksum = crc32(chunk, checksum)
    return checksum


def debug_file(path: str, directories: Sequence[str] = ()) -> str:
    """The file that has the DWARF of a program; the program itself if it has it, or '' if none.

    :param path: an ELF file.
    :param directories: where to look first, before the usual places; relative ones count
        from here and from the program's directory.
    """
    own, build_id, link = _told(path)
    if own:
        return path
    for candidate in _candidates(path, directories, build_id, link.name):
        if os.path.isfile(candidate) and not os.path.samefile(candidate, split(path)[0]):
            has_dwarf, other_id, _ = _told(candidate)
            if has_dwarf and (other_id == build_id if build_id else link.fits(candidate)):
                return candidate
    return ""


def build_id_of(path: str) -> str:
    """The build id of an ELF file in hexadecimal; '' if it has none or can't be read."""
    return _told(path)[1]


def common_file(path: str, name: str, build_id: str) -> str:
    """The file that ``dwz`` moved to what several programs' debugging information has in common.

    :param path: the file with the rest.
    :param name: what that calls it (section ``.gnu_debugaltlink``): absolute, or from where it is.
    :param build_id: of the file that is looked for, in hexadecimal.
    :return: '' if it is not there.
    """
    here = os.path.dirname(os.path.realpath(path))
    by_id = f"{GLOBAL}/.build-id/{build_id[:2]}/{build_id[2:]}.debug"
    for candidate in (os.path.join(here, name), by_id, f"{GLOBAL}/.dwz/{os.path.basename(name)}"):
        if os.path.isfile(candidate) and _told(candidate)[1] == build_id:
            return candidate
    return ""


def _candidates(path: str, directories: Sequence[str], build_id: str, link: str) -> Iterator[str]:
    here = os.path.dirname(os.path.realpath(path))
    by_id = f".build-id/{build_id[:2]}/{build_id[2:]}.debug"
    names = [link] if link else [f"{os.path.basename(path)}.debug"]
    beside = [f"{here}/{directory}" for directory in directories if directory[:1] != "/"]
    for directory in (*directories, *beside, GLOBAL):
        if build_id:
            yield f"{directory}/{by_id}"
        for name in names:
            yield f"{directory}/{name}"
            yield f"{directory}{here}/{name}"
    for name in names:
        yield f"{here}/{name}"
        yield f"{here}/.debug/{name}"


@kept_per_file
def _told(path: str) -> tuple[bool, str, _Link]:
    """(whether a file has DWARF, its build id in hexadecimal, its debug link)."""
    try:
        with closing(ElfFile(path)) as elf:
            has_dwarf = any(elf.section(name) for name in (".debug_info", ".zdebug_info"))
            return has_dwarf, _build_id(elf), _link(elf)
    except FileError:  # not to be read: then it tells nothing
        return False, "", _Link()


def _build_id(elf: ElfFile) -> str:
    section = elf.section(".note.gnu.build-id")
    return elfnotes.build_id(elf.content(section)) if section is not None else ""


def _link(elf: ElfFile) -> _Link:
    section = elf.section(".gnu_debuglink")
    data = elf.content(section) if section is not None else b""
    name = data.split(b"\0", 1)[0].decode("utf-8", "replace")
    if not name or "/" in name:
        return _Link()
    return _Link(name, int.from_bytes(data[-_CHECKSUM:], "little"))
