# SPDX-License-Identifier: Apache-2.0
"""Scripts in standard form (``--fmt``).

Formatting changes no meaning (the syntax tree stays the same) and is idempotent. Comments stay
where they are relative to the code; a statement with a comment in its middle is left as it is.
C definitions are left as they are. One empty line between statements is kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from kcap.lang import ast
from kcap.lang.depth import recursion_room
from kcap.lang.layout import INDENT, WIDTH, Writer
from kcap.lang.parser import parse
from kcap.lang.source import Source, Span

_Part = ast.CDefinition | ast.Config | ast.Import | ast.Item
# Parts that stay on adjacent lines if the script has them so.
_COMPACT = (ast.CDefinition, ast.Import, ast.MapDeclaration)

#: What is written on one line, blocks in it included.
_ALWAYS_FLAT = (ast.Sizeof, ast.Offsetof, ast.Typeof, ast.Typeinfo, ast.TypeNode)


def format_script(source: Source) -> str:
    """The script in standard form, with a final line end (unless it is empty).

    :raises ScriptError: if it has syntax errors.
    """
    program = parse(source)
    with recursion_room():
        return _Formatter(source, program).run()


class _Formatter(Writer):
    """Writes a program: its parts, statements and comments."""

    def __init__(self, source: Source, program: ast.Program) -> None:
        super().__init__(program.grouped)
        self.text = source.text
        self.program = program
        self.comments = program.comments
        self.comment_starts = [comment.span.start for comment in program.comments]
        #: The next comment to write.
        self.next_comment = 0
        #: The offset in the script up to which everything is written.
        self.written_to = 0

    # --- program -------------------------------------------------------------------------------

    def run(self) -> str:
        """The whole text."""
        program = self.program
        parts: list[_Part] = [*program.c_definitions, *program.preamble, *program.items]
        if program.header is not None:
            self.put(program.header.text)
            self.new_line()
            self.written_to = program.header.span.end
        previous: _Part | None = None
        for part in parts:
            apart = previous is not None and not (
                isinstance(part, _COMPACT) and type(part) is type(previous)
            )
            self._leading(part.span.start, apart)
            self._part(part)
            self._trailing(part.span.end)
            self.new_line()
            previous = part
        self._leading(len(self.text), False)
        text = "\n".join(self.lines).strip("\n")
        return text + "\n" if text else ""

    def _part(self, part: _Part) -> None:
        if isinstance(part, ast.CDefinition):
            self._raw(part.text)
        elif isinstance(part, ast.Probe):
            self._probe(part)
        elif isinstance(part, ast.Macro | ast.Subprog):
            self._callable(part)
        elif isinstance(part, ast.Config) and not self._has_comments(part):
            self._config(part)
        elif self._has_comments(part):
            self._raw(part.span.text)
            self.put(";" if isinstance(part, ast.Import | ast.MapDeclaration) else "")
        elif isinstance(part, ast.Import):
            self.put(f"import {part.path.span.text};")
        elif isinstance(part, ast.MapDeclaration):
            inside = ", ".join(self.always_flat(argument) for argument in part.arguments)
            self.put(f"let {part.map.name} = {part.kind.text}({inside});")
        self._done(part.span.end)

    def _config(self, config: ast.Config) -> None:
        self.put("config = {")
        for entry in config.entries:
            self.new_line(INDENT)
            self.put(f"{entry.name.text} = {entry.value.span.text};")
        self.new_line()
        self.put("}")

    def _probe(self, probe: ast.Probe) -> None:
        brace = probe.block.span.start
        if self._comments_between(probe.span.start, brace):
            self._raw_head(probe.span.start, brace)
        else:
            self._probe_head(probe)
        self._body(probe.block)

    def _probe_head(self, probe: ast.Probe) -> None:
        for index, point in enumerate(probe.attach_points):
            if index:
                self.put(",")
                self.new_line()
            if point.name is not None:
                self.put(f"{point.name.text}=")
            self.put(self.text[point.provider.span.start : point.span.end])
        if probe.predicate is None:
            self.put(" ")
            return
        flat = self.flat(probe.predicate)
        if len(probe.attach_points) == 1 and flat is not None and self.fits(f"  /{flat}/ {{"):
            self.put(f" /{self._space(flat)}{flat}/ ")
            return
        self.new_line()
        self.put("/")
        self.put(self._space("" if flat is None else flat))
        self.expression(probe.predicate)
        self.put("/")
        self.new_line()

    @staticmethod
    def _space(predicate: str) -> str:
        """What keeps ``/*x`` and ``//`` at the start of a predicate from being a comment."""
        return " " if predicate[:1] in ("*", "/", "=") else ""

    def _callable(self, item: ast.Macro | ast.Subprog) -> None:
        brace = item.body.span.start
        if self._comments_between(item.span.start, brace):
            self._raw_head(item.span.start, brace)
        elif isinstance(item, ast.Macro):
            inside = ", ".join(parameter.name for parameter in item.parameters)
            self.put(f"macro {item.name.text}({inside}) ")
        else:
            inside = ", ".join(
                f"{p.variable.name} : {self.type_text(p.type)}" for p in item.parameters
            )
            result = "" if item.return_type is None else f" : {self.type_text(item.return_type)}"
            self.put(f"fn {item.name.text}({inside}){result} ")
        self._body(item.body)

    def _raw_head(self, start: int, brace: int) -> None:
        """What stands before a block, as it is."""
        self._raw(self.text[start:brace].rstrip())
        if self.comments[bisect_left(self.comment_starts, brace) - 1].text.startswith("//"):
            self.new_line()
        else:
            self.put(" ")
        self._done(brace)

    def _body(self, block: ast.Block) -> None:
        """The block of a probe or macro: on one line if it was and has one simple statement."""
        count = len(block.statements) + (block.value is not None)
        flat = self.flat_block(block) if count <= 1 else None
        if flat is not None and self.fits(flat):
            self.put(flat)
            self._done(block.span.end)
        else:
            self.block(block)

    # --- comments ------------------------------------------------------------------------------

    def _comments_between(self, start: int, end: int) -> bool:
        index = bisect_left(self.comment_starts, start)
        return index < len(self.comments) and self.comment_starts[index] < end

    def _has_comments(self, node: ast.Node) -> bool:
        return self._comments_between(node.span.start, node.span.end)

    def _done(self, offset: int) -> None:
        """Everything before ``offset`` is written, comments included."""
        self.written_to = max(self.written_to, offset)
        self.next_comment = max(
            self.next_comment, bisect_left(self.comment_starts, self.written_to)
        )

    def _leading(self, before: int, apart: bool) -> None:
        """The comments before what starts at ``before``, each on its line, and empty lines.

        Called at the start of a line and leaves at the start of a line.

        :param apart: whether an empty line must come first.
        """
        first = not self.lines or self.lines[-1].endswith("{")
        while self.next_comment < len(self.comments):
            comment = self.comments[self.next_comment]
            if comment.span.start >= before:
                break
            self._gap(comment.span.start, apart, first)
            self._comment(comment)
            self.new_line()
            self._done(comment.span.end)
            apart = first = False
        if before < len(self.text):
            self._gap(before, apart, first)

    def _gap(self, until: int, apart: bool, first: bool) -> None:
        """An empty line if one must be, or if the script has one between here and ``until``."""
        empty = self.text.count("\n", self.written_to, until) > 1
        if (apart or empty) and not first and self.lines and self.lines[-1] != "":
            self.lines.append("")

    def _comment(self, comment: ast.Comment) -> None:
        lines = [line.strip() for line in comment.text.splitlines()]
        if len(lines) > 1 and all(line.startswith("*") for line in lines[1:]):
            column = self.column
            self.put(lines[0])
            for line in lines[1:]:
                self.new_line(column)
                self.put(f" {line}")
        else:
            self._raw(comment.text)

    def _trailing(self, end: int) -> None:
        """The comments that follow on the line where something ended at ``end``."""
        self._done(end)
        while self.next_comment < len(self.comments):
            comment = self.comments[self.next_comment]
            between = self.text[self.written_to : comment.span.start]
            if "\n" in between or between.strip(" \t\r;"):
                return
            self.put(" ")
            self._raw(comment.text)
            self._done(comment.span.end)

    def _raw(self, text: str) -> None:
        """Text of the script as it is, perhaps of several lines."""
        lines = text.replace("\r\n", "\n").split("\n")
        self.put(lines[0])
        for line in lines[1:]:
            self.new_line(0)
            self.put(line)

    # --- blocks and statements -------------------------------------------------------------------

    def block(self, block: ast.Block) -> None:
        """A block over several lines; ``{}`` if there is nothing in it."""
        self.put("{")
        if not block.statements and block.value is None and not self._has_comments(block):
            self.put("}")
            self._done(block.span.end)
            return
        outer = self.indent
        self.indent += INDENT
        self._trailing(block.span.start + 1)
        self.new_line()
        last = len(block.statements) - 1
        for index, statement in enumerate(block.statements):
            self._leading(statement.span.start, False)
            is_last = index == last and block.value is None
            self._statement(statement, is_last)
            self._trailing(statement.span.end)
            self.new_line()
        if block.value is not None:
            extent = self._extent(block.value)
            self._leading(extent.start, False)
            self._value(block.value)
            self._trailing(extent.end)
            self.new_line()
        self._leading_end(block.span.end - 1)
        self.indent = outer
        self.line = " " * outer + "}"
        self._done(block.span.end)

    def _leading_end(self, end: int) -> None:
        """The comments before the ``}`` at offset ``end``."""
        self._leading(end, False)
        while self.lines and self.lines[-1] == "":
            self.lines.pop()
        self._done(end)

    def _extent(self, value: ast.Expr) -> Span:
        """The span of an expression with the parentheses around it."""
        return self.grouped.get(value, value.span)

    def _left_as_is(self, node: ast.Node) -> bool:
        """Whether a comment stands in the middle of ``node``, outside of its blocks."""
        span = self._extent(node) if isinstance(node, ast.Expr) else node.span
        if not self._comments_between(span.start, span.end):
            return False
        blocks: list[ast.Block] = []
        stack = [node]
        while stack:
            current = stack.pop()
            if isinstance(current, ast.Block):
                blocks.append(current)
            elif not isinstance(current, _ALWAYS_FLAT):
                stack.extend(ast.children(current))
        low = bisect_left(self.comment_starts, span.start)
        high = bisect_left(self.comment_starts, span.end)
        return any(
            not any(b.span.start < start < b.span.end for b in blocks)
            for start in self.comment_starts[low:high]
        )

    def _value(self, value: ast.Expr) -> None:
        """The value of a block."""
        if self._left_as_is(value):
            self._raw(self._extent(value).text)
        elif isinstance(value, ast.If) and value not in self.grouped:
            self.if_expression(value)
        elif isinstance(value, ast.BlockExpr) and value not in self.grouped:
            self.block(value.block)
        else:
            self.expression(value)

    def _statement(self, statement: ast.Stmt, is_last: bool) -> None:
        """A statement with its ``;``."""
        if isinstance(statement, ast.ExprStatement):
            expression = statement.expression
            self._value(expression)
            ends_in_block = (
                isinstance(expression, ast.If | ast.BlockExpr) and expression not in self.grouped
            )
            if not ends_in_block or (is_last and self._valued(statement)):
                self.put(";")
        elif self._left_as_is(statement):
            self._raw(statement.span.text)
            self.put("" if isinstance(statement, ast.While | ast.For | ast.Unroll) else ";")
        elif isinstance(statement, ast.While | ast.For | ast.Unroll):
            self._loop(statement)
        else:
            self._simple(statement)
            self.put(";")

    def _valued(self, statement: ast.ExprStatement) -> bool:
        """Whether the script has a ``;`` after this: without it, it could become a value."""
        return self.text[statement.span.end :].lstrip().startswith(";")

    def _simple(self, statement: ast.Stmt) -> None:
        """A statement without a body, without its ``;``."""
        if isinstance(statement, ast.Assign):
            self.expression(statement.target)
            self.put(f" {statement.op} ")
            self.expression(statement.value)
        elif isinstance(statement, ast.Let):
            self.put(f"let {statement.variable.name}")
            if statement.type is not None:
                self.put(f": {self.type_text(statement.type)}")
            if statement.value is not None:
                self.put(" = ")
                self.expression(statement.value)
        elif isinstance(statement, ast.Discard):
            self.put("_ = ")
            self.expression(statement.expression)
        elif isinstance(statement, ast.Return):
            self.put("return")
            if statement.value is not None:
                self.put(" ")
                self.expression(statement.value)
        elif isinstance(statement, ast.Import):
            self.put(f"import {statement.path.span.text}")
        else:
            self.put("break" if isinstance(statement, ast.Break) else "continue")

    def _loop(self, statement: ast.While | ast.For | ast.Unroll) -> None:
        if isinstance(statement, ast.While):
            self.put("while ")
            self.expression(statement.condition)
        elif isinstance(statement, ast.Unroll):
            self.put("unroll ")
            self.expression(statement.count)
        else:
            self.put(f"for ({statement.variable.name} : ")
            iterable = statement.iterable
            if isinstance(iterable, ast.Range):
                self.expression(iterable.start)
                self.put("..")
                self.expression(iterable.end)
            else:
                self.expression(iterable)
            self.put(")")
        self.put(" ")
        self.block(statement.body)

    def flat_block(self, block: ast.Block) -> str | None:
        """A block on one line, if it stands on one line in the script and has no control flow."""
        on_several = "\n" in block.span.text and not self.forced
        if on_several or self._has_comments(block):
            return None
        parts: list[str] = []
        for statement in block.statements:
            text = self._flat_statement(statement)
            if text is None:
                return None
            parts.append(text + ";")
        if block.value is not None:
            if isinstance(block.value, ast.If | ast.BlockExpr):
                return None
            value = self.flat(block.value)
            if value is None:
                return None
            parts.append(value)
        return f"{{ {' '.join(parts)} }}" if parts else "{}"

    def _flat_statement(self, statement: ast.Stmt) -> str | None:
        if isinstance(statement, ast.While | ast.For | ast.Unroll):
            return None
        inner: Sequence[ast.Expr | None] = ()
        if isinstance(statement, ast.ExprStatement):
            if isinstance(statement.expression, ast.If | ast.BlockExpr):
                return None
            return self.flat(statement.expression)
        if isinstance(statement, ast.Assign):
            inner = (statement.target, statement.value)
        elif isinstance(statement, ast.Let | ast.Return):
            inner = (statement.value,)
        elif isinstance(statement, ast.Discard):
            inner = (statement.expression,)
        if any(expression is not None and self.flat(expression) is None for expression in inner):
            return None
        # Every expression in it is flat, so writing it can't break a line if it fits.
        saved = self.line, self.lines
        self.line, self.lines = "", []
        self._simple(statement)
        text = self.line if not self.lines and len(self.line) <= WIDTH else None
        self.line, self.lines = saved
        return text
