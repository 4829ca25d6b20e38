# SPDX-License-Identifier: Apache-2.0
"""From text to the syntax tree.

A script is, in this order: C definitions, ``config`` and imports, and then probes, macros,
functions and map declarations in any order (language.md). Whatever the text is, the result is a
tree or diagnostics. After a mistake reading goes on at the next statement, or behind the block of
the probe, so that several mistakes are reported together.
"""

from __future__ import annotations

import re

from kcap.lang.ast import (
    Boolean,
    CDefinition,
    Config,
    ConfigEntry,
    Expr,
    Identifier,
    Import,
    Integer,
    Item,
    Macro,
    Map,
    MapDeclaration,
    Name,
    Node,
    Parameter,
    Probe,
    Program,
    String,
    Subprog,
    Variable,
)
from kcap.lang.depth import recursion_room
from kcap.lang.diagnostic import Diagnostics, Edit, Label, ScriptError
from kcap.lang.expressions import LONG_CHAIN
from kcap.lang.lexer import SyntaxFailure, UnclosedBlock
from kcap.lang.source import Source, Span
from kcap.lang.toplevel import TopLevelRules
from kcap.lang.traverse import too_high

#: How high a syntax tree may be: what passes that recurse over it can rely on.
MAX_HEIGHT = 500

_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_CONFIG = re.compile(r"config\s*=\s*\{")
_BARE_CONFIG = re.compile(r"(config)\s*\{")
_IMPORT = re.compile(r"import\s*\"|import\s+[^\s:,{=/]")
_MACRO = re.compile(r"macro\s+\w", re.ASCII)
_FUNCTION = re.compile(r"fn\s+\w", re.ASCII)
_LET = re.compile(r"let\s*[@$]|let\s")
_C_TYPE = re.compile(r"(?:struct|union|enum|typedef)(?:\s+\w|\s*\{)", re.ASCII)


