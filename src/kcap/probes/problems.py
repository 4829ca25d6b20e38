# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with an attach point, as diagnostics that point into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.lang.diagnostic import Diagnostic, Edit, ScriptError
from kcap.probes.names import enumerate_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kcap.lang.source import Span


class NoMatchError(ScriptError):
    """What the probe names does not exist, or can't be probed, on this machine.

    The setting ``missing_probes`` turns it into a warning, or into nothing.
    """


def problem(
    code: str,
    title: str,
    span: Span,
    *,
    label: str = "",
    notes: Iterable[str] = (),
    help: Iterable[str] = (),
    edits: Iterable[Edit] = (),
) -> ScriptError:
    """An error to raise; see :class:`~kcap.lang.diagnostic.Diagnostic` for the arguments."""
    return ScriptError(
        [Diagnostic(code, "error", title, span, label, (), tuple(notes), tuple(help), tuple(edits))]
    )


def no_match(
    provider: str,
    rest: str,
    span: Span,
    *,
    label: str = "",
    notes: Iterable[str] = (),
    help: Iterable[str] = (),
    edits: Iterable[Edit] = (),
    warnings: Iterable[Diagnostic] = (),
) -> NoMatchError:
    """An error for what does not exist.

    :param provider: the probe type's full name.
    :param rest: the attach point without the provider, as written.
    :param warnings: further findings that go with it.
    """
    title = f"No matches for {provider} {rest}."
    error = Diagnostic(
        "no-match", "error", title, span, label, (), tuple(notes), tuple(help), tuple(edits)
    )
    return NoMatchError([error, *warnings])


SURE = 2
"""Letters that may differ for a name to be taken as a misspelling of another."""


def suggestion(
    span: Span, near: Sequence[str], name: str = "", *, same: bool = False
) -> tuple[tuple[str, ...], tuple[Edit, ...]]:
    """Help and edits that propose names.

    :param span: where the wrong name stands, perhaps with more around it (quotes, an offset).
    :param near: what it may have meant, the best first.
    :param name: the wrong name; by default the text of ``span``.
    :param same: the first one is known to be what is wanted, however unlike its name is.
    :return: (help, edits). There is an edit only where one name is the obvious one: it may be
        applied without asking.
    """
    if not near:
        return (), ()
    from kcap.symbols.nearest import edit_distance

    name = name or span.text.strip('"')
    help_ = f"did you mean {enumerate_words(near)}?"
    obvious = same or edit_distance(name, near[0], SURE) <= SURE
    if not obvious or name not in span.text:
        return (help_,), ()
    return (help_,), (Edit(span, span.text.replace(name, near[0], 1)),)


def wrong_form(name: str, signatures: Sequence[str], span: Span, label: str) -> ScriptError:
    """The attach point has too few, too many or malformed parts.

    :param signatures: how the probe type is written.
    :param label: what is wrong at ``span``.
    """
    forms = enumerate_words(signatures)
    return problem(
        "attach-point-syntax",
        f"{name}: {label}",
        span,
        label=label,
        help=(f"write {forms}",),
    )
