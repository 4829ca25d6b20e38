# SPDX-License-Identifier: Apache-2.0
"""Diagnostics: what is wrong in a script, where, why, and an edit that mends it.

A pass collects what it finds in a :class:`Diagnostics` and goes on as long as that makes sense,
so that one run reports every mistake; then it calls :meth:`Diagnostics.raise_if_errors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from kcap.errors import KcapError
from kcap.lang.source import Span
from kcap.records import dataclass

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    class Details(TypedDict, total=False):
        """What may be said of a finding beside its code, title and place; see
        :class:`Diagnostic`."""

        label: str
        labels: Iterable[Label]
        notes: Iterable[str]
        help: Iterable[str]
        edits: Iterable[Edit]


Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Label:
    """A secondary place with a text, such as where a variable got its type."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the text of ``span`` (empty: insert there) by ``replacement``."""

    span: Span
    replacement: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding.

    :param code: a short stable name in kebab case, such as ``syntax`` or ``unknown-field``.
    :param severity: ``error`` stops the script; ``warning`` and ``note`` don't.
    :param title: one line that says what is wrong.
    :param span: the place, or None if it has none.
    :param label: a few words written beside the underlined place.
    :param labels: further places with a text each.
    :param notes: facts that explain the finding.
    :param help: what the user can do.
    :param edits: an edit of the script that mends it, as one unit.
    """

    code: str
    severity: Severity
    title: str
    span: Span | None = None
    label: str = ""
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()

    def __str__(self) -> str:
        where = f"{self.span.location}: " if self.span is not None else ""
        return f"{where}{self.severity}[{self.code}]: {self.title}"


class ScriptError(KcapError):
    """A script that can't be taken: every error found, in the order of the script.

    :param diagnostics: at least one error; warnings may be among them.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        first = next((d for d in self.diagnostics if d.severity == "error"), None)
        hint = first.help[0] if first is not None and first.help else None
        super().__init__(str(first) if first is not None else "the script has errors", hint=hint)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The diagnostics whose severity is ``error``."""
        return tuple(d for d in self.diagnostics if d.severity == "error")

    def __str__(self) -> str:
        return "\n".join(str(d) for d in self.diagnostics) or self.message


class Diagnostics:
    """Collects the findings of a pass."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: list[Diagnostic] = []

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def add(self, diagnostic: Diagnostic) -> Diagnostic:
        """Keep ``diagnostic`` and return it."""
        self.items.append(diagnostic)
        return diagnostic

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Keep every one of ``diagnostics``."""
        self.items.extend(diagnostics)

    def error(
        self, code: str, title: str, span: Span | None = None, **details: Unpack[Details]
    ) -> Diagnostic:
        """Keep an error; see :class:`Diagnostic` for the arguments."""
        return self._keep("error", code, title, span, **details)

    def warning(
        self, code: str, title: str, span: Span | None = None, **details: Unpack[Details]
    ) -> Diagnostic:
        """Keep a warning; see :class:`Diagnostic` for the arguments."""
        return self._keep("warning", code, title, span, **details)

    def _keep(
        self,
        severity: Severity,
        code: str,
        title: str,
        span: Span | None,
        *,
        label: str = "",
        labels: Iterable[Label] = (),
        notes: Iterable[str] = (),
        help: Iterable[str] = (),
        edits: Iterable[Edit] = (),
    ) -> Diagnostic:
        return self.add(
            Diagnostic(
                code,
                severity,
                title,
                span,
                label,
                tuple(labels),
                tuple(notes),
                tuple(help),
                tuple(edits),
            )
        )

    @property
    def has_errors(self) -> bool:
        """Whether one of them is an error."""
        return any(d.severity == "error" for d in self.items)

    @property
    def errors(self) -> list[Diagnostic]:
        """The errors."""
        return [d for d in self.items if d.severity == "error"]

    @property
    def warnings(self) -> list[Diagnostic]:
        """The warnings."""
        return [d for d in self.items if d.severity == "warning"]

    def raise_if_errors(self) -> None:
        """Raise everything collected if an error is among it.

        :raises ScriptError: with all diagnostics, warnings included.
        """
        if self.has_errors:
            raise ScriptError(self.items)
