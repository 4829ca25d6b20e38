# SPDX-License-Identifier: Apache-2.0
"""The parts of a script that are read as raw text: C definitions and attach points."""

from __future__ import annotations

import re

from kcap.lang.ast import AttachPart, AttachPoint, CDefinition, Name
from kcap.lang.diagnostic import Edit, Label
from kcap.lang.lexer import SyntaxFailure
from kcap.lang.literals import LiteralError, string_value
from kcap.lang.source import Span
from kcap.lang.statements import StatementRules

_DIRECTIVE_LINE = re.compile(r"(?:[^\n\\]|\\\r?\n|\\)*+")
_DEFINE = re.compile(r"#[ \t]*define[ \t]+([A-Za-z_]\w*)(\()?[ \t]*", re.ASCII)
_INCLUDE = re.compile(r"#[ \t]*include[ \t]+(<[^>\n]*>|\"[^\"\n]*\")")
_DIRECTIVE_WORD = re.compile(r"#[ \t]*([a-z_]*)(?![A-Za-z0-9_])")
_DIRECTIVES = frozenset(
    {
        "", "define", "elif", "elifdef", "elifndef", "else", "endif", "error", "if", "ifdef",
        "ifndef", "include", "include_next", "line", "pragma", "undef", "warning",
    }
)  # fmt: skip
_TYPE_START = re.compile(r"(?:struct|union|enum|typedef)\b\s*([A-Za-z_]\w*)?", re.ASCII)
_C_PIECE = re.compile(
    r"""//[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/|"(?:[^"\\\n]|\\.)*+"|[{};]|[^{};/"]+|[/"]""",
    re.VERBOSE,
)
_SPACE = r"(?:\s|//[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/)*+"
_AFTER_TYPE = re.compile(
    rf"(?:{_SPACE}__attribute__{_SPACE}\(\((?:[^();{{}}]|\([^();{{}}]*\))*+\)\))*+(?:{_SPACE};)?"
)

# One piece of an attach point outside quotes. Providers whose first part is a path take slashes;
# with the others a slash starts the predicate, so that `kprobe:f/pid == 1/` needs no space.
_PIECE = re.compile(r"[^\s,{}\";:/]+")
_PATH_PIECE = re.compile(r"[^\s,{}\";:]+")
_PATH_PROVIDERS = frozenset(
    {"uprobe", "u", "uretprobe", "ur", "usdt", "U", "iter", "it", "bench", "test"}
)
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\[^\n])*+"')
_PROBE_NAME = re.compile(r"([A-Za-z_]\w*)[ \t]*=[ \t]*(?=[A-Za-z*])", re.ASCII)
_WITHOUT_PARTS = {"begin", "end"}


