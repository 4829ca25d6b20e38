# SPDX-License-Identifier: Apache-2.0
"""The rules of types: ``int32*[4]``, ``struct sk_buff *``, ``string[64]``, ``typeof(x)``.

Modifiers follow the base type and are read from left to right. Where a type or an expression may
stand (casts, ``sizeof``), the rules of language.md, "Cast Parsing", decide.
"""

from __future__ import annotations

from kcap.lang.ast import (
    ArrayType,
    Expr,
    Identifier,
    Integer,
    NamedType,
    PointerType,
    PositionalParam,
    TagKind,
    TagType,
    TypeNode,
    TypeofType,
)
from kcap.lang.diagnostic import Diagnostics, Edit
from kcap.lang.lexer import TokenStream
from kcap.lang.literals import LiteralError, integer_value
from kcap.lang.source import Source, Span

#: How deep brackets and blocks may nest.
MAX_DEPTH = 100

TAGS: dict[str, TagKind] = {"struct": "struct", "union": "union", "enum": "enum"}
_QUALIFIERS = frozenset({"const", "volatile"})
_C_WORDS = frozenset({"unsigned", "signed", "long", "short", "int", "char"})
_SIZED = frozenset({"string", "buffer", "inet"})
_BASIC = frozenset({
    "bool", "string", "buffer", "inet", "void", "int8", "int16", "int32", "int64", "uint8",
    "uint16", "uint32", "uint64", "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64",
})  # fmt: skip
#: Words that can't be the name of a type.
KEYWORDS = frozenset({
    "break", "comptime", "config", "continue", "else", "false", "fn", "for", "if", "import",
    "let", "macro", "offsetof", "return", "sizeof", "true", "typeinfo", "typeof", "unroll",
    "while",
})  # fmt: skip
#: Builtins that scripts write as a bare name. Only asked whether ``(name) * x`` is a product or a
#: cast, as language.md defines it; what builtins there are is defined elsewhere.
BARE_BUILTINS = frozenset({
    "arg0", "arg1", "arg2", "arg3", "arg4", "arg5", "arg6", "arg7", "arg8", "arg9", "arg10",
    "arg11", "args",
    "cgroup", "comm", "cpid", "cpu", "ctx", "curtask", "elapsed", "func", "gid", "jiffies",
    "kstack", "ncpus", "nsecs", "numaid", "pcomm", "pid", "ppid", "probe", "probetype",
    "rand", "retval", "tid", "uid", "usermode", "username", "ustack",
})  # fmt: skip


def is_type_name(name: str) -> bool:
    """Whether a bare name can only be a type: a basic one, or one spelled ``…_t``."""
    return name in _BASIC or name.endswith("_t") or name.split(" ", 1)[0] in _C_WORDS


