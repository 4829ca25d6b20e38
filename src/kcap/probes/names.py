# SPDX-License-Identifier: Apache-2.0
"""Names with wildcards, and names that look alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


CUTOFF = 0.75
"""How alike names have to be to be proposed, from 0 to 1 (difflib's ratio)."""


def has_wildcard(text: str) -> bool:
    """Whether ``text`` is a pattern; ``*`` (any number of any characters) is the only wildcard."""
    return "*" in text


class Pattern:
    """A name in which ``*`` stands for any number of characters.

    :param text: the pattern; without a ``*`` it matches itself only.
    """

    __slots__ = ("_head", "_middle", "_tail", "exact", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        head, *rest = text.split("*")
        self.exact = not rest
        self._head = head
        self._tail = rest[-1] if rest else ""
        self._middle = [piece for piece in rest[:-1] if piece]

    def matches(self, name: str) -> bool:
        """Whether the pattern stands for ``name``."""
        if self.exact:
            return name == self.text
        if self.text == "*":
            return True
        head, tail = self._head, self._tail
        if not (name.startswith(head) and name.endswith(tail)):
            return False
        at, end = len(head), len(name) - len(tail)
        if at > end:
            return False
        for piece in self._middle:
            at = name.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True

    @property
    def regex(self) -> str:
        """The pattern as the text of a regular expression that stays within one line."""
        from re import escape

        return r"[^\s]*".join(escape(piece) for piece in self.text.split("*"))


def _pieces(name: str) -> tuple[str, ...]:
    """Thirds of a name (halves of a short one): one edit leaves all but one of them intact."""
    if len(name) < 5:
        return ()
    parts = 3 if len(name) >= 9 else 2
    step = len(name) // parts
    ends = [step * (i + 1) for i in range(parts - 1)] + [len(name)]
    return tuple(name[step * i : end] for i, end in enumerate(ends))


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Names that a misspelt ``name`` may have meant, the most alike first.

    Only names of about the same length that have a third of ``name`` in them are compared letter
    by letter, so that a kernel's 60,000 functions take some 20 ms.

    :param count: how many at most.
    """
    from kcap.symbols.nearest import nearest as rank

    pieces, size = _pieces(name), len(name)
    slack = max(3, size // 4)
    likely = {n for n in names if -slack <= len(n) - size <= slack}
    if pieces:
        likely = {n for n in likely if any(piece in n for piece in pieces)}
    return rank(name, sorted(likely), count, CUTOFF)


def enumerate_words(words: Iterable[str], last: str = "or") -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *front, end = list(words) or [""]
    return f"{', '.join(front)} {last} {end}" if front else end
