# SPDX-License-Identifier: Apache-2.0
"""Any error as diagnostics, and diagnostics as lines of JSON: for editors and other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcap.errors import FileError, KcapError
from kcap.lang.diagnostic import Diagnostic, Edit, Label, ScriptError
from kcap.lang.render import to_json
from kcap.lang.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kcap.lang.source import Span


def diagnostics_of(error: KcapError) -> tuple[Diagnostic, ...]:
    """What an error says, in one form for all: those of a script as they are, any other as one
    diagnostic without a place, whose code is the error's class (``AttachError``: ``attach``)."""
    if isinstance(error, ScriptError):
        return error.diagnostics
    title = str(error)
    if isinstance(error, FileError) and error.path and error.path not in title:
        title = f"{error.path}: {title}"
    help_ = (error.hint,) if error.hint else ()
    return (Diagnostic(_code(type(error).__name__), "error", title, help=help_),)


def _code(name: str) -> str:
    words = "".join(f"-{c.lower()}" if c.isupper() else c for c in name.removesuffix("Error"))
    return words.lstrip("-") or "error"


def json_lines(diagnostics: Iterable[Diagnostic]) -> list[str]:
    """Each diagnostic as one line of JSON; its fields are those of
    :func:`kcap.lang.render.to_json`."""
    import json

    return [json.dumps(to_json(diagnostic)) for diagnostic in diagnostics]


def from_json(data: Mapping[str, Any], sources: Mapping[str, Source]) -> Diagnostic:
    """A diagnostic from its JSON, as another process printed it.

    :param data: one object, loaded.
    :param sources: the texts that its places are in, by file name. A place in any other text (the
        standard library, a header) is left out, with its label or edit.
    :raises KeyError: a field is missing.
    """

    def span(of: Mapping[str, Any] | None) -> Span | None:
        source = sources.get(of["file"]) if of is not None else None
        return None if of is None or source is None else source.span(of["start"], of["end"])

    labels = [(span(label["span"]), label["text"]) for label in data["labels"]]
    edits = [(span(edit["span"]), edit["replacement"]) for edit in data["edits"]]
    return Diagnostic(
        data["code"],
        data["severity"],
        data["title"],
        span(data["span"]),
        data["label"],
        tuple(Label(at, text) for at, text in labels if at is not None),
        tuple(data["notes"]),
        tuple(data["help"]),
        tuple(Edit(at, text) for at, text in edits if at is not None),
    )
