# SPDX-License-Identifier: Apache-2.0
"""Which kinds of BPF programs may call which helper, on which kernels: ``helpers.tsv``.

The table holds what kernels answered (``prober.py`` asks, ``tools/update_helpers.py`` writes the
table). A cell is the oldest of the probed kernels that lets programs of the kind call the helper.
In parentheses: where the kernel was built for it (bpf_override_return needs
CONFIG_BPF_KPROBE_OVERRIDE), which none of the probed ones was. ``introduced`` is the first release
that has the helper at all, from the kernel's history.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Final

from kcap.diagnose.programkinds import KINDS, ProgramKind
from kcap.records import dataclass

COLUMNS: Final = ("number", "helper", "introduced", *(kind.key for kind in KINDS))

Release = tuple[int, int]


@cache
def release_of(text: str) -> Release:
    """(6, 1) for ``6.1``, ``6.1.192`` or ``6.1.0-56-cloud-amd64``.

    :raises ValueError: the text does not begin with a kernel release.
    """
    major, _, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return int(major), int(rest[:digits])


@dataclass(frozen=True, slots=True)
class Row:
    """What is known about a helper.

    :param introduced: the first kernel that has it, or None if not known.
    :param since: by kind's key, the oldest probed kernel that lets such programs call it.
    :param configured: keys of kinds that may call it where the kernel was built for that.
    """

    number: int
    name: str
    introduced: Release | None
    since: dict[str, Release]
    configured: frozenset[str]


@dataclass(frozen=True, slots=True)
class Table:
    """The whole table.

    :param probed: the kernels that were asked, oldest first.
    :param rows: by the helper's number.
    """

    probed: tuple[Release, ...]
    rows: dict[int, Row]

    def allowed(self, helper: int, kind: ProgramKind, release: Release | None) -> bool | None:
        """Whether programs of a kind may call a helper; None where the table can't tell.

        :param helper: its number.
        :param release: the kernel; None asks whether any kernel lets them.
        """
        row = self.rows.get(helper)
        if row is None or kind.key in row.configured:
            return None
        since = row.since.get(kind.key)
        if release is None:
            return since is not None
        if row.introduced is not None and release < row.introduced:
            return False
        if since is None:
            # What no probed kernel does, older ones did not either: kinds are only ever added.
            return False
        if release >= since:
            return True
        older = [probed for probed in self.probed if probed < since]
        return False if older and release <= older[-1] else None

    def kinds(self, helper: int, release: Release | None) -> list[ProgramKind]:
        """The kinds that may call a helper on a kernel."""
        return [kind for kind in KINDS if self.allowed(helper, kind, release)]


@cache
def table() -> Table:
    """The table that comes with kcap."""
    # Not importlib.resources: importing that takes longer than all the rest of the check.
    path = os.path.join(os.path.dirname(__file__), "helpers.tsv")
    with open(path, encoding="utf-8") as file:
        return parse(file.read())


def parse(text: str) -> Table:
    """A table from its text.

    :raises ValueError: a cell is neither empty nor a release.
    """
    probed: tuple[Release, ...] = ()
    rows: dict[int, Row] = {}
    for line in text.splitlines():
        if line.startswith("# probed:"):
            probed = tuple(release_of(word) for word in line.split()[2:])
        elif line and line[0].isdigit():
            row = _row(line.split("\t"))
            rows[row.number] = row
    return Table(probed, rows)


def _row(cells: list[str]) -> Row:
    number, name, introduced, *since = cells
    by_kind = dict(zip((kind.key for kind in KINDS), since, strict=True))
    return Row(
        int(number),
        name,
        release_of(introduced) if introduced else None,
        {key: release_of(cell) for key, cell in by_kind.items() if cell and cell[0] != "("},
        frozenset(key for key, cell in by_kind.items() if cell.startswith("(")),
    )
