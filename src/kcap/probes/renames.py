# SPDX-License-Identifier: Apache-2.0
"""Kernel functions that took another name, or became part of others.

The facts stand in ``renames.tsv``: the name that scripts use, the names that may take its place
(separated by commas, the best first), the kernel version that changed it (for the message only),
and what happened. Which of them a machine has is asked of the machine, not of its version.
"""

from __future__ import annotations

from functools import cache

from kcap.records import dataclass


@dataclass(frozen=True, slots=True)
class Rename:
    """One line of the table.

    :param old: the function that a script names.
    :param new: functions that may take its place.
    :param since: the first kernel version with the change, or ''.
    :param note: what happened, as the end of a sentence.
    """

    old: str
    new: tuple[str, ...]
    since: str
    note: str


@cache
def renames() -> tuple[Rename, ...]:
    """The whole table."""
    from importlib.resources import files

    text = (files("kcap.probes") / "renames.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines()[1:] if line and line[0] != "#"]
    return tuple(Rename(old, tuple(new.split(",")), since, note) for old, new, since, note in rows)


def known_names() -> list[str]:
    """Every name of the table."""
    return [name for entry in renames() for name in (entry.old, *entry.new)]


def successors(name: str) -> list[tuple[str, str]]:
    """(other name, note) of the functions that do the work of ``name`` on some other kernel.

    The table is read in both directions: a script for a new kernel may run on an old one.

    :param name: the function that this kernel doesn't have.
    """
    found = []
    for entry in renames():
        when = f" (Linux {entry.since})" if entry.since else ""
        if entry.old == name:
            found += [(new, f"{entry.note}{when}") for new in entry.new]
        elif name == entry.new[0]:
            found.append((entry.old, f"{entry.note}{when}"))
    for prefix in ("sys_", "SyS_"):
        if name.startswith(prefix):
            call = name.removeprefix(prefix)
            note = "system calls take their arguments from struct pt_regs (Linux 4.17)"
            found += [(f"__{arch}_sys_{call}", note) for arch in ("x64", "arm64", "riscv")]
    return found
