# SPDX-License-Identifier: Apache-2.0
"""Names that are close to one that is not known: "did you mean …?"."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """The candidates that ``name`` is most likely a misspelling of, the nearest first.

    A candidate counts when at most a third of the name's letters (but at least one) differ, or
    when it is the same but for case and underscores.

    :param limit: the most names to return.
    """
    allowed = max(1, len(name) // 3)
    folded = name.lower().replace("_", "")
    scored: list[tuple[int, str]] = []
    for candidate in set(candidates):
        if candidate == name:
            continue
        if candidate.lower().replace("_", "") == folded:
            scored.append((0, candidate))
        elif abs(len(candidate) - len(name)) <= allowed:
            distance = edit_distance(name, candidate, allowed)
            if distance <= allowed:
                scored.append((distance, candidate))
    # Of equally near ones the longer first: letters are left out more often than added.
    scored.sort(key=lambda pair: (pair[0], -len(pair[1]), pair[1]))
    return [candidate for _, candidate in scored[:limit]]


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