class Parser(TopLevelRules):
    """Rules of a whole script."""

    def program(self) -> Program:
        """The whole script; mistakes are in ``diagnostics``."""
        header, at = self._header()
        c_definitions: list[CDefinition] = []
        preamble: list[Config | Import] = []
        items: list[Item] = []
        while True:
            at = self.skip_trivia(at)
            if at >= len(self.text):
                break
            start = at
            self.depth = 0
            self.predicate_depth = 0
            self.errors_before = len(self.diagnostics)
            try:
                at = self._part_of_script(at, c_definitions, preamble, items)
            except UnclosedBlock:
                at = self.starts[self.i]
            except SyntaxFailure:
                at = self._recover(start)
            self.forget_comments(at)
        span = Span(self.source, 0, len(self.text))
        return Program(span, header, c_definitions, preamble, items, self.comments, self.grouped)

    def _header(self) -> tuple[Name | None, int]:
        start = len(self.text) - len(self.text.lstrip())
        if not self.text.startswith("#!", start):
            return None, 0
        end = self.text.find("\n", start)
        end = len(self.text) if end < 0 else end
        text = self.text[start:end].rstrip()
        return Name(Span(self.source, start, start + len(text)), text), end

    def _part_of_script(
        self,
        at: int,
        c_definitions: list[CDefinition],
        preamble: list[Config | Import],
        items: list[Item],
    ) -> int:
        """Read what starts at ``at`` into its list; the offset after it."""
        text = self.text
        if text.startswith("#!", at):
            end = self._line_end(Span(self.source, at, len(text)))
            line = Span(self.source, at, end)
            self.error("the `#!` line must be the first line", line, code="order")
            return end
        if text[at] == "#" or _C_TYPE.match(text, at):
            definition = self.c_definition(at)
            if definition is not None:
                before = [*preamble, *items]
                self._check_order("C definitions", definition.span, before)
                c_definitions.append(definition)
                return definition.span.end
        if _CONFIG.match(text, at) or _IMPORT.match(text, at):
            self.enter(at)
            part = self._config() if self.word == "config" else self._root_import()
            self._check_preamble(part, preamble, items)
            preamble.append(part)
            return self.leave()
        if text[at] == ";":
            return at + 1
        items.append(self._item(at))
        return self.leave()

    def _item(self, at: int) -> Item:
        text = self.text
        if _MACRO.match(text, at):
            self.enter(at)
            return self._macro()
        if _FUNCTION.match(text, at):
            self.enter(at)
            return self._function()
        if _LET.match(text, at):
            self.enter(at)
            return self._map_declaration()
        if (config := _BARE_CONFIG.match(text, at)) is not None:
            self.fail(
                "expected `=`, found `{`",
                Span(self.source, config.end() - 1, config.end()),
                help=("settings stand in `config = { … }`",),
                edits=(Edit(Span(self.source, config.end(1), config.end(1)), " ="),),
            )
        return self._probe(at)

    def _check_order(self, what: str, span: Span, before: list[Config | Import | Item]) -> None:
        if before:
            first = before[0].span
            self.error(
                f"{what} must come first in a script",
                Span(self.source, span.start, self._line_end(span)),
                code="order",
                labels=(
                    Label(Span(self.source, first.start, self._line_end(first)), "after this"),
                ),
                notes=("the order is: C definitions; config and imports; everything else",),
            )

    def _check_preamble(
        self, part: Config | Import, preamble: list[Config | Import], items: list[Item]
    ) -> None:
        if items:
            what = "the config block" if isinstance(part, Config) else "imports"
            first = items[0].span
            self.error(
                f"{what} must come before probes, macros and map declarations",
                Span(self.source, part.span.start, self._line_end(part.span)),
                code="order",
                labels=(
                    Label(Span(self.source, first.start, self._line_end(first)), "after this"),
                ),
            )
        earlier = next((p for p in preamble if isinstance(p, Config)), None)
        if isinstance(part, Config) and earlier is not None:
            self.error(
                "a script has only one config block",
                Span(self.source, part.span.start, self._line_end(part.span)),
                code="order",
                labels=(
                    Label(
                        Span(self.source, earlier.span.start, self._line_end(earlier.span)),
                        "the first one",
                    ),
                ),
            )

    def _line_end(self, span: Span) -> int:
        """The end of the first line of ``span``."""
        end = self.text.find("\n", span.start, span.end)
        return span.end if end < 0 else end

    def _recover(self, start: int) -> int:
        """After a mistake in the part at ``start``: the offset after the block it has."""
        if self.i >= len(self.starts) or self.starts[self.i] < start:
            self.enter(start)
        depth = 0
        while self.kind != "eof":
            kind = self.kinds[self.advance()]
            if kind == "{":
                depth += 1
            elif kind == "}":
                depth -= 1
                if depth <= 0:
                    break
        return max(self.leave(), start + 1)

    # --- config, imports -----------------------------------------------------------------------

    def _config(self) -> Config:
        start = self.starts[self.advance()]
        self.expect("=")
        opened = self.expect("{")
        entries: list[ConfigEntry] = []
        while self.kind != "}":
            if self.take(";"):
                continue
            name = self.name("a config variable")
            self.expect("=")
            value = self._config_value()
            entries.append(ConfigEntry(self.since(name.span.start), name, value))
            if self.kind != "}" and not self.take(";"):
                self._missing_semicolon()
        self.expect("}", opened=opened)
        return Config(self.since(start), entries)

    def _config_value(self) -> Integer | String | Boolean | Identifier:
        kind = self.kind
        if kind == "int":
            return self.integer()
        if kind == "str":
            return self.string()
        if kind == "id":
            word = self.word
            span = self.span_at(self.advance())
            if word in ("true", "false"):
                return Boolean(span, word == "true")
            return Identifier(span, word)
        return self.unexpected("a value: an integer, a string or a word")

    def _root_import(self) -> Import:
        found = self.import_path()
        if not self.take(";"):
            self._missing_semicolon()
        return found

    # --- macros, functions, map declarations -----------------------------------------------------

    def _macro(self) -> Macro:
        start = self.starts[self.advance()]
        name = self.name("the macro")
        parameters: list[Identifier | Variable | Map] = []
        if self.kind == "(":
            opened = self.advance()
            while self.kind != ")":
                parameters.append(self._macro_parameter())
                if not self.take(","):
                    break
            self.expect(")", opened=opened)
        body = self.block()
        return Macro(self.since(start), name, parameters, body)

    def _macro_parameter(self) -> Identifier | Variable | Map:
        kind = self.kind
        if kind == "var":
            return self.variable()
        if kind == "map":
            return self.map_name()
        if kind == "id":
            index = self.advance()
            return Identifier(self.span_at(index), self.token_text(index))
        return self.unexpected("a parameter: `name`, `$name` or `@name`")

    def _function(self) -> Subprog:
        start = self.starts[self.advance()]
        name = self.name("the function")
        opened = self.expect("(")
        parameters: list[Parameter] = []
        while self.kind != ")":
            variable = self.variable()
            self.expect(":")
            type_ = self.type_reference()
            parameters.append(Parameter(self.since(variable.span.start), variable, type_))
            if not self.take(","):
                break
        self.expect(")", opened=opened)
        return_type = self.type_reference() if self.take(":") else None
        body = self.unvalued_block()
        return Subprog(self.since(start), name, parameters, return_type, body)

    def _map_declaration(self) -> MapDeclaration:
        start = self.starts[self.advance()]
        if self.kind == "var":
            self.fail(
                "variables are declared inside blocks",
                self.here,
                help=("only maps can be declared outside of blocks",),
            )
        if self.kind != "map":
            self.unexpected("a map such as `@m`")
        declared = self.map_name()
        self.expect("=")
        kind = self.name("a kind of map, such as `hash` or `lruhash`")
        opened = self.expect("(")
        arguments: list[Expr] = []
        while self.kind != ")":
            arguments.append(self.expression())
            if not self.take(","):
                break
        self.expect(")", opened=opened)
        span = self.since(start)
        if not self.take(";"):
            self._missing_semicolon()
        return MapDeclaration(span, declared, kind, arguments)

    # --- probes --------------------------------------------------------------------------------

    def _probe(self, at: int) -> Probe:
        points, after = self.attach_points(at)
        if after == len(self.text) or self.text[after] not in "/{":
            self.unexpected_after_points(points, after)
        self.enter(after)
        predicate: Expr | None = None
        if self.kind != "{":
            opened = self.expect("/")
            self.predicate_depth = self.depth + 1
            predicate = self.expression()
            self.predicate_depth = 0
            self.expect("/", opened=opened)
        block = self.unvalued_block()
        return Probe(self.since(at), points, predicate, block)

    # --- height --------------------------------------------------------------------------------

    def check_height(self, root: Node) -> None:
        """Refuse a tree that is too high for passes that recurse over it.

        Only measured when a long chain or deep nesting was seen, since that takes a while.
        """
        if self.longest_chain <= LONG_CHAIN and self.deepest <= LONG_CHAIN:
            return
        node = too_high(root, MAX_HEIGHT)
        if node is not None:
            self.error("this is too long or too deep an expression", node.span, code="nesting")


def parse_with_diagnostics(source: Source) -> tuple[Program | None, Diagnostics]:
    """The syntax tree of a script, or None if it has errors; and the diagnostics."""
    diagnostics = Diagnostics()
    parser = Parser(source, diagnostics)
    with recursion_room():
        program = parser.program()
    parser.check_height(program)
    diagnostics.items.sort(key=lambda d: d.span.start if d.span is not None else 0)
    return (None if diagnostics.has_errors else program), diagnostics


def parse(source: Source) -> Program:
    """The syntax tree of a script.

    :raises ScriptError: with every error found.
    """
    program, diagnostics = parse_with_diagnostics(source)
    if program is None:
        raise ScriptError(diagnostics)
    return program


def parse_expression(source: Source) -> Expr:
    """The syntax tree of a text that is one expression.

    :raises ScriptError: with every error found.
    """
    diagnostics = Diagnostics()
    parser = Parser(source, diagnostics)
    parser.enter(0)
    try:
        with recursion_room():
            expression = parser.expression()
        if parser.kind != "eof":
            parser.unexpected("the end of the expression")
        parser.check_height(expression)
    except SyntaxFailure:
        pass
    diagnostics.raise_if_errors()
    return expression
