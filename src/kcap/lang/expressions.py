# SPDX-License-Identifier: Apache-2.0
"""The rules of expressions.

Chains (binary operators, ``a.b.c``, ``!!x``, ``a ? b : c ? d : e``) are read in loops, so that the
parser's own recursion grows only with brackets, and those are bounded by :data:`MAX_DEPTH`.
"""

from __future__ import annotations

from typing import cast

from kcap.lang.ast import (
    ArrayAccess,
    ArrayType,
    Binary,
    BinaryOp,
    Block,
    BlockExpr,
    Boolean,
    Call,
    Cast,
    Comptime,
    Expr,
    FieldAccess,
    Identifier,
    If,
    Map,
    MapAccess,
    Name,
    NamedType,
    Node,
    Offsetof,
    PointerType,
    PositionalCount,
    Record,
    RecordField,
    Sizeof,
    Step,
    StepOp,
    String,
    TagType,
    Ternary,
    Tuple,
    TupleAccess,
    Typeinfo,
    TypeNode,
    Typeof,
    TypeofType,
    Unary,
    UnaryOp,
    Variable,
)
from kcap.lang.diagnostic import Diagnostics, Edit
from kcap.lang.literals import LiteralError, string_value
from kcap.lang.source import Source, Span
from kcap.lang.types import BARE_BUILTINS, KEYWORDS, TypeRules, is_type_name

#: A chain longer than this makes the parser measure the height of the whole tree.
LONG_CHAIN = 20

#: Precedence of binary operators, low to high (language_parsing.md, "Precedence climbing").
PRECEDENCE: dict[str, int] = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, ">": 7, "<=": 7, ">=": 7,
    "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip
_PREFIXES = frozenset({"!", "~", "-", "*", "&", "++", "--"})
_POSTFIXES = frozenset({".", "->", "[", "++", "--"})
_STARTS = frozenset({"id", "int", "str", "var", "map", "param", "count", "(", "!", "~"})
_STARTS_OR_BINARY = frozenset({"-", "*", "&"})


