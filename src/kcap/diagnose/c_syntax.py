# SPDX-License-Identifier: Apache-2.0
"""Edits for variables that are declared as in C, or as in other languages that say so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kcap.lang.diagnostic import Edit
from kcap.lang.source import Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kcap.lang.diagnostic import Diagnostic

_TYPE = r"char|short|int|long|bool|\w+_t|u?int(?:8|16|32|64)|[us](?:8|16|32|64)|struct\s+\w+"
_DECLARATION = re.compile(
    rf"(?:^|[;{{}}(])\s*(?P<what>(?:(?:const|signed|unsigned|static)\s+)*(?:(?:{_TYPE})\b[\s*]*|"
    r"(?:let|var|auto)\s+))(?P<name>[A-Za-z_]\w*)\s*=(?!=)",
    re.MULTILINE,
)
_LOOP_HEAD = re.compile(r"\bfor\s*\([^(){}]*;[^(){}]*;[^(){}]*\)")
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_BRACES = re.compile(rf"{_STRING}|[{{}}]")


def declaration(span: Span) -> tuple[Edit, ...]:
    """What makes a variable of one that is declared where the parser stopped, and of its uses.

    :return: nothing where there is no declaration.
    """
    source, text = span.source, span.source.text
    found = next(
        (m for m in _DECLARATION.finditer(text) if m.start("what") <= span.start < m.end()), None
    )
    if found is None:
        return ()
    name, end = found["name"], _end_of_block(text, found.end())
    # Not what is in a string, a field, a call, a type.
    uses = re.compile(rf"{_STRING}|(?<![\w$@.])(?<!->)(?<!struct ){name}\b(?!\s*\()")
    edits = [Edit(Span(source, found.start("what"), found.end("name")), f"${name}")]
    for use in uses.finditer(text, found.end(), end):
        if use[0] == name:
            edits.append(Edit(Span(source, *use.span()), f"${name}"))
    return tuple(edits)


def _end_of_block(text: str, at: int) -> int:
    """Where the block ends that a place is in."""
    depth = 1
    for found in _BRACES.finditer(text, at):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if not depth:
            return found.start()
    return len(text)


def without_echoes(diagnostics: Sequence[Diagnostic]) -> Iterator[Diagnostic]:
    """The findings but for the second one in the head of a loop as in C."""
    seen = set()
    for diagnostic in diagnostics:
        span = diagnostic.span
        if diagnostic.code == "syntax" and span is not None:
            heads = _LOOP_HEAD.finditer(span.source.text)
            head = next((m.start() for m in heads if m.start() <= span.start < m.end()), None)
            if head is not None and head in seen:
                continue
            seen.add(head)
        yield diagnostic
