# SPDX-License-Identifier: Apache-2.0
"""Errors inside semantic analysis; what leaves it is a ``ScriptError`` with all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.errors import KcapError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypedDict

    from kcap.lang.diagnostic import Diagnostic, Edit
    from kcap.lang.source import Span

    class ErrorDetails(TypedDict, total=False):
        """What :func:`sema_error` may be told beside code, place and title."""

        label: str
        labels: Iterable[tuple[Span, str]]
        notes: Iterable[str]
        help: Iterable[str]
        edits: Iterable[Edit]


class SemaError(KcapError):
    """A statement that can't be taken; analysis notes it and goes on with the next statement.

    :param diagnostic: what is wrong and where.
    """

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.title, hint=diagnostic.help[0] if diagnostic.help else None)
        self.diagnostic = diagnostic


class PendingType(SemaError):
    """A type that this inference pass does not know yet; in the last pass, an error."""


class ConsequentialError(SemaError):
    """A use of something that was reported as wrong already; nothing more is said about it."""


def sema_error(
    code: str,
    span: Span | None,
    title: str,
    *,
    label: str = "",
    labels: Iterable[tuple[Span, str]] = (),
    notes: Iterable[str] = (),
    help: Iterable[str] = (),
    edits: Iterable[Edit] = (),
) -> SemaError:
    """An error to raise; see :class:`~kcap.lang.diagnostic.Diagnostic` for the arguments."""
    from kcap.lang.diagnostic import Diagnostic, Label

    return SemaError(
        Diagnostic(
            code,
            "error",
            title,
            span,
            label,
            tuple(Label(at, text) for at, text in labels),
            tuple(notes),
            tuple(help),
            tuple(edits),
        )
    )
