# SPDX-License-Identifier: Apache-2.0
"""Tokens of the language, made on demand.

Attach points and C definitions at the top of a script have lexical rules of their own, so there
is no single pass over the text: the parser reads those parts as raw text and asks for tokens
(:class:`TokenStream`) only where code stands. Each character is looked at once, or twice beside
an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from kcap.lang.ast import Comment
from kcap.lang.diagnostic import Diagnostics, Edit, Label
from kcap.lang.source import Source, Span

if TYPE_CHECKING:
    from typing import Unpack

    from kcap.lang.diagnostic import Details

#: Kinds of tokens: ``id``, ``var``, ``map``, ``param``, ``count``, ``int``, ``str``, ``open`` (a
#: comment or string without an end), ``bad``, ``eof``; the kind of an operator is its text.
_TOKEN = re.compile(
    r"""
      (?P<ws>[ \t\r\n\f\v]+)
    | (?P<comment>//[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/)
    | (?P<id>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<var>\$[A-Za-z_][A-Za-z0-9_]*)
    | (?P<map>@[A-Za-z0-9_]*)
    | (?P<int>[0-9][A-Za-z0-9_]*)
    | (?P<str>"(?:[^"\\\n]|\\[^\n])*+")
    | (?P<open>/\*[\s\S]*|"[^\n]*)
    | (?P<op><<=|>>=|\.\.|->|\+\+|--|&&|\|\||==|!=|<=|>=|<<|>>|[-+*/%&|^]=
        |[-+*/%&|^!~<>=?:;,.(){}\[\]])
    | (?P<param>\$[0-9]+)
    | (?P<count>\$\#)
    | (?P<bad>[\s\S])
    """,
    re.VERBOSE,
)
_TRIVIA = re.compile(r"[ \t\r\n\f\v]+|(//[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/)")

# Tokens read at a time. After a mistake reading may go on further up, so not too many.
_CHUNK = 64

#: At most this many errors are reported for one script.
MAX_ERRORS = 20


class SyntaxFailure(Exception):
    """Leaves a rule after its diagnostic was recorded; never leaves the parser."""


class UnclosedBlock(SyntaxFailure):
    """The code of one probe ran into the next: give up all open blocks."""


class TokenStream:
    """The tokens of a source from a position on, with the diagnostics of the whole parse.

    ``i`` is the index of the current token in ``kinds``, ``starts`` and ``ends``; at least one
    token is always there. :meth:`enter` starts reading tokens at an offset and :meth:`leave`
    returns the offset where raw reading goes on.
    """

    def __init__(self, source: Source, diagnostics: Diagnostics) -> None:
        self.source = source
        self.text = source.text
        self.diagnostics = diagnostics
        self.comments: list[Comment] = []
        self.kinds: list[str] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.i = 0
        self._lexed_to = 0
        self._commented_to = 0
        self._brace_depth = 0
        self.entered_at = 0
        self._last_error_at = -1
        #: How many tokens and gaps were read: the work done, for tests of linearity.
        self.steps = 0

    # --- raw text --------------------------------------------------------------------------

    def skip_trivia(self, at: int) -> int:
        """The offset of the first character from ``at`` on that is no space or comment."""
        match = _TRIVIA.match
        text = self.text
        while (found := match(text, at)) is not None:
            self.steps += 1
            if found[1] is not None:
                self._keep_comment(at, found.end())
            at = found.end()
        return at

    def _keep_comment(self, start: int, end: int) -> None:
        if start >= self._commented_to:
            self._commented_to = end
            self.comments.append(Comment(Span(self.source, start, end), self.text[start:end]))

    def forget_comments(self, at: int) -> None:
        """Forget comments from offset ``at`` on: they were read as code, and perhaps are none."""
        while self.comments and self.comments[-1].span.start >= at:
            self.comments.pop()
        self._commented_to = min(self._commented_to, at)

    # --- tokens ----------------------------------------------------------------------------

    def enter(self, at: int) -> None:
        """Read tokens from offset ``at`` on."""
        self.kinds.clear()
        self.starts.clear()
        self.ends.clear()
        self.i = 0
        self._lexed_to = at
        self.entered_at = at
        self._brace_depth = 0
        self._fill()

    def leave(self) -> int:
        """The offset after the last token taken."""
        return self.ends[self.i - 1] if self.i else self.entered_at

    def _fill(self) -> None:
        """Read tokens, at most up to the ``}`` or ``;`` that ends a top-level piece of code.

        Stopping there keeps the text that follows, perhaps an attach point, from being read as
        code.
        """
        match = _TOKEN.match
        text = self.text
        at = self._lexed_to
        kinds, starts, ends = self.kinds, self.starts, self.ends
        depth = self._brace_depth
        most = len(kinds) + _CHUNK
        while (found := match(text, at)) is not None:
            self.steps += 1
            kind = found.lastgroup
            end = found.end()
            if kind == "ws":
                at = end
                continue
            if kind == "comment":
                self._keep_comment(at, end)
                at = end
                continue
            if kind == "op":
                kind = found[0]
            kinds.append(kind or "bad")
            starts.append(at)
            ends.append(end)
            at = end
            if kind == "{":
                depth += 1
            elif kind == "}" or kind == ";":
                if kind == "}":
                    depth -= 1
                if depth <= 0:
                    depth = 0
                    break
            if len(kinds) == most:
                break
        else:
            kinds.append("eof")
            starts.append(len(text))
            ends.append(len(text))
        self._lexed_to = at
        self._brace_depth = depth

    def advance(self) -> int:
        """Take the current token; the index it had. The ``eof`` token stays."""
        i = self.i
        if i + 1 < len(self.kinds):
            self.i = i + 1
        elif self.kinds[i] != "eof":
            self._fill()
            self.i = i + 1
        return i

    def finish(self) -> None:
        """Take the last token of a piece of code, without reading what follows as code.

        After this only :meth:`leave` and :meth:`since` may be used.
        """
        if self.i + 1 == len(self.kinds):
            self.i += 1
        else:
            self.advance()

    @property
    def kind(self) -> str:
        """The kind of the current token."""
        return self.kinds[self.i]

    def kind_at(self, ahead: int) -> str:
        """The kind of the token ``ahead`` places after the current one."""
        index = self.i + ahead
        while index >= len(self.kinds):
            if self.kinds[-1] == "eof":
                return "eof"
            self._fill()
        return self.kinds[index]

    def token_text(self, index: int) -> str:
        """The text of the token with this index."""
        return self.text[self.starts[index] : self.ends[index]]

    @property
    def word(self) -> str:
        """The text of the current token if it is an identifier, else ``""``."""
        i = self.i
        return self.text[self.starts[i] : self.ends[i]] if self.kinds[i] == "id" else ""

    def take(self, kind: str) -> bool:
        """Take the current token if it is of this kind."""
        if self.kinds[self.i] == kind:
            self.advance()
            return True
        return False

    def take_word(self, word: str) -> bool:
        """Take the current token if it is this identifier."""
        if self.word == word:
            self.advance()
            return True
        return False

    # --- spans -----------------------------------------------------------------------------

    def span_at(self, index: int) -> Span:
        """The span of the token with this index."""
        return Span(self.source, self.starts[index], self.ends[index])

    @property
    def here(self) -> Span:
        """The span of the current token."""
        return self.span_at(self.i)

    def since(self, start: int) -> Span:
        """From offset ``start`` to the end of the last token taken."""
        return Span(self.source, start, self.ends[self.i - 1])

    def after_last(self) -> Span:
        """The empty span after the last token taken: where something missing belongs."""
        at = self.leave()
        return Span(self.source, at, at)

    # --- errors ----------------------------------------------------------------------------

    def describe(self, index: int | None = None) -> str:
        """What the token with this index (default: the current one) is, for a message."""
        index = self.i if index is None else index
        kind = self.kinds[index]
        if kind == "eof":
            return "the end of the script"
        text = self.token_text(index)
        if len(text) > 40:
            text = text[:37] + "..."
        return f"`{text}`"

    def error(
        self, title: str, span: Span, *, code: str = "syntax", **details: Unpack[Details]
    ) -> None:
        """Record an error unless one at the same place or too many are recorded."""
        if span.start == self._last_error_at or len(self.diagnostics.items) >= MAX_ERRORS:
            return
        self._last_error_at = span.start
        self.diagnostics.error(code, title, span, **details)

    def fail(
        self, title: str, span: Span, *, code: str = "syntax", **details: Unpack[Details]
    ) -> NoReturn:
        """Record an error and leave the rule.

        :raises SyntaxFailure: always.
        """
        self.error(title, span, code=code, **details)
        raise SyntaxFailure

    def unexpected(
        self, expected: str, *, labels: tuple[Label, ...] = (), edits: tuple[Edit, ...] = ()
    ) -> NoReturn:
        """Record that ``expected`` should stand where the current token is.

        :raises SyntaxFailure: always.
        """
        span = self.here
        if self.kind == "open":
            self.unterminated(span.start)
        self.fail(
            f"expected {expected}, found {self.describe()}",
            span,
            label=f"expected {expected}",
            labels=labels,
            edits=edits,
        )

    def unterminated(self, start: int) -> NoReturn:
        """Record that the string or comment at offset ``start`` has no end.

        :raises SyntaxFailure: always.
        """
        end = self.text.find("\n", start)
        span = Span(self.source, start, len(self.text) if end < 0 else end)
        if self.text[start] == "/":
            span = Span(self.source, start, start + 2)
            self.fail("this comment has no end", span, label="no `*/` follows")
        self.fail("this string has no end", span, label='no `"` follows on this line')

    def expect(self, kind: str, *, opened: int | None = None) -> int:
        """Take the current token, which must be of this kind; its index.

        :param opened: the index of the token that this one closes, shown in the message.
        :raises SyntaxFailure: if it is of another kind.
        """
        if self.kinds[self.i] == kind:
            return self.advance()
        labels = () if opened is None else (Label(self.span_at(opened), "opened here"),)
        edits = (Edit(self.after_last(), kind),) if kind in (")", "]", ";") else ()
        return self.unexpected(f"`{kind}`", labels=labels, edits=edits)
