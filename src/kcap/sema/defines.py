# SPDX-License-Identifier: Apache-2.0
"""Object-like ``#define`` macros of a script that stand for an expression."""

from __future__ import annotations

from collections.abc import Iterable

from kcap.lang import ast
from kcap.lang.diagnostic import ScriptError
from kcap.lang.source import Source


class Defines:
    """The ``#define`` lines of a script, parsed when one of them is used.

    :param definitions: the C definitions of the script.
    """

    def __init__(self, definitions: Iterable[ast.CDefinition] = ()) -> None:
        self._texts = {
            definition.name: definition.value
            for definition in definitions
            if definition.kind == "define" and definition.value
        }
        self._parsed: dict[str, ast.Expr | None] = {}

    def add(self, macros: Iterable[tuple[str, str]]) -> None:
        """Take macros of headers, as (name, text); the script's own win."""
        for name, text in macros:
            self._texts.setdefault(name, text)

    def names(self) -> list[str]:
        """Every name that is defined."""
        return list(self._texts)

    def expression(self, name: str) -> ast.Expr | None:
        """What a name stands for; None if it is not defined, or as no expression."""
        if name not in self._texts:
            return None
        if name not in self._parsed:
            self._parsed[name] = self._parse(name)
        return self._parsed[name]

    def _parse(self, name: str) -> ast.Expr | None:
        from kcap.lang.parser import parse_expression

        try:
            return parse_expression(Source(f"#define {name}", self._texts[name]))
        except ScriptError:
            return None  # C that is no expression of the language; nothing wrong until it is used
