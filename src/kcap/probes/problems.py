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


def suggestion(span: Span, near: Sequence[str]) -> tuple[tuple[str, ...], tuple[Edit, ...]]:
    """Help and edits that propose names: (help, edits); the edit takes the first one."""
    if not near:
        return (), ()
    return (f"did you mean {enumerate_words(near)}?",), (Edit(span, near[0]),)


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
