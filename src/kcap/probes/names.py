# SPDX-License-Identifier: Apache-2.0
"""Names with wildcards, and lists of names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


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


def enumerate_words(words: Iterable[str], last: str = "or") -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *front, end = list(words) or [""]
    return f"{', '.join(front)} {last} {end}" if front else end
