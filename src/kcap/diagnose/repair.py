# SPDX-License-Identifier: Apache-2.0
"""Repairing a whole script: the edits of its errors, applied until none is left to apply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.diagnose.fix import unified_diff
from kcap.lang.edits import fix
from kcap.lang.source import Source
from kcap.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.lang.diagnostic import Diagnostic

ROUNDS = 10
"""A script is checked again after each round, since one error may hide another."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of a script.

    :param name: what messages call it.
    :param original: the script as it was.
    :param text: the script as it is now.
    :param applied: the diagnostics whose edits were made, in that order.
    :param left: errors that remain, of the new text.
    """

    name: str
    original: str
    text: str
    applied: tuple[Diagnostic, ...]
    left: tuple[Diagnostic, ...]

    @property
    def diff(self) -> str:
        """What changed, as a unified diff; empty if nothing did."""
        return unified_diff(Source(self.name, self.original), self.text)


def repair(
    name: str,
    text: str,
    check: Callable[[str], list[Diagnostic]],
    wishes: Callable[[str], list[Diagnostic]] | None = None,
) -> Repair:
    """Apply the edits of a script's errors, several at once where they don't overlap.

    :param name: what messages call the script.
    :param check: every error of a text, found in a source that has this text.
    :param wishes: what is to be changed as well, though it is no error, when no error can be
        mended any more.
    """
    done = _mended(name, text, check)
    wanted = wishes(done.text) if wishes is not None else []
    if not wanted:
        return done
    fixed, made = fix(_source_of(wanted, name, done.text), wanted)
    return Repair(name, text, fixed, (*done.applied, *made), done.left)


def _mended(name: str, text: str, check: Callable[[str], list[Diagnostic]]) -> Repair:
    applied: list[Diagnostic] = []
    seen: set[str] = set()
    now = text
    for _ in range(ROUNDS):
        seen.add(now)
        errors = [found for found in check(now) if found.severity == "error"]
        fixed, made = fix(_source_of(errors, name, now), errors)
        if not made or fixed in seen:
            return Repair(name, text, now, tuple(applied), tuple(errors))
        applied += made
        now = fixed
    left = [found for found in check(now) if found.severity == "error"]
    return Repair(name, text, now, tuple(applied), tuple(left))


def _source_of(errors: list[Diagnostic], name: str, text: str) -> Source:
    """The source that the errors' spans are in (imported files have others)."""
    for found in errors:
        for span in (found.span, *(edit.span for edit in found.edits)):
            if span is not None and span.source.name == name and span.source.text == text:
                return span.source
    return Source(name, text)
