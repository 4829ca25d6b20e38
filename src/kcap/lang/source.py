# SPDX-License-Identifier: Apache-2.0
"""Script text and places in it.

Offsets count characters of :attr:`Source.text` (not bytes); lines and columns start at 1. A file
that is not valid UTF-8 is decoded with ``surrogateescape``, so that no byte is lost.
"""

from __future__ import annotations

from bisect import bisect_right


class Source:
    """The text of one script, header or imported file.

    :param name: what a message calls it: a path, ``stdin`` or ``-e``.
    :param text: the whole text.
    """

    __slots__ = ("_line_starts", "name", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self._line_starts: list[int] | None = None

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {len(self.text)} characters)"

    def plain_parts(self) -> tuple[str, str]:
        """For :mod:`kcap.plain`."""
        return self.name, self.text

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> Source:
        """A source from the bytes of a file; invalid UTF-8 is kept as surrogates."""
        return cls(name, data.decode("utf-8", "surrogateescape"))

    @property
    def line_starts(self) -> list[int]:
        """The offset at which each line starts; line *n* starts at ``line_starts[n - 1]``."""
        starts = self._line_starts
        if starts is None:
            starts = [0]
            find = self.text.find
            at = find("\n")
            while at >= 0:
                starts.append(at + 1)
                at = find("\n", at + 1)
            self._line_starts = starts
        return starts

    def line_of(self, offset: int) -> int:
        """The line (from 1) that holds ``offset``."""
        return bisect_right(self.line_starts, offset)

    def column_of(self, offset: int) -> int:
        """The column (from 1, in characters) of ``offset`` in its line."""
        starts = self.line_starts
        return offset - starts[bisect_right(starts, offset) - 1] + 1

    def line_text(self, line: int) -> str:
        """The text of line ``line`` (from 1) without its line end.

        :raises IndexError: if there is no such line.
        """
        starts = self.line_starts
        if not 1 <= line <= len(starts):
            raise IndexError(f"{self.name} has no line {line}")
        end = starts[line] - 1 if line < len(starts) else len(self.text)
        return self.text[starts[line - 1] : end].removesuffix("\r")

    def span(self, start: int, end: int) -> Span:
        """The span from offset ``start`` up to, not including, ``end``."""
        return Span(self, start, end)

    def end_span(self) -> Span:
        """The empty span at the end of the text."""
        return Span(self, len(self.text), len(self.text))


class Span:
    """The characters ``start`` up to, not including, ``end`` of a source. Immutable by custom."""

    __slots__ = ("end", "source", "start")

    def __init__(self, source: Source, start: int, end: int) -> None:
        self.source = source
        self.start = start
        self.end = end

    def __repr__(self) -> str:
        return f"Span({self.source.name}:{self.line}:{self.column}, {self.text!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Span):
            return NotImplemented
        return self.source is other.source and self.start == other.start and self.end == other.end

    def __hash__(self) -> int:
        return hash((id(self.source), self.start, self.end))

    def __len__(self) -> int:
        return self.end - self.start

    def __bool__(self) -> bool:
        return True

    def plain_parts(self) -> tuple[object, ...]:
        """For :mod:`kcap.plain`."""
        return self.source, self.start, self.end

    @property
    def text(self) -> str:
        """The characters of the span."""
        return self.source.text[self.start : self.end]

    @property
    def line(self) -> int:
        """The line (from 1) where the span starts."""
        return self.source.line_of(self.start)

    @property
    def column(self) -> int:
        """The column (from 1) where the span starts."""
        return self.source.column_of(self.start)

    @property
    def end_line(self) -> int:
        """The line (from 1) of the offset just after the span."""
        return self.source.line_of(self.end)

    @property
    def end_column(self) -> int:
        """The column (from 1) of the offset just after the span."""
        return self.source.column_of(self.end)

    @property
    def location(self) -> str:
        """``name:line:column``, as messages print it."""
        return f"{self.source.name}:{self.line}:{self.column}"

    def to(self, other: Span) -> Span:
        """The smallest span that holds this one and ``other`` (of the same source)."""
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))

    def at_start(self) -> Span:
        """The empty span where this one starts: where an insertion goes."""
        return Span(self.source, self.start, self.start)

    def at_end(self) -> Span:
        """The empty span where this one ends."""
        return Span(self.source, self.end, self.end)


class MacroSpan(Span):
    """A place in the body of a macro, and the call that brought it into the script.

    :param call: the call; itself a :class:`MacroSpan` if that stands in a macro.
    """

    __slots__ = ("call",)

    def __init__(self, source: Source, start: int, end: int, call: Span) -> None:
        super().__init__(source, start, end)
        self.call = call

    def plain_parts(self) -> tuple[object, ...]:
        """For :mod:`kcap.plain`."""
        return self.source, self.start, self.end, self.call
