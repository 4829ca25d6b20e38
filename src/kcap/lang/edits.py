# SPDX-License-Identifier: Apache-2.0
"""Applying the edits of diagnostics to a script."""

from __future__ import annotations

from collections.abc import Iterable

from kcap.errors import KcapError
from kcap.lang.diagnostic import Diagnostic, Edit
from kcap.lang.source import Source


class EditError(KcapError):
    """Edits that can't be applied together: they overlap or belong to different sources."""


def _conflict(first: Edit, second: Edit) -> bool:
    """Whether ``second``, which starts at or after ``first``, touches the same characters."""
    return second.span.start < first.span.end


def apply_edits(source: Source, edits: Iterable[Edit]) -> str:
    """The text of ``source`` with all edits made; the offsets of all are those of the old text.

    Insertions at one place are made in the order given; a same edit given twice is made once.

    :raises EditError: if two edits overlap, or one belongs to another source or lies outside.
    """
    ordered = sorted(dict.fromkeys(edits), key=lambda e: (e.span.start, e.span.end))
    text = source.text
    pieces: list[str] = []
    at = 0
    previous: Edit | None = None
    for edit in ordered:
        span = edit.span
        if span.source is not source:
            raise EditError(f"an edit of {span.source.name} can't be applied to {source.name}")
        if not 0 <= span.start <= span.end <= len(text):
            raise EditError(f"an edit lies outside of {source.name}")
        if previous is not None and _conflict(previous, edit):
            raise EditError(
                f"two edits overlap at {span.location}", hint="apply one, and check again"
            )
        pieces.append(text[at : span.start])
        pieces.append(edit.replacement)
        at = span.end
        previous = edit
    pieces.append(text[at:])
    return "".join(pieces)


def fix(source: Source, diagnostics: Iterable[Diagnostic]) -> tuple[str, list[Diagnostic]]:
    """Apply the edits of as many diagnostics as possible, each diagnostic's as one unit.

    :returns: the new text, and the diagnostics whose edits were made. Left out are those without
        edits, with edits in other sources, and those that overlap an earlier one's.
    """
    taken: list[Edit] = []
    applied: list[Diagnostic] = []
    for diagnostic in diagnostics:
        edits = diagnostic.edits
        if not edits or any(edit.span.source is not source for edit in edits):
            continue
        if any(_touches(edit, other) for edit in edits for other in taken if edit != other):
            continue
        taken.extend(edits)
        applied.append(diagnostic)
    return apply_edits(source, taken), applied


def _touches(a: Edit, b: Edit) -> bool:
    """Whether two edits of different diagnostics overlap or insert at the same place."""
    if a.span.start == b.span.start:
        return True
    first, second = (a, b) if a.span.start < b.span.start else (b, a)
    return _conflict(first, second)
