# SPDX-License-Identifier: Apache-2.0
"""Old spellings that the language still takes, and what is written today.

They are no mistakes: only ``kcap fix --modern`` looks at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostic, Edit
from kcap.lang.node import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kcap.lang.source import Span

_SHORT = 2
"""Other names of a probe type of up to so many letters are short ones, longer ones are old."""


def old_spellings(program: ast.Program) -> list[Diagnostic]:
    """A note for each old spelling in a script's own probes, with the edit to today's."""
    from kcap.probes.registry import probe_types

    today = {
        alias: kind.name
        for kind in probe_types()
        for alias in kind.aliases
        if len(alias) > _SHORT
    }  # fmt: skip
    return [
        Diagnostic("old-spelling", "note", f"{old} is written {new} today", span, edits=(edit,))
        for probe in program.probes
        for old, new, span, edit in _found(probe, today)
    ]


def _found(probe: ast.Probe, today: dict[str, str]) -> Iterator[tuple[str, str, Span, Edit]]:
    """(old, new, place, edit)."""
    for point in probe.attach_points:
        span, name = point.provider.span, point.provider.text
        if name in today:
            yield name, today[name], span, Edit(span, today[name])
    for node in walk(probe):
        if not (isinstance(node, ast.FieldAccess) and node.arrow):
            continue
        if isinstance(node.object, ast.Identifier) and node.object.name == "args":
            between = node.span.source.span(node.object.span.end, node.field.span.start)
            if between.text == "->":
                field = node.field.text
                yield f"args->{field}", f"args.{field}", node.span, Edit(between, ".")
