# SPDX-License-Identifier: Apache-2.0
"""Names that a mistyped one may have been meant for: "did you mean …?"."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_EDITS = 4
_MANY = 500
"""Of more names only those that have a part of the given one in them are compared letter by letter:
a kernel's 60,000 functions take some 50 ms, not seconds."""


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names that a misspelt one was most likely meant for, the most alike first.

    A name counts when it takes at most one edit for three letters, and at most four, to get from
    one to the other (:func:`edit_distance`), or when only case and underscores differ.

    :param name: what was written; it is never proposed itself.
    :param names: what there is; may be all of a kernel's functions.
    :param count: at most so many.
    """
    allowed = max(1, min(len(name) // 3, _MOST_EDITS))
    folded = _folded(name)
    likely = {n for n in names if abs(len(n) - len(name)) <= allowed or _folded(n) == folded}
    likely.discard(name)
    pieces = _pieces(name) if len(likely) > _MANY else ()
    if pieces:
        likely = {n for n in likely if any(p in n for p in pieces) or _folded(n) == folded}
    scored = []
    for candidate in likely:
        same = _folded(candidate) == folded
        distance = 0 if same else edit_distance(name, candidate, allowed)
        if distance <= allowed:
            scored.append((distance, -_in_common(name, candidate), candidate))
    return [candidate for _, _, candidate in sorted(scored)[:count]]


def _in_common(left: str, right: str) -> float:
    """How much of two names is the same letters, in whatever order: from 0 to 1. Of equally near
    ones this prefers swapped letters to a replaced one, and one left out to both."""
    shared = sum(min(left.count(letter), right.count(letter)) for letter in set(left))
    return 2 * shared / (len(left) + len(right))


def _folded(name: str) -> str:
    return name.lower().replace("_", "")


def _pieces(name: str) -> tuple[str, ...]:
    """Thirds of a name (halves of a short one): one edit leaves all but one of them intact."""
    if len(name) < 5:
        return ()
    parts = 3 if len(name) >= 9 else 2
    step = len(name) // parts
    ends = [step * (i + 1) for i in range(parts - 1)] + [len(name)]
    return tuple(name[step * i : end] for i, end in enumerate(ends))


def edit_distance(left: str, right: str, bound: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that turn one into the other.

    :param bound: a distance above it is reported as ``bound + 1``.
    """
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        new = [i]
        for j, b in enumerate(right, 1):
            cost = min(row[j] + 1, new[-1] + 1, row[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            new.append(cost)
        if min(new) > bound:
            return bound + 1
        before, row = row, new
    return row[-1]
