# SPDX-License-Identifier: Apache-2.0
"""Diagnostics as text for a terminal, and as plain data for machines.

::

    error[syntax]: expected `)`, found `;`
      --> count.bt:2:13
       |
     2 |   print(@x;
       |        -  ^ expected `)`
       |        |
       |        opened here
       |
    help: insert `)`
       |
     2 -   print(@x;
     2 +   print(@x);

Control characters of the script are shown as symbols, so that a script can't send commands to the
terminal; tabs are expanded, and wide characters count as two columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kcap.lang.diagnostic import Diagnostic, Edit, Label
from kcap.lang.edits import apply_edits
from kcap.lang.source import MacroSpan, Source, Span

TAB = 4
#: Lines longer than this are cut to the part around the marks.
MAX_WIDTH = 140

_BOLD = "1"
_GUTTER = "1;34"
_COLORS = {"error": "1;31", "warning": "1;33", "note": "1;36", "help": "1;32"}


class _Paint:
    """Puts ANSI colours around text, or doesn't."""

    __slots__ = ("on",)

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on and text else text


def _shown(char: str) -> tuple[str, int]:
    """What stands for a character that is no tab, and how many columns that takes."""
    code = ord(char)
    if 0x20 <= code < 0x7F:
        return char, 1
    if code < 0x20:
        return chr(0x2400 + code), 1
    if code == 0x7F:
        return "\u2421", 1
    if 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000:
        return "\ufffd", 1
    import unicodedata

    category = unicodedata.category(char)
    if category in ("Cf", "Zl", "Zp"):
        # Among these are the marks that reverse the direction of text.
        return "\ufffd", 1
    if category in ("Mn", "Me"):
        return char, 0
    return char, 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _layout(text: str) -> tuple[list[str], list[int]]:
    """The cells of a line and, for each character and the line's end, its display column."""
    cells: list[str] = []
    columns: list[int] = []
    column = 0
    for char in text:
        columns.append(column)
        if char == "\t":
            width = TAB - column % TAB
            cell = " " * width
        else:
            cell, width = _shown(char)
        cells.append(cell)
        column += width
    columns.append(column)
    return cells, columns


def visible(text: str) -> str:
    """One line of text as a terminal may get it."""
    return "".join(_layout(text)[0])


class _Mark:
    """An underlined piece of one line, in display columns."""

    __slots__ = ("end", "label", "primary", "start")

    def __init__(self, start: int, end: int, label: str, primary: bool) -> None:
        self.start = start
        self.end = end
        self.label = label
        self.primary = primary


