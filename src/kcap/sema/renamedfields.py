# SPDX-License-Identifier: Apache-2.0
"""Fields of kernel structs that have another name on other kernels: ``renamedfields.tsv``.

Each line: the struct, the field's old name, what takes its place (a name, or a way to it), the
first kernel release that has it. From the kernel's history; a live test compares it with the types
of the kernels.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container


class RenamedField(NamedTuple):
    """A line of the table.

    :ivar since: the first release that has the new name.
    """

    struct: str
    old: str
    new: str
    since: str


@cache
def renamed_fields() -> tuple[RenamedField, ...]:
    """The whole table."""
    text = (files("kcap.sema") / "renamedfields.tsv").read_text("utf-8")
    return tuple(RenamedField(*line.split("\t")) for line in text.splitlines()[1:])


def other_name(struct: str, name: str, fields: Container[str]) -> tuple[str, str] | None:
    """(what a field is called here, a sentence that says so), or None.

    :param struct: the struct's name.
    :param name: the field as the script calls it, which is not there.
    :param fields: the fields that are there.
    """
    for row in renamed_fields():
        if row.struct != struct:
            continue
        if row.old == name and first_field(row.new) in fields:
            return row.new, f"since Linux {row.since} {row.new} takes the place of {row.old}"
        if row.new == name and row.old in fields:
            return row.old, f"before Linux {row.since} {row.new} was called {row.old}"
    return None


def first_field(path: str) -> str:
    """The struct's own field that a way begins with."""
    return path.partition(".")[0].partition("[")[0]