class ExpressionRules(TypeRules):
    """Rules of expressions."""

    def __init__(self, source: Source, diagnostics: Diagnostics) -> None:
        super().__init__(source, diagnostics)
        #: Where a ``/`` may end a predicate: the depth of the predicate's expression, or 0.
        self.predicate_depth = 0
        #: The expressions in parentheses that only group, with the span of those.
        self.grouped: dict[Node, Span] = {}
        #: The depth at which ``(type) {`` is no cast since a body must follow; or 0.
        self.head_depth = 0
        #: Names of ``#define`` constants: ``(NAME) - 1`` is no cast.
        self.constants: set[str] = set()
        self.longest_chain = 0

    def block(self) -> Block:
        """A block; defined by the rules of statements."""
        raise NotImplementedError

    def _chain(self, length: int) -> None:
        if length > self.longest_chain:
            self.longest_chain = length

    # --- ternary, binary ---------------------------------------------------------------------

    def expression(self) -> Expr:
        """Any expression."""
        self.deeper()
        start = self.starts[self.i]
        pending: list[tuple[int, Expr, Expr | None]] = []
        result = self._binary()
        while self.take("?"):
            then = None if self.kind == ":" else self.expression()
            self.expect(":")
            pending.append((start, result, then))
            start = self.starts[self.i]
            result = self._binary()
        if pending:
            self._chain(len(pending))
            for start, condition, then in reversed(pending):
                result = Ternary(self.since(start), condition, then, result)
        self.depth -= 1
        return result

    def _binary(self) -> Expr:
        start = self.starts[self.i]
        left = self._unary()
        if self._precedence() == 0:
            return left
        operands: list[tuple[Expr, int, int]] = [(left, start, self.ends[self.i - 1])]
        operators: list[tuple[int, int]] = []
        count = 0
        while (precedence := self._precedence()) != 0:
            while operators and operators[-1][0] >= precedence:
                self._reduce(operands, operators)
            operators.append((precedence, self.advance()))
            start = self.starts[self.i]
            right = self._unary()
            operands.append((right, start, self.ends[self.i - 1]))
            count += 1
        while operators:
            self._reduce(operands, operators)
        self._chain(count)
        return operands[0][0]

    def _precedence(self) -> int:
        """The precedence of the binary operator that stands here; 0 if there is none."""
        kind = self.kinds[self.i]
        precedence = PRECEDENCE.get(kind, 0)
        if kind == "/" and self.predicate_depth == self.depth and self.kind_at(1) in ("{", "eof"):
            return 0
        return precedence

    def _reduce(
        self, operands: list[tuple[Expr, int, int]], operators: list[tuple[int, int]]
    ) -> None:
        right, _, end = operands.pop()
        left, start, _ = operands.pop()
        index = operators.pop()[1]
        op = cast("BinaryOp", self.kinds[index])
        span = Span(self.source, start, end)
        operands.append((Binary(span, op, self.span_at(index), left, right), start, end))

    # --- prefix and postfix operators ----------------------------------------------------------

    def _unary(self) -> Expr:
        prefixes: list[int] = []
        while True:
            i = self.i
            kind = self.kinds[i]
            if kind in _PREFIXES or (kind == "id" and self.token_text(i) == "comptime"):
                prefixes.append(self.advance())
            else:
                break
        if not prefixes:
            return self._postfix()
        operand = self._postfix()
        self._chain(len(prefixes))
        for index in reversed(prefixes):
            kind = self.kinds[index]
            span = self.since(self.starts[index])
            if kind == "id":
                operand = Comptime(span, operand)
            elif kind in ("++", "--"):
                operand = self._step(span, cast("StepOp", kind), True, operand)
            else:
                operand = Unary(span, cast("UnaryOp", kind), operand)
        return operand

    def _step(self, span: Span, op: StepOp, prefix: bool, target: Expr) -> Expr:
        if not isinstance(target, Variable | Map | MapAccess | Identifier):
            what = "incremented" if op == "++" else "decremented"
            self.error(
                f"only variables and maps can be {what}",
                target.span,
                code="target",
                label="this is neither",
            )
        return Step(span, op, prefix, target)

    def _postfix(self) -> Expr:
        start = self.starts[self.i]
        node = self._primary()
        length = 0
        while (kind := self.kinds[self.i]) in _POSTFIXES:
            length += 1
            if kind == "[":
                node = self._index(start, node)
            elif kind == "." or kind == "->":
                node = self._member(start, node, kind == "->")
            else:
                self.advance()
                node = self._step(self.since(start), cast("StepOp", kind), False, node)
        self._chain(length)
        return node

    def _index(self, start: int, node: Expr) -> Expr:
        opened = self.advance()
        if self.kind == "]":
            self.unexpected("a key" if isinstance(node, Map) else "an index")
        first = self.starts[self.i]
        keys = [self.expression()]
        while self.take(","):
            keys.append(self.expression())
        between = self.since(first)
        self.expect("]", opened=opened)
        span = self.since(start)
        if isinstance(node, Map) and node not in self.grouped:
            key = keys[0] if len(keys) == 1 else Tuple(between, keys, True)
            return MapAccess(span, node, key)
        if len(keys) > 1:
            self.error("only maps take several keys; an array takes one index", between)
        return ArrayAccess(span, node, keys[0])

    def _member(self, start: int, node: Expr, arrow: bool) -> Expr:
        self.advance()
        index = self.i
        kind = self.kinds[index]
        if kind == "id":
            self.advance()
            name = Name(self.span_at(index), self.token_text(index))
            return FieldAccess(self.since(start), node, name, arrow)
        text = self.token_text(index)
        if kind == "int" and text.isdigit() and len(text) < 6:
            self.advance()
            return TupleAccess(self.since(start), node, int(text), self.span_at(index))
        return self.unexpected("the name of a field or the number of a tuple's element")

    # --- primary -------------------------------------------------------------------------------

    def _primary(self) -> Expr:
        index = self.i
        kind = self.kinds[index]
        if kind == "id":
            return self._named()
        if kind == "var":
            self.advance()
            return Variable(self.span_at(index), self.token_text(index))
        if kind == "map":
            return self.map_name()
        if kind == "int":
            return self.integer()
        if kind == "str":
            return self.string()
        if kind == "(":
            return self._paren()
        if kind == "{":
            block = self.block()
            return BlockExpr(block.span, block)
        if kind == "param":
            return self.positional()
        if kind == "count":
            self.advance()
            return PositionalCount(self.span_at(index))
        if kind == "bad" and self.token_text(index) == "'":
            self.fail(
                "strings are written in double quotes, and there are no character literals",
                self.here,
                help=("write a character as its code, such as 65 for A",),
            )
        return self.unexpected("an expression")

    def map_name(self) -> Map:
        """The map (without its keys) that is the current token."""
        index = self.advance()
        name = self.token_text(index)
        span = self.span_at(index)
        if name[1:2].isdigit():
            self.error("the name of a map can't start with a digit", span)
        return Map(span, name)

    def string(self) -> String:
        """The string literal that is the current token."""
        index = self.advance()
        span = self.span_at(index)
        try:
            value = string_value(self.token_text(index))
        except LiteralError as error:
            self.literal_error(error, span.start)
            value = ""
        return String(span, value)

    def _named(self) -> Expr:
        """An expression that starts with a word."""
        index = self.i
        word = self.token_text(index)
        if word in KEYWORDS:
            return self._keyword(word)
        self.advance()
        span = self.span_at(index)
        if self.kind == "(":
            return self._call(word, span)
        if self.kind == "!" and self.starts[self.i] == span.end and self.kind_at(1) == "(":
            # language.md also shows a macro's call as `name!(...)`.
            self.advance()
            return self._call(word, span)
        return Identifier(span, word)

    def _keyword(self, word: str) -> Expr:
        index = self.i
        if word == "true" or word == "false":
            self.advance()
            return Boolean(self.span_at(index), word == "true")
        if word == "if":
            return self.if_expression()
        if word in ("sizeof", "typeof", "typeinfo", "offsetof"):
            return self._type_context(word)
        if word == "config":
            span = self.span_at(self.advance())
            return self._call(word, span) if self.kind == "(" else Identifier(span, word)
        return self.unexpected("an expression")

    def _type_context(self, word: str) -> Expr:
        start = self.starts[self.i]
        if word == "typeof":
            operand = self.typeof_operand()
            return Typeof(self.since(start), operand)
        self.advance()
        opened = self.expect("(")
        operand = self.type_or_expression()
        if word == "offsetof":
            self.expect(",")
            fields = [self.name("a field")]
            while self.take("."):
                fields.append(self.name("a field"))
            self.expect(")", opened=opened)
            return Offsetof(self.since(start), operand, fields)
        self.expect(")", opened=opened)
        span = self.since(start)
        return Sizeof(span, operand) if word == "sizeof" else Typeinfo(span, operand)

    def name(self, what: str) -> Name:
        """A name that is no expression.

        :param what: what it names, for the message if it is missing.
        """
        if self.kind != "id":
            self.unexpected(f"the name of {what}")
        index = self.advance()
        return Name(self.span_at(index), self.token_text(index))

    def _call(self, name: str, name_span: Span) -> Call:
        opened = self.advance()
        arguments: list[Expr] = []
        if self.kind != ")":
            arguments.append(self.expression())
            while self.take(","):
                arguments.append(self.expression())
        if self.kind != ")":
            self._unclosed_call(opened)
        self.advance()
        return Call(self.since(name_span.start), name, name_span, arguments)

    def _unclosed_call(self, opened: int) -> None:
        if self.kind in _STARTS and self.kind != "(":
            self.unexpected("`,` or `)`", edits=(Edit(self.after_last(), ","),))
        self.expect(")", opened=opened)

    def head(self) -> Expr:
        """The condition or count before the block of an ``if`` or a loop."""
        before = self.head_depth
        self.head_depth = self.depth + 1
        condition = self.expression()
        self.head_depth = before
        return condition

    def if_expression(self) -> If:
        """``if … { … } else …``; chains of ``else if`` are read in a loop."""
        parts: list[tuple[int, Expr, Block]] = []
        last: Block | None = None
        while True:
            start = self.starts[self.advance()]
            condition = self.head()
            parts.append((start, condition, self.block()))
            if not self.take_word("else"):
                break
            if self.word != "if":
                last = self.block()
                break
        self._chain(len(parts))
        result: Block | If | None = last
        for start, condition, then in reversed(parts):
            result = If(self.since(start), condition, then, result)
        assert isinstance(result, If)
        return result

    # --- parentheses ---------------------------------------------------------------------------

    def _paren(self) -> Expr:
        opened = self.advance()
        start = self.starts[opened]
        if self.take(")"):
            return Tuple(self.since(start), [])
        if self.kind == "id":
            if self.kind_at(1) == "=":
                return self._record(opened)
            found = self._cast(start)
            if found is not None:
                return found
        first = self.expression()
        if self.kind != ",":
            self.expect(")", opened=opened)
            self.grouped[first] = self.since(start)
            return first
        elements = [first]
        while self.take(","):
            if self.kind == ")":
                break
            elements.append(self.expression())
        self.expect(")", opened=opened)
        return Tuple(self.since(start), elements)

    def _record(self, opened: int) -> Record:
        fields: list[RecordField] = []
        while True:
            name = self.name("a field")
            self.expect("=")
            value = self.expression()
            fields.append(RecordField(self.since(name.span.start), name, value))
            if not self.take(",") or self.kind == ")":
                break
        self.expect(")", opened=opened)
        return Record(self.since(self.starts[opened]), fields)

    def _cast(self, start: int) -> Cast | None:
        """A cast whose ``(`` was taken, or None with nothing taken."""
        begin = self.i
        found = self.try_type()
        if found is None or self.kind != ")" or not self._casts(found, self.kind_at(1)):
            self.i = begin
            return None
        self.advance()
        self.deeper()
        operand = self._unary()
        self.depth -= 1
        return Cast(self.since(start), found, operand)

    def _casts(self, found: TypeNode, following: str) -> bool:
        """Whether ``(found)`` before a token of kind ``following`` is a cast.

        See language.md, "Cast Parsing": a bare name in parentheses is a type when something
        follows that looks like the start of an expression, unless it is a builtin and the
        operator may be binary.
        """
        if isinstance(found, TagType | PointerType):
            return True
        base: TypeNode = found
        while isinstance(base, ArrayType):
            base = base.element
        if isinstance(base, NamedType):
            certain = is_type_name(base.name)
        else:
            certain = not isinstance(base, TypeofType)
        if following == "{" and self.depth == self.head_depth:
            return False
        if following in _STARTS or (certain and following in ("{", "++", "--")):
            return True
        if following not in _STARTS_OR_BINARY:
            return False
        if certain or isinstance(found, TypeofType):
            return True
        return (
            isinstance(found, NamedType)
            and found.name not in BARE_BUILTINS
            and found.name not in self.constants
        )