class _Row:
    """A row of characters in columns, with a colour for each written piece."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, str, str]] = []

    def put(self, column: int, text: str, color: str) -> None:
        """Write ``text`` at ``column``; pieces must not overlap."""
        self.pieces.append((column, text, color))

    def text(self, paint: _Paint) -> str:
        """The row, without spaces at its end."""
        out = []
        at = 0
        for column, text, color in sorted(self.pieces):
            out.append(" " * (column - at) + paint(text, color))
            at = column + len(text)
        return "".join(out)


def _mark_rows(marks: list[_Mark], color: str) -> list[_Row]:
    """The rows under a line: underlines, and the labels below or beside them."""
    rows: list[_Row] = []
    left = sorted(marks, key=lambda m: (m.start, not m.primary))
    while left:
        group: list[_Mark] = []
        later: list[_Mark] = []
        end = -1
        for mark in left:
            if mark.start >= end:
                group.append(mark)
                end = mark.end
            else:
                later.append(mark)
        rows.extend(_group_rows(group, color))
        left = later
    return rows


def _group_rows(group: list[_Mark], color: str) -> list[_Row]:
    colors = {True: color, False: _GUTTER}
    first = _Row()
    for mark in group:
        char = "^" if mark.primary else "-"
        first.put(mark.start, char * (mark.end - mark.start), colors[mark.primary])
    last = group[-1]
    if last.label:
        first.put(last.end + 1, last.label, colors[last.primary])
    rows = [first]
    labelled = [mark for mark in group[:-1] if mark.label]
    if labelled:
        connectors = _Row()
        for mark in labelled:
            connectors.put(mark.start, "|", colors[mark.primary])
        rows.append(connectors)
    while labelled:
        mark = labelled.pop()
        row = _Row()
        for other in labelled:
            row.put(other.start, "|", colors[other.primary])
        row.put(mark.start, mark.label, colors[mark.primary])
        rows.append(row)
    return rows


class _Snippet:
    """The lines of one source that the spans of a diagnostic touch."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.marks: dict[int, list[tuple[Span, str, bool]]] = {}

    def add(self, span: Span, label: str, primary: bool) -> None:
        """Underline the first line of ``span``."""
        self.marks.setdefault(span.line, []).append((span, label, primary))

    def lines(self, margin: str, paint: _Paint, color: str) -> list[str]:
        """The text of the snippet, below its ``-->`` line."""
        out = [margin + paint("|", _GUTTER)]
        previous = 0
        for line in sorted(self.marks):
            if previous and line == previous + 2:
                out.append(self._source_line(previous + 1, margin, paint))
            elif previous and line > previous + 2:
                out.append(paint("...", _GUTTER))
            out.extend(self._marked_line(line, margin, paint, color))
            previous = line
        return out

    def _source_line(self, line: int, margin: str, paint: _Paint) -> str:
        text = visible(self.source.line_text(line))[:MAX_WIDTH]
        number = str(line).rjust(len(margin) - 1)
        return f"{paint(f'{number} |', _GUTTER)} {text}".rstrip()

    def _marked_line(self, line: int, margin: str, paint: _Paint, color: str) -> list[str]:
        text = self.source.line_text(line)
        cells, columns = _layout(text)
        line_start = self.source.line_starts[line - 1]
        marks: list[_Mark] = []
        for span, label, primary in self.marks[line]:
            start = columns[min(span.start - line_start, len(text))]
            end = columns[min(span.end - line_start, len(text))]
            marks.append(_Mark(start, max(end, start + 1), label, primary))
        shown = _crop("".join(cells), marks)
        number = str(line).rjust(len(margin) - 1)
        out = [f"{paint(f'{number} |', _GUTTER)} {shown}".rstrip()]
        bar = margin + paint("|", _GUTTER) + " "
        out.extend(bar + row.text(paint) for row in _mark_rows(marks, color))
        return out


