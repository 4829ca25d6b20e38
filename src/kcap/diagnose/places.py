# SPDX-License-Identifier: Apache-2.0
"""Which place of the script a verifier's log is about."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING

from kcap.kernel.errors import CUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kcap.lang.source import Span

    Places = Sequence[tuple[int, Span]]

_INSTRUCTION = re.compile(r"^\s*(\d+): \([0-9a-f]{2}\)")
_NAMED = re.compile(
    r"(?:unreachable insn|loop detected at insn|back-edge from insn|jump out of range from insn"
    r"|unknown opcode at insn|R\d+ invalid insn) (\d+)"
)
_AT_ONCE = re.compile(r"(?P<insn>\d+) insns? is too large|combined stack size|Stack depth")


def failing_instruction(log: Sequence[str]) -> int | None:
    """The index of the instruction that a log ends at, or that its last words name; None if it
    says nothing of a single one (the size of the program, or of its stack), or if lines are missing
    before it does."""
    for line in reversed(log):
        if line == CUT:
            return None
        named = _NAMED.search(line)
        if named is not None:
            return int(named[1])
        if _AT_ONCE.search(line):
            return None
        found = _INSTRUCTION.match(line)
        if found is not None:
            return int(found[1])
    return None


def place(log: Sequence[str], places: Places) -> Span | None:
    """Where in the script the instruction that a log is about comes from.

    :param places: (index of an instruction, its place), ascending; each counts up to the next.
    """
    insn = failing_instruction(log)
    if insn is None or not places:
        return None
    at = bisect_right([start for start, _ in places], insn) - 1
    return places[at][1] if at >= 0 else None
