# SPDX-License-Identifier: Apache-2.0
"""Edits for what other languages write otherwise, and the parser therefore stops at."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kcap.diagnose.c_syntax import declaration, without_echoes
from kcap.diagnose.habits import C_TYPES
from kcap.lang.diagnostic import Diagnostic, Edit, ScriptError
from kcap.lang.source import Span
from kcap.records import replace

if TYPE_CHECKING:
    from collections.abc import Callable

_WORDS = {"and": "&&", "or": "||"}
_C_LOOP = re.compile(
    r"(\$\w+)\s*=\s*(\w+)\s*;\s*\1\s*(<=?)\s*(\$?\w+)\s*;\s*(?:\1\s*\+\+|\+\+\s*\1|\1\s*\+=\s*1)\s*"
)
_ELSE_IF = re.compile(r"\b(elif|elsif|elseif)\s*\([^{};]*\)\s*$")
_END_OF_STATEMENT = re.compile(r"[=)\]][^;{}]*$|[)\]+-]$")
_STATEMENT = re.compile(r"(?:\"(?:[^\"\\\n]|\\.)*\"|[^;{}\"\n])*;")


def with_syntax_suggestions(error: ScriptError) -> ScriptError:
    """The parser's error, with edits where it is clear what was meant."""
    return ScriptError([_apply(diagnostic) for diagnostic in without_echoes(error.diagnostics)])


def _apply(diagnostic: Diagnostic) -> Diagnostic:
    span = diagnostic.span
    if diagnostic.code != "syntax" or span is None or diagnostic.edits:
        return diagnostic
    for rule in _RULES:
        found = rule(diagnostic, span)
        if found is not None:
            edits, help_ = found
            return replace(diagnostic, edits=edits, help=(help_,))
    return diagnostic


Answer = tuple[tuple[Edit, ...], str] | None


def _expects(diagnostic: Diagnostic, what: str) -> bool:
    return diagnostic.title.startswith(f"expected `{what}`")


def _comparison(diagnostic: Diagnostic, span: Span) -> Answer:
    if span.text == "=" and _expects(diagnostic, "/"):
        return (Edit(span, "=="),), "compare with `==`"
    return None


def _word(diagnostic: Diagnostic, span: Span) -> Answer:
    operator = _WORDS.get(span.text)
    if operator:
        return (Edit(span, operator),), f"`{span.text}` is written `{operator}`"
    before = re.search(r"\bnot\s+$", span.source.text[: span.start])
    if before is None:
        return None
    where = Span(span.source, before.start(), span.start)
    return (Edit(where, "!"),), "`not` is written `!`"


def _declaration(diagnostic: Diagnostic, span: Span) -> Answer:
    edits = declaration(span)
    return (edits, "variables are written `$x`, and have no type") if edits else None


def _loop(diagnostic: Diagnostic, span: Span) -> Answer:
    if not _expects(diagnostic, ":"):
        return None
    text = span.source.text
    if span.text == "in":
        return (Edit(span, ":"),), "a loop over a map is `for ($kv : @map)`"
    start = text.rfind("$", 0, span.start)
    match = _C_LOOP.match(text, max(start, 0))
    if match is None:
        return None
    variable, first, relation, last = match.groups()
    if relation == "<=":
        last = str(int(last) + 1) if last.isdecimal() else f"({last} + 1)"
    where = Span(span.source, *match.span())
    return (Edit(where, f"{variable} : {first}..{last}"),), "a range is `for ($i : 0..10)`"


def _quotes(diagnostic: Diagnostic, span: Span) -> Answer:
    match = re.compile(r"'((?:[^'\\\n\"]|\\.)*)'").match(span.source.text, span.start)
    if span.text[:1] != "'" or match is None:
        return None
    where, inside = Span(span.source, *match.span()), match[1]
    if len(inside) == 1:
        return (Edit(where, str(ord(inside))),), "write a character as its code"
    return (Edit(where, f'"{inside}"'),), "write strings in double quotes"