def _crop(text: str, marks: list[_Mark]) -> str:
    """The part of a long line that holds its marks; moves the marks along.

    Only for lines whose characters all take one column: with others it would misalign.
    """
    if len(text) <= MAX_WIDTH or not text.isascii():
        return text
    primary = next((m for m in marks if m.primary), marks[0])
    low = max(0, min(primary.start - MAX_WIDTH // 3, len(text) - MAX_WIDTH))
    high = min(len(text), low + MAX_WIDTH)
    before = "..." if low else ""
    after = "..." if high < len(text) else ""
    for mark in marks:
        mark.start = min(max(mark.start, low), high) - low + len(before)
        mark.end = max(min(max(mark.end, low), high) - low + len(before), mark.start + 1)
    return before + text[low:high] + after


def _edit_title(edits: tuple[Edit, ...]) -> str:
    if len(edits) == 1:
        old, new = edits[0].span.text, edits[0].replacement
        if "\n" not in old + new and len(old + new) <= 60:
            if not old:
                return f"insert `{visible(new.strip())}`"
            if not new:
                return f"remove `{visible(old.strip())}`"
            return f"write `{visible(new)}` instead of `{visible(old)}`"
    return "change the script like this"


def _edit_lines(edits: tuple[Edit, ...], margin: str, paint: _Paint) -> list[str]:
    """The edits as a diff of the lines that they change."""
    source = edits[0].span.source
    if any(edit.span.source is not source for edit in edits):
        return []
    out = [f"{paint('help', _COLORS['help'])}: {_edit_title(edits)}", margin + paint("|", _GUTTER)]
    by_lines: list[list[Edit]] = []
    for edit in sorted(edits, key=lambda e: (e.span.start, e.span.end)):
        if by_lines and edit.span.line <= max(e.span.end_line for e in by_lines[-1]):
            by_lines[-1].append(edit)
        else:
            by_lines.append([edit])
    for group in by_lines:
        out.extend(_diff(source, group, len(margin) - 1, paint))
    return out


def _diff(source: Source, edits: list[Edit], width: int, paint: _Paint) -> list[str]:
    first = min(edit.span.line for edit in edits)
    last = max(edit.span.end_line for edit in edits)
    start = source.line_starts[first - 1]
    end = source.line_starts[last - 1] + len(source.line_text(last))
    part = Source(source.name, source.text[start:end])
    moved = [
        Edit(part.span(e.span.start - start, e.span.end - start), e.replacement) for e in edits
    ]
    out = []
    for number, text in enumerate(part.text.split("\n"), first):
        line = f"{str(number).rjust(width)} - {visible(text)}".rstrip()
        out.append(paint(line, "31"))
    for number, text in enumerate(apply_edits(part, moved).split("\n"), first):
        line = f"{str(number).rjust(width)} + {visible(text)}".rstrip()
        out.append(paint(line, "32"))
    return out


def render(diagnostic: Diagnostic, *, color: bool = False) -> str:
    """A diagnostic as lines of text, without a final line end.

    :param color: use ANSI colours.
    """
    paint = _Paint(color)
    tone = _COLORS[diagnostic.severity]
    head = paint(f"{diagnostic.severity}[{diagnostic.code}]", tone)
    out = [f"{head}{paint(': ' + visible(diagnostic.title), _BOLD)}"]
    snippets = _snippets(diagnostic)
    highest = max((max(s.marks) for s in snippets), default=0)
    highest = max([highest, *(edit.span.end_line for edit in diagnostic.edits)])
    margin = " " * (len(str(highest)) + 2)
    for index, snippet in enumerate(snippets):
        span = diagnostic.span if index == 0 and diagnostic.span is not None else None
        if span is None:
            span = min((m[0] for marks in snippet.marks.values() for m in marks), key=_start)
        arrow = "-->" if index == 0 else ":::"
        out.append(f"{margin[:-1]}{paint(arrow, _GUTTER)} {visible(span.location)}")
        out.extend(snippet.lines(margin, paint, tone))
    remarks = [("note", text) for text in diagnostic.notes]
    remarks += [("help", text) for text in diagnostic.help]
    if snippets and (remarks or diagnostic.edits):
        out.append(margin + paint("|", _GUTTER))
    for kind, text in remarks:
        out.extend(_remark(kind, text, margin, paint))
    if diagnostic.edits:
        out.extend(_edit_lines(diagnostic.edits, margin, paint))
    return "\n".join(out)


def _start(span: Span) -> int:
    return span.start


def _remark(kind: str, text: str, margin: str, paint: _Paint) -> list[str]:
    lines = [visible(line) for line in text.split("\n")]
    out = [f"{margin}{paint('=', _GUTTER)} {paint(kind, _BOLD)}: {lines[0]}"]
    out.extend(f"{margin}  {' ' * len(kind)}  {line}".rstrip() for line in lines[1:])
    return out


def _snippets(diagnostic: Diagnostic) -> list[_Snippet]:
    """One snippet per source, that of the diagnostic's own span first."""
    found: dict[int, _Snippet] = {}
    if diagnostic.span is not None:
        span = diagnostic.span
        found[id(span.source)] = _Snippet(span.source)
        found[id(span.source)].add(span, visible(diagnostic.label), True)
    for label in [*diagnostic.labels, *_calls(diagnostic.span)]:
        snippet = found.setdefault(id(label.span.source), _Snippet(label.span.source))
        snippet.add(label.span, visible(label.text), False)
    return list(found.values())


def _calls(span: Span | None) -> list[Label]:
    """A label for each call of a macro that brought ``span`` into the script."""
    labels: list[Label] = []
    while isinstance(span, MacroSpan):
        span = span.call
        labels.append(Label(span, "in this call of the macro"))
    return labels


def render_all(diagnostics: Iterable[Diagnostic], *, color: bool = False) -> str:
    """Several diagnostics, an empty line between them, without a final line end."""
    return "\n\n".join(render(diagnostic, color=color) for diagnostic in diagnostics)


def _span_json(span: Span) -> dict[str, Any]:
    return {
        "file": span.source.name,
        "start": span.start,
        "end": span.end,
        "line": span.line,
        "column": span.column,
        "end_line": span.end_line,
        "end_column": span.end_column,
    }


def to_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """A diagnostic as plain data for ``json.dumps``: offsets in characters, lines from 1."""
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "title": diagnostic.title,
        "span": None if diagnostic.span is None else _span_json(diagnostic.span),
        "label": diagnostic.label,
        "labels": [{"span": _span_json(x.span), "text": x.text} for x in diagnostic.labels],
        "notes": list(diagnostic.notes),
        "help": list(diagnostic.help),
        "edits": [
            {"span": _span_json(x.span), "replacement": x.replacement} for x in diagnostic.edits
        ],
    }
