# SPDX-License-Identifier: Apache-2.0
"""How expressions and types are written in standard form, on one line or on several.

:class:`Writer` holds the text written so far. An expression is written flat if that fits the line;
else calls and tuples are filled line by line from their bracket on, and chains of operators are
broken after an operator. Parentheses stay as the script has them.
"""

from __future__ import annotations

from collections.abc import Sequence

from kcap.lang import ast
from kcap.lang.source import Span

#: The longest line that is not broken, in characters.
WIDTH = 80
INDENT = 2


class Writer:
    """Text under construction, and the rules of expressions.

    :param grouped: the expressions that stand in parentheses, with the span of those.
    """

    def __init__(self, grouped: dict[ast.Node, Span]) -> None:
        self.grouped = grouped
        self.lines: list[str] = []
        self.line = ""
        self.indent = 0
        self._flat: dict[ast.Node, str | None] = {}
        self.forced = False

    # --- text ----------------------------------------------------------------------------------

    def put(self, text: str) -> None:
        """Write on the current line; ``text`` has no line end."""
        self.line += text

    def new_line(self, column: int | None = None) -> None:
        """End the line and start one at ``column``, or at the current indentation."""
        self.lines.append(self.line.rstrip())
        self.line = " " * (self.indent if column is None else column)

    @property
    def column(self) -> int:
        """The number of characters on the current line."""
        return len(self.line)

    def fits(self, text: str) -> bool:
        """Whether ``text`` fits on the current line."""
        return len(self.line) + len(text) <= WIDTH

    def block(self, block: ast.Block) -> None:
        """Write a block over several lines; defined by the rules of statements."""
        raise NotImplementedError

    def flat_block(self, block: ast.Block) -> str | None:
        """A block on one line, or None if it can't be; defined by the rules of statements."""
        raise NotImplementedError

    # --- types ---------------------------------------------------------------------------------

    def type_text(self, node: ast.TypeNode) -> str:
        """A type."""
        suffix = ""
        while True:
            if isinstance(node, ast.PointerType):
                suffix = "*" + suffix
                node = node.target
            elif isinstance(node, ast.ArrayType):
                suffix = self._size(node.size) + suffix
                node = node.element
            else:
                break
        if isinstance(node, ast.NamedType):
            size = self._size(node.size) if node.size is not None else ""
            return node.name + size + suffix
        if isinstance(node, ast.TagType):
            return f"{node.kind} {node.name}{suffix}"
        assert isinstance(node, ast.TypeofType)
        return f"typeof({self.operand_text(node.operand)}){suffix}"

    def _size(self, size: ast.Expr | None) -> str:
        return "[]" if size is None else f"[{self.always_flat(size)}]"

    def operand_text(self, node: ast.TypeNode | ast.Expr) -> str:
        """The type or expression in a ``sizeof(…)``."""
        if isinstance(node, ast.TypeNode):
            return self.type_text(node)
        return self.always_flat(node)

    def always_flat(self, node: ast.Expr) -> str:
        """An expression on one line, as it stands in the script if there is no other way."""
        text = self.flat(node)
        if text is None:
            text = self._forced_flat(node)
        if text is not None:
            return text
        raw = " ".join(part.strip() for part in node.span.text.splitlines())
        return f"({raw})" if node in self.grouped else raw

    def _forced_flat(self, node: ast.Expr) -> str | None:
        """The same, where blocks may have stood on several lines in the script."""
        before = self._flat, self.forced
        self._flat, self.forced = {}, True
        try:
            return self.flat(node)
        finally:
            self._flat, self.forced = before

    # --- expressions on one line -----------------------------------------------------------------

    def flat(self, node: ast.Expr) -> str | None:
        """An expression on one line; None if it holds a block that needs several."""
        if node in self._flat:
            return self._flat[node]
        text = self._flat_bare(node)
        if text is not None and node in self.grouped:
            text = f"(({text}))" if self._could_cast(node) else f"({text})"
        self._flat[node] = text
        return text

    def _could_cast(self, node: ast.Expr) -> bool:
        """Whether one pair of parentheses of several may not go: ``((x)) - 1`` is a difference,
        ``(x) - 1`` the cast of -1 to a type x."""
        if not isinstance(node, ast.Identifier | ast.ArrayAccess):
            return False
        before = self.grouped[node]
        return before.source.text.count("(", before.start, node.span.start) > 1

    def _flat_bare(self, node: ast.Expr) -> str | None:
        if isinstance(node, ast.Binary):
            return self._join([(self.flat(e), op) for e, op in self.chain(node)])
        if isinstance(node, ast.Identifier | ast.Variable | ast.Map):
            return node.name
        if isinstance(node, ast.Call):
            inside = self._flat_list(node.arguments)
            return None if inside is None else f"{node.name}({inside})"
        if isinstance(node, ast.Unary | ast.Step | ast.Comptime | ast.Cast):
            return self._flat_prefixed(node)
        if isinstance(node, ast.FieldAccess | ast.TupleAccess | ast.ArrayAccess | ast.MapAccess):
            return self._flat_access(node)
        if isinstance(node, ast.Tuple):
            inside = self._flat_list(node.elements)
            if inside is None or node.bare:
                return inside
            return f"({inside},)" if len(node.elements) == 1 else f"({inside})"
        if isinstance(node, ast.Record):
            inside = self._flat_list([field.value for field in node.fields], node.fields)
            return None if inside is None else f"({inside})"
        if isinstance(node, ast.Ternary):
            return self._flat_ternary(node)
        if isinstance(node, ast.BlockExpr):
            return self.flat_block(node.block)
        if isinstance(node, ast.If):
            return self._flat_if(node)
        return self._leaf(node)

    def _leaf(self, node: ast.Expr) -> str:
        if isinstance(node, ast.Sizeof | ast.Typeof | ast.Typeinfo):
            return f"{type(node).__name__.lower()}({self.operand_text(node.operand)})"
        if isinstance(node, ast.Offsetof):
            fields = ".".join(field.text for field in node.fields)
            return f"offsetof({self.operand_text(node.operand)}, {fields})"
        # Literals and positional parameters stay as they are written.
        return node.span.text

    @staticmethod
    def _join(parts: list[tuple[str | None, str]]) -> str | None:
        out = []
        for text, op in parts:
            if text is None:
                return None
            out.append(f"{text} {op} " if op else text)
        return "".join(out)

    def _flat_list(
        self, nodes: Sequence[ast.Expr], fields: Sequence[ast.RecordField] = ()
    ) -> str | None:
        texts = [self.flat(node) for node in nodes]
        known = [text for text in texts if text is not None]
        if len(known) < len(texts):
            return None
        if fields:
            known = [f"{f.name.text}={text}" for f, text in zip(fields, known, strict=True)]
        return ", ".join(known)

    def _prefix(self, node: ast.Unary | ast.Step | ast.Comptime | ast.Cast) -> str:
        """What stands before the operand."""
        if isinstance(node, ast.Comptime):
            return "comptime "
        if isinstance(node, ast.Cast):
            return f"({self.type_text(node.type)})"
        if isinstance(node, ast.Step):
            return node.op if node.prefix else ""
        return node.op

    @staticmethod
    def _operand(node: ast.Unary | ast.Step | ast.Comptime | ast.Cast) -> ast.Expr:
        return node.target if isinstance(node, ast.Step) else node.operand

    def _needs_space(self, prefix: str, operand: ast.Expr) -> bool:
        """Whether ``- -x`` and the like would turn into another operator."""
        if operand in self.grouped or not isinstance(operand, ast.Unary | ast.Step):
            return False
        following = self._prefix(operand)
        return prefix[-1:] in ("-", "&") and following[:1] == prefix[-1:]

    def _flat_prefixed(self, node: ast.Unary | ast.Step | ast.Comptime | ast.Cast) -> str | None:
        operand = self._operand(node)
        text = self.flat(operand)
        if text is None:
            return None
        prefix = self._prefix(node)
        suffix = node.op if isinstance(node, ast.Step) and not node.prefix else ""
        space = " " if self._needs_space(prefix, operand) else ""
        return prefix + space + text + suffix

    def _flat_access(
        self, node: ast.FieldAccess | ast.TupleAccess | ast.ArrayAccess | ast.MapAccess
    ) -> str | None:
        base = node.map if isinstance(node, ast.MapAccess) else node.object
        text = self.flat(base)
        if text is None:
            return None
        if isinstance(node, ast.FieldAccess):
            return f"{text}.{node.field.text}"
        if isinstance(node, ast.TupleAccess):
            return f"{text}.{node.index}"
        index = self.flat(node.key if isinstance(node, ast.MapAccess) else node.index)
        return None if index is None else f"{text}[{index}]"

    def _flat_ternary(self, node: ast.Ternary) -> str | None:
        condition, otherwise = self.flat(node.condition), self.flat(node.otherwise)
        then = "" if node.then is None else self.flat(node.then)
        if condition is None or then is None or otherwise is None:
            return None
        if node.then is None:
            return f"{condition} ?: {otherwise}"
        return f"{condition} ? {then} : {otherwise}"

    def _flat_if(self, node: ast.If) -> str | None:
        if "\n" in node.span.text and not self.forced:
            return None
        parts: list[str] = []
        branch: ast.If | ast.Block | None = node
        while isinstance(branch, ast.If):
            condition, then = self.flat(branch.condition), self.flat_block(branch.then)
            if condition is None or then is None:
                return None
            parts.append(f"if {condition} {then}")
            branch = branch.otherwise
        if branch is not None:
            last = self.flat_block(branch)
            if last is None:
                return None
            parts.append(last)
        return " else ".join(parts)

    def chain(self, node: ast.Binary) -> list[tuple[ast.Expr, str]]:
        """The operands of a chain of operators, left to right, each with the operator after it.

        Left operands that are chains themselves and not in parentheses belong to the chain.
        """
        parts: list[tuple[ast.Expr, str]] = [(node.right, "")]
        op: str = node.op
        left = node.left
        while isinstance(left, ast.Binary) and left not in self.grouped:
            parts.append((left.right, op))
            op = left.op
            left = left.left
        parts.append((left, op))
        parts.reverse()
        return parts

    # --- expressions on several lines ---------------------------------------------------------

    def expression(self, node: ast.Expr) -> None:
        """Write an expression, flat if that fits."""
        flat = self.flat(node)
        if flat is not None and self.fits(flat):
            self.put(flat)
            return
        if node in self.grouped:
            self.put("(")
            self._broken(node)
            self.put(")")
        else:
            self._broken(node)

    def _broken(self, node: ast.Expr) -> None:
        if isinstance(node, ast.Binary):
            self._broken_chain(node)
        elif isinstance(node, ast.Call):
            self.put(f"{node.name}(")
            self._fill(node.arguments)
            self.put(")")
        elif isinstance(node, ast.Unary | ast.Step | ast.Comptime | ast.Cast):
            prefix, operand = self._prefix(node), self._operand(node)
            self.put(prefix + (" " if self._needs_space(prefix, operand) else ""))
            self.expression(operand)
            self.put(node.op if isinstance(node, ast.Step) and not node.prefix else "")
        elif isinstance(node, ast.FieldAccess | ast.TupleAccess | ast.ArrayAccess | ast.MapAccess):
            self._broken_access(node)
        elif isinstance(node, ast.Tuple):
            self._broken_tuple(node)
        elif isinstance(node, ast.Record):
            self.put("(")
            self._fill([field.value for field in node.fields], node.fields)
            self.put(")")
        elif isinstance(node, ast.Ternary):
            self._broken_ternary(node)
        elif isinstance(node, ast.BlockExpr):
            self.block(node.block)
        elif isinstance(node, ast.If):
            self.if_expression(node)
        else:
            self.put(self.always_flat_bare(node))

    def always_flat_bare(self, node: ast.Expr) -> str:
        """A leaf without its parentheses."""
        text = self._flat_bare(node)
        return node.span.text if text is None else text

    def _fill(self, nodes: Sequence[ast.Expr], fields: Sequence[ast.RecordField] = ()) -> None:
        """A comma list, as much as fits on each line, from the current column on."""
        align = self.column
        for index, node in enumerate(nodes):
            name = f"{fields[index].name.text}=" if fields else ""
            if index:
                self.put(",")
                flat = self.flat(node)
                needed = 0 if flat is None else len(name) + len(flat)
                if flat is not None and self.column + 1 + needed > WIDTH >= align + needed:
                    self.new_line(align)
                else:
                    self.put(" ")
            self.put(name)
            self.expression(node)

    def _broken_tuple(self, node: ast.Tuple) -> None:
        self.put("" if node.bare else "(")
        self._fill(node.elements)
        if not node.bare:
            self.put(",)" if len(node.elements) == 1 else ")")

    def _broken_access(
        self, node: ast.FieldAccess | ast.TupleAccess | ast.ArrayAccess | ast.MapAccess
    ) -> None:
        self.expression(node.map if isinstance(node, ast.MapAccess) else node.object)
        if isinstance(node, ast.FieldAccess):
            self.put(f".{node.field.text}")
        elif isinstance(node, ast.TupleAccess):
            self.put(f".{node.index}")
        else:
            self.put("[")
            self.expression(node.key if isinstance(node, ast.MapAccess) else node.index)
            self.put("]")

    def _broken_chain(self, node: ast.Binary) -> None:
        """Break after those operators that bind least, and elsewhere as needed."""
        align = self.column
        parts = self.chain(node)
        for index, (operand, op) in enumerate(parts):
            self.expression(operand)
            if not op:
                break
            self.put(f" {op}")
            following = parts[index + 1][0]
            flat = self.flat(following)
            needed = 0 if flat is None else len(flat) + 1 + len(parts[index + 1][1])
            fits = self.column + 1 + needed <= WIDTH
            if op in ("&&", "||") or (flat is not None and not fits and align + needed <= WIDTH):
                self.new_line(align)
            else:
                self.put(" ")

    def _broken_ternary(self, node: ast.Ternary) -> None:
        align = self.column
        self.expression(node.condition)
        if node.then is None:
            self.put(" ?:")
        else:
            self.put(" ? ")
            self.expression(node.then)
            self.put(" :")
        self.new_line(align)
        self.expression(node.otherwise)

    def if_expression(self, node: ast.If) -> None:
        """Write an ``if`` over several lines."""
        branch: ast.If | ast.Block | None = node
        while isinstance(branch, ast.If):
            self.put("if ")
            self.expression(branch.condition)
            self.put(" ")
            self.block(branch.then)
            branch = branch.otherwise
            if branch is not None:
                self.put(" else ")
        if branch is not None:
            self.block(branch)