def _slash(diagnostic: Diagnostic, span: Span) -> Answer:
    if span.text != "{" or not _expects(diagnostic, "/"):
        return None
    end = len(span.source.text[: span.start].rstrip())
    where = Span(span.source, end, end)
    return (Edit(where, "/"),), "a predicate stands between two slashes"


def _colon(diagnostic: Diagnostic, span: Span) -> Answer:
    """``kprobe vfs_read``, ``config {``."""
    from kcap.probes.registry import probe_types

    before = re.search(r"(?:^|[\s},])(\w+)(\s+)$", span.source.text[: span.start])
    if before is None or not diagnostic.title.startswith("expected a block, a predicate"):
        return None
    if all(before[1] not in (kind.name, *kind.aliases) for kind in probe_types()):
        return None
    return (Edit(Span(span.source, *before.span(2)), ":"),), "a colon stands behind the probe type"


def _brace(diagnostic: Diagnostic, span: Span) -> Answer:
    if span.text == "}" and diagnostic.title.startswith("expected a probe"):
        return (Edit(span, ""),), "it closes nothing"
    return None


def _branch(diagnostic: Diagnostic, span: Span) -> Answer:
    before = span.source.text[: span.start].rstrip()
    if not _expects(diagnostic, "{") or not before.endswith((")", "else")):
        return None
    match = _STATEMENT.match(span.source.text, span.start)
    if match is None:
        return None
    end = Span(span.source, match.end(), match.end())
    edits = (Edit(span.at_start(), "{ "), Edit(end, " }"))
    return edits, "branches are always written in braces"


def _empty_predicate(diagnostic: Diagnostic, span: Span) -> Answer:
    comment = re.compile(r"\s*(//)[^\n]*\{").match(span.source.text, span.end)
    if diagnostic.title != "this probe has no block" or comment is None:
        return None
    slashes = Span(span.source, *comment.span(1))
    return (Edit(slashes, ""),), "`//` begins a comment: leave an empty predicate away"


def _parameter(diagnostic: Diagnostic, span: Span) -> Answer:
    """``fn f(int a)``."""
    typed = re.compile(r"(\w+)\s+\*?\s*(\w+)\s*[,)]").match(span.source.text, span.start)
    before = re.search(r"\bfn\s+\w+\s*\([^()]*$", span.source.text[: span.start])
    if typed is None or before is None:
        return None
    return (), f"the type stands behind the name: `${typed[2]} : {C_TYPES.get(typed[1], typed[1])}`"


def _else_if(diagnostic: Diagnostic, span: Span) -> Answer:
    match = _ELSE_IF.search(span.source.text, 0, span.start)
    if match is None:
        return None
    return (Edit(Span(span.source, *match.span(1)), "else if"),), "it is written `else if`"


def _semicolon(diagnostic: Diagnostic, span: Span) -> Answer:
    """Between two statements on one line; the parser itself sees it where lines end."""
    before = span.source.text[: span.start].rstrip()
    starts = re.match(r"[$@A-Za-z_]", span.text)
    if not (_expects(diagnostic, ";") and starts and _END_OF_STATEMENT.search(before)):
        return None
    where = Span(span.source, len(before), len(before))
    return (Edit(where, ";"),), "statements end in `;`"


def _comment(diagnostic: Diagnostic, span: Span) -> Answer:
    if span.text[:1] != "#":
        return None
    hash_ = Span(span.source, span.start, span.start + 1)
    return (Edit(hash_, "//"),), "a comment begins with `//`"


_RULES: tuple[Callable[[Diagnostic, Span], Answer], ...] = (
    _comparison,
    _word,
    _declaration,
    _loop,
    _quotes,
    _slash,
    _colon,
    _brace,
    _empty_predicate,
    _parameter,
    _branch,
    _else_if,
    _semicolon,
    _comment,
)
