# SPDX-License-Identifier: Apache-2.0
"""The rules of blocks and statements, and how reading goes on after a mistake in one."""

from __future__ import annotations

import re
from typing import cast

from kcap.lang.ast import (
    ArrayAccess,
    Assign,
    AssignOp,
    Block,
    BlockExpr,
    Break,
    Continue,
    Discard,
    Expr,
    ExprStatement,
    For,
    If,
    Import,
    Let,
    Map,
    MapAccess,
    Range,
    Return,
    Stmt,
    Unroll,
    Variable,
    While,
)
from kcap.lang.diagnostic import Edit, Label
from kcap.lang.expressions import ExpressionRules
from kcap.lang.lexer import SyntaxFailure, UnclosedBlock
from kcap.lang.source import Span
from kcap.lang.traverse import drop_value, value_blocks

_ASSIGNMENTS = frozenset({"=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="})
# What starts the next probe, macro or function when it stands at the start of a line.
_NEXT_ITEM = re.compile(
    r"(?:[A-Za-z]+:[^\s=:;?]|(?:BEGIN|END|begin|end)\s*\{|(?:macro|fn)\s+\w+\s*[({])"
)


class StatementRules(ExpressionRules):
    """Rules of blocks and statements."""

    #: How many errors there were when the current part of the script was begun.
    errors_before = 0

    def block(self) -> Block:
        """``{ … }``, with the last expression as its value if no ``;`` follows it."""
        self.deeper()
        if self.kind != "{":
            self.unexpected("`{`")
        opened = self.advance()
        statements: list[Stmt] = []
        value: Expr | None = None
        while True:
            kind = self.kind
            if kind == "}":
                break
            if kind == ";":
                self.advance()
                continue
            self._check_closed(opened)
            depth = self.depth
            try:
                statement = self._statement()
                if isinstance(statement, Stmt):
                    statements.append(statement)
                elif self.kind == "}":
                    value = statement
                else:
                    self._end_expression(statement, statements)
            except UnclosedBlock:
                raise
            except SyntaxFailure:
                self.depth = depth
                self.head_depth = 0
                self._skip_statement()
        if self.depth == 1:
            self.finish()
        else:
            self.advance()
        self.depth -= 1
        return Block(self.since(self.starts[opened]), statements, value)

    def drop_value(self, block: Block) -> None:
        """Make the value of a block an ordinary statement, since nobody uses it."""
        drop_value(block, self.grouped)

    def _extent(self, expression: Expr) -> Span:
        """The span of an expression with the parentheses around it."""
        return self.grouped.get(expression, expression.span)

    def unvalued_block(self) -> Block:
        """A block whose value nobody uses."""
        block = self.block()
        self.drop_value(block)
        return block

    def _check_closed(self, opened: int) -> None:
        """Leave all blocks at the end of the script, or where the next probe clearly starts."""
        start = self.starts[self.i]
        at_end = self.kind == "eof"
        line_start = self.text[start - 1] == "\n"
        if not at_end and not (line_start and _NEXT_ITEM.match(self.text, start)):
            return
        if len(self.diagnostics) == self.errors_before:
            label = "the script ends here" if at_end else "the next part of the script starts here"
            self.error(
                "this block is not closed",
                self.span_at(opened),
                label="no `}` for this",
                labels=(Label(Span(self.source, start, start), label),),
                edits=(Edit(self.after_last(), "\n}"),),
            )
        raise UnclosedBlock

    def _skip_statement(self) -> None:
        """After a mistake: go to the end of the statement, or to the ``}`` that ends the block."""
        depth = 0
        while True:
            kind = self.kind
            if kind == "eof":
                return
            if kind == "{":
                depth += 1
            elif kind == "}":
                if depth == 0:
                    return
                depth -= 1
                if depth == 0:
                    self.advance()
                    return
            elif kind == "open" or (kind == ";" and depth == 0):
                self.advance()
                return
            start = self.starts[self.i]
            if self.text[start - 1] == "\n" and _NEXT_ITEM.match(self.text, start):
                return
            self.advance()

    # --- statements ----------------------------------------------------------------------------

    def _statement(self) -> Stmt | Expr:
        """One statement with its ``;``, or an expression without.

        What starts with ``if`` or ``{`` ends with its ``}``: ``if (a) { … } ++@x`` are two.
        """
        word = self.word
        if word in _KEYWORD_RULES:
            return cast("Stmt", getattr(self, _KEYWORD_RULES[word])())
        if word == "_" and self.kind_at(1) == "=":
            start = self.starts[self.advance()]
            self.advance()
            value = self.expression()
            return self._ended(Discard(self.since(start), value))
        if word == "if":
            return self.if_expression()
        if self.kind == "{":
            block = self.block()
            return BlockExpr(block.span, block)
        first = self.i
        expression = self.expression()
        if self.kind in _ASSIGNMENTS:
            return self._assignment(first, expression)
        return expression

    def _ended(self, statement: Stmt) -> Stmt:
        """The statement, after taking the ``;`` that only the last of a block may lack."""
        if self.kind != "}" and not self.take(";"):
            self._missing_semicolon()
        return statement

    def _missing_semicolon(self) -> None:
        if self.kind == "open":
            self.unterminated(self.starts[self.i])
        after = self.after_last()
        gap = self.text[after.start : self.starts[self.i]]
        if "\n" in gap:
            # The statement ended with its line: say so there, and go on with the next.
            self.error(
                "expected `;` at the end of the statement",
                Span(self.source, max(after.start - 1, 0), after.start),
                label="expected `;` after this",
                edits=(Edit(after, ";"),),
            )
            return
        self.unexpected("`;` or `}`")

    def _end_expression(self, expression: Expr, statements: list[Stmt]) -> None:
        """Take an expression as a statement, with its ``;`` unless it ends in a block."""
        for block in value_blocks(expression):
            self.drop_value(block)
        statements.append(ExprStatement(self._extent(expression), expression))
        if not self.take(";") and not isinstance(expression, If | BlockExpr):
            self._missing_semicolon()

    def _assignment(self, first: int, target: Expr) -> Stmt:
        op_index = self.advance()
        op = cast("AssignOp", self.kinds[op_index])
        value = self.expression()
        if not isinstance(target, Variable | Map | MapAccess):
            self._bad_target(target, op)
            return self._ended(ExprStatement(target.span, target))
        span = self.since(self.starts[first])
        return self._ended(Assign(span, target, op, self.span_at(op_index), value))

    def _bad_target(self, target: Expr, op: str) -> None:
        name = self.text[target.span.start : target.span.end]
        edits: tuple[Edit, ...] = ()
        help_ = (f"to compare, write `==` instead of `{op}`",) if op == "=" else ()
        if name.isidentifier():
            edits = (Edit(target.span.at_start(), "$"),)
        elif isinstance(target, ArrayAccess) and isinstance(target.object, Variable):
            help_ = (f"a variable has no elements to assign to: use a map, @{name[1:]}",)
        self.error(
            "only variables and maps can be assigned to",
            target.span,
            code="target",
            label="this is neither",
            help=help_,
            edits=edits,
        )

    def let_statement(self) -> Stmt:
        """``let $x: type = value;``."""
        start = self.starts[self.advance()]
        if self.kind == "map":
            self.fail(
                "maps are declared outside of blocks",
                self.here,
                help=("move the declaration before the probe, or assign to the map without `let`",),
            )
        variable = self.variable()
        type_ = self.type_reference() if self.take(":") else None
        value = self.expression() if self.take("=") else None
        return self._ended(Let(self.since(start), variable, type_, value))

    def variable(self) -> Variable:
        """A scratch variable."""
        if self.kind != "var":
            self.unexpected("a variable such as `$x`")
        index = self.advance()
        return Variable(self.span_at(index), self.token_text(index))

    def while_statement(self) -> Stmt:
        """``while (condition) { … }``."""
        start = self.starts[self.advance()]
        condition = self.head()
        body = self.unvalued_block()
        return While(self.since(start), condition, body)

    def unroll_statement(self) -> Stmt:
        """``unroll (count) { … }``."""
        start = self.starts[self.advance()]
        count = self.head()
        body = self.unvalued_block()
        return Unroll(self.since(start), count, body)

    def for_statement(self) -> Stmt:
        """``for ($kv : @map) { … }`` or ``for ($i : start..end) { … }``.

        The parentheses may be left out.
        """
        start = self.starts[self.advance()]
        opened = self.advance() if self.kind == "(" else None
        variable = self.variable()
        self.expect(":")
        first = self.starts[self.i]
        iterable = self.expression()
        if self.take(".."):
            end = self.expression()
            iterable = Range(self.since(first), iterable, end)
        if opened is not None:
            self.expect(")", opened=opened)
        body = self.unvalued_block()
        return For(self.since(start), variable, iterable, body)

    def break_statement(self) -> Stmt:
        """``break;``."""
        return self._ended(Break(self.span_at(self.advance())))

    def continue_statement(self) -> Stmt:
        """``continue;``."""
        return self._ended(Continue(self.span_at(self.advance())))

    def return_statement(self) -> Stmt:
        """``return;`` or ``return value;``."""
        start = self.starts[self.advance()]
        value = None if self.kind in (";", "}") else self.expression()
        return self._ended(Return(self.since(start), value))

    def import_statement(self) -> Stmt:
        """``import "path";`` in a block."""
        return self._ended(self.import_path())

    def import_path(self) -> Import:
        """``import "path"``, without its ``;``."""
        start = self.starts[self.advance()]
        if self.kind != "str":
            self.unexpected("a path in double quotes")
        path = self.string()
        return Import(self.since(start), path)


_KEYWORD_RULES = {
    "let": "let_statement",
    "while": "while_statement",
    "unroll": "unroll_statement",
    "for": "for_statement",
    "break": "break_statement",
    "continue": "continue_statement",
    "return": "return_statement",
    "import": "import_statement",
}
