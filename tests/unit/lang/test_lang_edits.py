# SPDX-License-Identifier: Apache-2.0
"""Applying edits to scripts."""

from __future__ import annotations

from typing import Any

import pytest

from kcap.lang.diagnostic import Diagnostic, Edit
from kcap.lang.edits import EditError, apply_edits, fix
from kcap.lang.source import Source, Span

SOURCE = Source("a.bt", "0123456789")


def edit(start: int, end: int, text: str) -> Edit:
    """An edit of SOURCE."""
    return Edit(SOURCE.span(start, end), text)


def test_edits_use_the_offsets_of_the_old_text_in_any_order() -> None:
    assert apply_edits(SOURCE, [edit(7, 8, ""), edit(1, 3, "abc"), edit(10, 10, "!")]) == (
        "0abc345689!"
    )


def test_insertions_at_one_place_keep_their_order_and_duplicates_count_once() -> None:
    edits = [edit(5, 5, "a"), edit(5, 5, "b"), edit(5, 5, "a"), edit(5, 6, "c")]
    assert apply_edits(SOURCE, edits) == "01234abc6789"


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([edit(1, 4, "x"), edit(3, 5, "y")], "two edits overlap at a.bt:1:4"),
        ([edit(1, 4, "x"), edit(2, 2, "y")], "two edits overlap at a.bt:1:3"),
        ([edit(9, 11, "x")], "an edit lies outside of a.bt"),
        (
            [Edit(Span(Source("b.bt", "x"), 0, 1), "y")],
            "an edit of b.bt can't be applied to a.bt",
        ),
    ],
)
def test_edits_that_do_not_fit_together_are_refused(edits: Any, message: str) -> None:
    with pytest.raises(EditError, match=message):
        apply_edits(SOURCE, edits)


def test_fix_applies_each_diagnostics_edits_as_one_unit() -> None:
    def diagnostic(*edits: Edit) -> Diagnostic:
        return Diagnostic("x", "error", "t", edits=edits)

    first = diagnostic(edit(0, 1, "a"), edit(5, 6, "b"))
    overlapping = diagnostic(edit(5, 7, "c"), edit(8, 9, "d"))
    other = diagnostic(edit(9, 10, "e"))
    assert fix(SOURCE, [first, overlapping, diagnostic(), other]) == (
        "a1234b678e",
        [first, other],
    )
