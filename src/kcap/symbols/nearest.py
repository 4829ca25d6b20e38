# SPDX-License-Identifier: Apache-2.0
"""Names that a mistyped one may have been meant for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_CANDIDATES = 2000


def nearest(name: str, names: Iterable[str], count: int = 3, cutoff: float = 0.6) -> list[str]:
    """The names most like a given one, the best first.

    :param name: what was written.
    :param names: what there is; may be all of a kernel's 60,000 functions.
    :param count: at most so many.
    :param cutoff: how alike they have to be, from 0 to 1 (difflib's ratio).
    """
    from difflib import get_close_matches

    lower = name.lower()
    # difflib compares 60,000 names in seconds: keep those that share most pairs of letters.
    likely = _prefilter(lower, names)
    by_lower = {n.lower(): n for n in reversed(likely)}
    return [by_lower[n] for n in get_close_matches(lower, by_lower, count, cutoff)]


def _prefilter(name: str, names: Iterable[str]) -> list[str]:
    pairs = _pairs(name)
    # difflib's ratio is at most 2 * min / (a + b): names of a very different length are out.
    low, high = len(name) // 2, len(name) * 2 + 1
    unique = dict.fromkeys(n for n in names if low <= len(n) <= high)
    if len(unique) <= _CANDIDATES:
        return list(unique)
    scored = sorted(unique, key=lambda n: len(pairs & _pairs(n.lower())), reverse=True)
    return scored[:_CANDIDATES]


def _pairs(text: str) -> set[str]:
    return {text[i : i + 2] for i in range(len(text) - 1)}