class TypeRules(TokenStream):
    """Rules of types."""

    def __init__(self, source: Source, diagnostics: Diagnostics) -> None:
        super().__init__(source, diagnostics)
        self.depth = 0
        #: The deepest nesting seen.
        self.deepest = 0
        # Type rules are tried first and expression rules later on the same tokens: reading each
        # typeof(...) only once keeps that linear when they nest.
        self._typeofs: dict[tuple[int, int], tuple[TypeNode | Expr, int]] = {}

    def deeper(self) -> None:
        """Count one more level of nesting; the caller counts back.

        :raises SyntaxFailure: if that is one too many.
        """
        self.depth += 1
        if self.depth > self.deepest:
            self.deepest = self.depth
            if self.depth > MAX_DEPTH:
                self.deepest = 0
                self.fail(
                    f"this is nested more than {MAX_DEPTH} levels deep", self.here, code="nesting"
                )

    def expression(self) -> Expr:
        """An expression; defined by the rules of expressions."""
        raise NotImplementedError

    def type_reference(self) -> TypeNode:
        """A type.

        :raises SyntaxFailure: if there is none.
        """
        found = self.try_type()
        if found is None:
            self.unexpected("a type")
        return found

    def type_or_expression(self) -> TypeNode | Expr:
        """What stands in ``sizeof(…)``: a type if it reads as one up to ``)`` or ``,``."""
        start = self.i
        found = self.try_type()
        if found is not None and self.kind in (")", ","):
            return found
        self.i = start
        return self.expression()

    def try_type(self) -> TypeNode | None:
        """A type, or None with nothing taken if none starts here."""
        begin = self.i
        found = self._base_type()
        if found is None:
            self.i = begin
            return None
        start = self.starts[begin]
        while True:
            if self.take("*"):
                found = PointerType(self.since(start), found)
            elif self.kind == "[" and (suffix := self._array_suffix()) is not None:
                size = suffix[0]
                if isinstance(found, NamedType) and found.name in _SIZED and found.size is None:
                    found = NamedType(self.since(start), found.name, size)
                else:
                    found = ArrayType(self.since(start), found, size)
            else:
                return found
            while self.word in _QUALIFIERS:
                self.advance()

    def _base_type(self) -> TypeNode | None:
        start = self.starts[self.i]
        while self.word in _QUALIFIERS:
            self.advance()
        word = self.word
        if not word:
            return None
        if word in TAGS:
            if self.kind_at(1) != "id":
                return None
            self.advance()
            name = self.token_text(self.advance())
            return TagType(self.since(start), TAGS[word], name)
        if word == "typeof":
            if self.kind_at(1) != "(":
                return None
            operand = self.typeof_operand()
            return TypeofType(self.since(start), operand)
        if word in KEYWORDS:
            return None
        self.advance()
        if word in _C_WORDS:
            words = [word]
            while self.word in _C_WORDS:
                words.append(self.token_text(self.advance()))
            word = " ".join(words)
        return NamedType(self.since(start), word)

    def typeof_operand(self) -> TypeNode | Expr:
        """What stands in the ``typeof(…)`` whose first token is the current one."""
        key = (self.entered_at, self.i)
        known = self._typeofs.get(key)
        if known is not None:
            self.i = known[1]
            return known[0]
        self.advance()
        opened = self.expect("(")
        self.deeper()
        operand = self.type_or_expression()
        self.depth -= 1
        self.expect(")", opened=opened)
        self._typeofs[key] = (operand, self.i)
        return operand

    def _array_suffix(self) -> tuple[Expr | None] | None:
        """The size in ``[size]`` or ``[]`` if that stands here; nothing taken otherwise."""
        first = self.kind_at(1)
        if first == "]":
            self.advance()
            self.advance()
            return (None,)
        if first not in ("int", "id", "param") or self.kind_at(2) != "]":
            return None
        self.advance()
        size: Expr
        if first == "int":
            size = self.integer()
        elif first == "id":
            size = Identifier(self.here, self.token_text(self.advance()))
        else:
            size = self.positional()
        self.advance()
        return (size,)

    # --- literals that types and expressions share -------------------------------------------

    def integer(self) -> Integer:
        """The integer literal that is the current token; a bad one is reported and counts as 0."""
        index = self.advance()
        text = self.token_text(index)
        span = self.span_at(index)
        try:
            value, suffix = integer_value(text)
        except LiteralError as error:
            self.literal_error(error, span.start)
            value, suffix = 0, ""
        return Integer(span, value, text, suffix)

    def positional(self) -> PositionalParam:
        """The ``$1`` that is the current token."""
        index = self.advance()
        digits = self.token_text(index)[1:]
        span = self.span_at(index)
        if len(digits) > 5 or int(digits) == 0:
            self.error("positional parameters are `$1`, `$2` and so on", span)
            return PositionalParam(span, 1)
        return PositionalParam(span, int(digits))

    def literal_error(self, error: LiteralError, offset: int) -> None:
        """Report a literal at ``offset`` that has no value."""
        span = Span(self.source, offset + error.start, offset + error.end)
        edits = () if error.replacement is None else (Edit(span, error.replacement),)
        self.error(error.message, span, code="literal", edits=edits)
