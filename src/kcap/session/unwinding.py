# SPDX-License-Identifier: Apache-2.0
"""Which files the traced processes run: those whose frame tables ``dw_ustack()`` takes."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from kcap.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def unwound_files(
    pid: int | None, dwarf_pids: Sequence[int], command: str
) -> Callable[[], tuple[str, ...]] | None:
    """What finds the files, when a script asks; None if no process was named.

    :param pid: the process of ``-p``.
    :param dwarf_pids: those of ``--dwarf-pid``.
    :param command: what ``-c`` will execute.
    """
    pids = [*([pid] if pid is not None else []), *dwarf_pids]
    return partial(_find, tuple(pids), command) if pids or command else None


def _find(pids: Sequence[int], command: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    if command:
        import shutil

        program = shutil.which(command.split()[0])
        if program is not None:
            found.update(dict.fromkeys(with_libraries(program)))
    for pid in pids:
        found.update(dict.fromkeys(mapped_files(pid)))
    return tuple(found)


def mapped_files(pid: int) -> list[str]:
    """The files that a process has mapped to execute, as this process finds them."""
    from kcap.symbols.process import parse_maps

    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            mappings = parse_maps(file.read())
    except OSError:  # it has ended: then there is nothing to walk
        return []
    return list(dict.fromkeys(mapping.names(pid)[0] for mapping in mappings))


def with_libraries(program: str) -> list[str]:
    """A program, its interpreter and all libraries that it is linked with, however far away."""
    from kcap.probes.binaries import libraries
    from kcap.symbols.elf import ElfFile

    known = dict(reversed(libraries(os.uname().machine)))
    found: dict[str, None] = {}
    waiting = [program]
    while waiting:
        path = waiting.pop(0)
        if path in found:
            continue
        found[path] = None
        try:
            elf = ElfFile(path)
        except FileError:  # a script: its interpreter is another program
            continue
        own = [os.path.dirname(os.path.realpath(path))]
        for name in elf.needed():
            beside = (f"{directory}/{name}" for directory in own)
            waiting += [known[name]] if name in known else [p for p in beside if os.path.exists(p)]
        waiting += [elf.interpreter] if elf.interpreter else []
        elf.close()
    return list(found)