class TopLevelRules(StatementRules):
    """Rules of C definitions and attach points. ``at`` is an offset in the text throughout."""

    # --- C definitions -------------------------------------------------------------------------

    def c_definition(self, at: int) -> CDefinition | None:
        """The C definition at ``at``, or None if none starts there."""
        if self.text.startswith("#", at):
            return self._directive(at)
        if (found := _TYPE_START.match(self.text, at)) is not None:
            return self._c_type(at, found[1] or "")
        return None

    def _directive(self, at: int) -> CDefinition:
        line = _DIRECTIVE_LINE.match(self.text, at)
        end = line.end() if line is not None else at
        while self.text[end - 1] in " \t\r":
            end -= 1
        span = Span(self.source, at, end)
        if (found := _DEFINE.match(self.text, at, end)) is not None:
            if found[2] is not None:
                return CDefinition(span, "define", found[1])
            self.constants.add(found[1])
            value_span = self._without_comment(found.end(), end)
            return CDefinition(span, "define", found[1], value_span.text, value_span)
        if (found := _INCLUDE.match(self.text, at, end)) is not None:
            return CDefinition(
                span, "include", "", found[1], Span(self.source, found.start(1), found.end(1))
            )
        word = _DIRECTIVE_WORD.match(self.text, at, end)
        if word is None or word[1] not in _DIRECTIVES:
            hash_span = Span(self.source, at, at + 1)
            self.error(
                "this is no preprocessor directive",
                span,
                help=("comments start with `//`",),
                edits=(Edit(hash_span, "//"),),
            )
        return CDefinition(span, "directive")

    def _without_comment(self, start: int, end: int) -> Span:
        """The replacement text of a ``#define`` without a comment after it."""
        at = start
        last = start
        while at < end and (piece := _C_PIECE.match(self.text, at, end)) is not None:
            text = piece[0]
            if text.startswith(("//", "/*")):
                break
            at = piece.end()
            last = at
        while last > start and self.text[last - 1] in " \t\r\\\n":
            last -= 1
        return Span(self.source, start, last)

    def _c_type(self, at: int, name: str) -> CDefinition:
        typedef = self.text.startswith("typedef", at)
        depth = 0
        opened = at
        end = at
        while (piece := _C_PIECE.match(self.text, end)) is not None:
            self.steps += 1
            text = piece[0]
            start, end = end, piece.end()
            if text == "{":
                opened = start if depth == 0 else opened
                depth += 1
            elif text == "}":
                depth -= 1
                if depth == 0 and not typedef:
                    after = _AFTER_TYPE.match(self.text, end)
                    end = after.end() if after is not None else end
                    return CDefinition(Span(self.source, at, end), "type", name)
            elif text == ";" and depth == 0:
                return CDefinition(Span(self.source, at, end), "type", name)
        return self.fail(
            "this C definition has no end",
            Span(self.source, opened, opened + 1),
            label="no `}` for this" if depth else "no `;` follows",
        )

    # --- attach points -------------------------------------------------------------------------

    def attach_points(self, at: int) -> tuple[list[AttachPoint], int]:
        """The comma list of attach points at ``at``, and the offset of what follows."""
        points: list[AttachPoint] = []
        while True:
            point, at = self._attach_point(at)
            points.append(point)
            at = self.skip_trivia(at)
            if self.text.startswith(",", at):
                at = self.skip_trivia(at + 1)
            elif not self._lacks_comma(point, at):
                return points, at

    def _lacks_comma(self, point: AttachPoint, at: int) -> bool:
        """Whether another attach point follows on the line without a comma; reports that."""
        end = point.span.end
        found = _PATH_PIECE.match(self.text, at)
        if found is None or "\n" in self.text[end:at] or self.text[at] == "/":
            return False
        if not self.text.startswith(":", found.end()):
            return False
        self.error(
            "expected `,` between probes",
            Span(self.source, at, found.end()),
            label="another probe starts here",
            edits=(Edit(Span(self.source, end, end), ","),),
        )
        return True

    def _attach_point(self, at: int) -> tuple[AttachPoint, int]:
        start = at
        name: Name | None = None
        if (found := _PROBE_NAME.match(self.text, at)) is not None:
            name = Name(Span(self.source, at, found.end(1)), found[1])
            at = found.end()
        provider, at = self._part(at, _PIECE)
        if at == start:
            self._no_attach_point(at)
        pattern = _PATH_PIECE if provider.text in _PATH_PROVIDERS else _PIECE
        parts: list[AttachPart] = []
        while self.text.startswith(":", at):
            part, at = self._part(at + 1, pattern)
            parts.append(part)
        return AttachPoint(Span(self.source, start, at), name, provider, parts), at

    def _part(self, at: int, pattern: re.Pattern[str]) -> tuple[AttachPart, int]:
        """One part: text and quoted text up to the next colon or the end of the attach point."""
        start = at
        pieces: list[str] = []
        quoted = False
        while True:
            self.steps += 1
            if (found := pattern.match(self.text, at)) is not None:
                pieces.append(found[0])
            elif (found := _QUOTED.match(self.text, at)) is not None:
                pieces.append(self._unquoted(found[0]))
                quoted = True
            elif self.text.startswith('"', at):
                self.unterminated(at)
            else:
                break
            at = found.end()
        return AttachPart(Span(self.source, start, at), "".join(pieces), quoted), at

    @staticmethod
    def _unquoted(text: str) -> str:
        try:
            return string_value(text)
        except LiteralError:
            # Patterns and names may hold backslashes that are no escapes: keep them.
            return text[1:-1]

    def _no_attach_point(self, at: int) -> None:
        if self.text.startswith("/*", at):
            self.unterminated(at)
        span = Span(self.source, at, min(at + 1, len(self.text)))
        if at == len(self.text):
            self.fail("expected a probe, found the end of the script", span)
        self.fail(
            f"expected a probe, found `{self.text[at]}`",
            span,
            label="expected a probe such as `kprobe:vfs_read`",
        )

    def unexpected_after_points(self, points: list[AttachPoint], at: int) -> None:
        """Report what follows the attach points where a predicate or block should.

        :raises SyntaxFailure: always.
        """
        end = points[-1].span.end
        if at == len(self.text):
            self.error(
                "this probe has no block",
                points[-1].span,
                label="expected a block in braces after this",
                help=("write what to do when it fires, such as `{ print(probe); }`",),
            )
            raise SyntaxFailure
        found = _PATH_PIECE.match(self.text, at)
        span = Span(self.source, at, found.end() if found is not None else at + 1)
        labels = (Label(Span(self.source, points[-1].span.start, end), "after this probe"),)
        self.fail(
            f"expected a block, a predicate or `,`, found `{span.text}`",
            span,
            label="expected `{`, `/` or `,`",
            labels=labels,
        )
