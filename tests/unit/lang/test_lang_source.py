# SPDX-License-Identifier: Apache-2.0
"""Lines, columns and spans of script text."""

from __future__ import annotations

import pytest

from kcap.lang.source import Source

TEXT = "ab\ncdé\r\n\nx"


def test_offsets_have_lines_and_columns_from_one() -> None:
    source = Source("f.bt", TEXT)
    places = [(source.line_of(i), source.column_of(i)) for i in range(len(TEXT) + 1)]
    assert places == [
        (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (2, 4), (2, 5), (3, 1), (4, 1), (4, 2)
    ]  # fmt: skip


def test_line_text_has_no_line_end() -> None:
    source = Source("f.bt", TEXT)
    assert [source.line_text(n) for n in (1, 2, 3, 4)] == ["ab", "cdé", "", "x"]


@pytest.mark.parametrize("line", [0, 5])
def test_a_line_that_is_not_there_is_an_index_error(line: int) -> None:
    with pytest.raises(IndexError, match=f"f.bt has no line {line}"):
        Source("f.bt", TEXT).line_text(line)


def test_a_span_knows_its_text_and_place() -> None:
    span = Source("f.bt", TEXT).span(1, 5)
    assert (span.text, span.line, span.column) == ("b\ncd", 1, 2)
    assert (span.end_line, span.end_column, span.location) == (2, 3, "f.bt:1:2")


def test_spans_are_equal_by_place_in_the_same_source() -> None:
    source = Source("f.bt", TEXT)
    assert source.span(0, 2) == source.span(0, 2)
    assert source.span(0, 2) != source.span(0, 1)
    assert source.span(0, 2) != Source("f.bt", TEXT).span(0, 2)
    assert len({source.span(0, 2), source.span(0, 2)}) == 1


def test_spans_join_and_shrink_to_their_ends() -> None:
    source = Source("f.bt", TEXT)
    span = source.span(3, 4).to(source.span(0, 2))
    assert (span.start, span.end) == (0, 4)
    assert (len(span.at_start()), span.at_end().start) == (0, 4)


def test_bytes_that_are_not_utf8_are_kept() -> None:
    source = Source.from_bytes("f.bt", b'"\xff"')
    assert source.text.encode("utf-8", "surrogateescape") == b'"\xff"'
