# SPDX-License-Identifier: Apache-2.0
"""Where the debugging information of a stripped program is.

The places are GDB's ("Debugging Information in Separate Files" in its manual): by build id, and by
the name in the section ``.gnu_debuglink``, in the program's directory, in ``.debug`` below it, and
below directories for debugging information.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GLOBAL = "/usr/lib/debug"


@cache
def debug_file(path: str, directories: Sequence[str] = ()) -> str:
    """The file that has the DWARF of a program; the program itself if it has it, or '' if none.

    :param path: an ELF file.
    :param directories: where to look first (a tuple), before the usual places; relative ones count
        from here and from the program's directory.
    """
    own, build_id, link = _told(path)
    if own:
        return path
    for candidate in _candidates(path, directories, build_id, link):
        if os.path.isfile(candidate) and not os.path.samefile(candidate, path):
            has_dwarf, other_id, _ = _told(candidate)
            if has_dwarf and (not build_id or other_id == build_id):
                return candidate
    return ""


def build_id_of(path: str) -> str:
    """The build id of an ELF file in hexadecimal; '' if it has none or can't be read."""
    return _told(path)[1]


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


def _told(path: str) -> tuple[bool, str, str]:
    """(whether a file has DWARF, its build id in hexadecimal, the name of its debug link)."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ImportError:
        return False, "", ""
    try:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            return elf.has_dwarf_info(strict=True), _build_id(elf), _link(elf)
    except (OSError, ELFError):  # not to be read: then it tells nothing
        return False, "", ""


def _build_id(elf: object) -> str:
    section = elf.get_section_by_name(".note.gnu.build-id")  # type: ignore[attr-defined]
    for note in section.iter_notes() if section is not None else ():
        if note["n_type"] == "NT_GNU_BUILD_ID":
            return str(note["n_desc"])
    return ""


def _link(elf: object) -> str:
    section = elf.get_section_by_name(".gnu_debuglink")  # type: ignore[attr-defined]
    if section is None:
        return ""
    name = section.data().split(b"\0", 1)[0].decode("utf-8", "replace")
    return "" if "/" in name else str(name)
