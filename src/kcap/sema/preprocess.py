# SPDX-License-Identifier: Apache-2.0
"""Conditional parts of a script's C definitions: ``#ifdef``, ``#ifndef``, ``#else``, ``#endif``.

What a script defines depends on ``BPFTRACE_HAVE_BTF``, which is set where the kernel has BTF. An
``#if`` takes integers, ``defined(X)``, names of macros, and C's operators.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostics
from kcap.sema.fold import COMPARISONS, FoldError, fold

_DIRECTIVE = re.compile(r"#\s*(\w+)\s*(.*)", re.DOTALL)
_TOKEN = re.compile(r"\s*(?:(0[xX][0-9a-fA-F]+|\d+)[uUlL]*|(\w+)|(\|\||&&|[=!<>]=|<<|>>|[^\s\w]))")
_LEVELS = (
    ("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="),
    ("<<", ">>"), ("+", "-"), ("*", "/", "%"),
)  # fmt: skip


def active_definitions(
    definitions: Iterable[ast.CDefinition], predefined: Iterable[str], diagnostics: Diagnostics
) -> list[ast.CDefinition]:
    """The definitions that conditions leave, without the conditions.

    :param predefined: macros that are defined from the start.
    :param diagnostics: gets an error for a condition that can't be read or has no end.
    """
    macros: dict[str, str] = dict.fromkeys(predefined, "1")
    found: list[ast.CDefinition] = []
    branches: list[_Branch] = []
    for definition in definitions:
        active = all(branch.active for branch in branches)
        if definition.kind == "directive":
            handled = _directive(definition, branches, macros, diagnostics, active)
            if handled:
                continue
        if active:
            found.append(definition)
            if definition.kind == "define":
                macros[definition.name] = definition.value or ""
    for branch in branches:
        diagnostics.error("preprocessor", "this condition has no #endif", branch.start.span)
    return found


class _Branch:
    """A condition: whether its current part is active, and whether one was before."""

    __slots__ = ("active", "start", "taken")

    def __init__(self, start: ast.CDefinition, active: bool) -> None:
        self.start = start
        self.active = self.taken = active

    def turn(self, active: bool) -> None:
        """Go on to the next part."""
        self.active = active and not self.taken
        self.taken = self.taken or active


def _directive(
    definition: ast.CDefinition,
    branches: list[_Branch],
    macros: dict[str, str],
    diagnostics: Diagnostics,
    active: bool,
) -> bool:
    match = _DIRECTIVE.match(definition.text)
    word, rest = (match[1], match[2].strip()) if match else ("", "")
    if word in ("ifdef", "ifndef", "if"):
        branches.append(_Branch(definition, _holds(word, rest, macros, definition, diagnostics)))
    elif word in ("else", "elif", "endif"):
        if not branches:
            diagnostics.error("preprocessor", f"#{word} without #if", definition.span)
        elif word == "endif":
            branches.pop()
        else:
            branches[-1].turn(word == "else" or _holds("if", rest, macros, definition, diagnostics))
    elif word == "undef":
        if active:
            macros.pop(rest, None)
    else:
        return False
    return True


def _holds(
    word: str,
    rest: str,
    macros: dict[str, str],
    definition: ast.CDefinition,
    diagnostics: Diagnostics,
) -> bool:
    if word != "if":
        return (rest.split()[0] in macros if rest else False) == (word == "ifdef")
    try:
        return bool(_Condition(rest, macros).value())
    except (FoldError, IndexError, KeyError, ValueError):
        diagnostics.error("preprocessor", "this condition can't be evaluated", definition.span)
        return False


class _Condition:
    """Evaluates the expression of an ``#if``."""

    def __init__(self, text: str, macros: dict[str, str], depth: int = 0) -> None:
        self.macros = macros
        self.depth = depth
        self.tokens = [m[1] or m[2] or m[3] for m in _TOKEN.finditer(text.split("//")[0])]
        self.at = 0

    def value(self) -> int:
        """The value of the whole text; 0 for an empty one."""
        result = self._level(0) if self.tokens else 0
        if self.at < len(self.tokens):
            raise ValueError
        return result

    def _take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def _level(self, level: int) -> int:
        if level == len(_LEVELS):
            return self._operand()
        left = self._level(level + 1)
        while self.at < len(self.tokens) and self.tokens[self.at] in _LEVELS[level]:
            op = self._take()
            right = self._level(level + 1)
            if op in ("||", "&&"):
                both = bool(left) and bool(right)
                left = int(both if op == "&&" else bool(left) or bool(right))
            else:
                found = COMPARISONS.get(op)
                left = int(found(left, right)) if found is not None else fold(op, left, right)
        return left

    def _operand(self) -> int:
        token = self._take()
        if token == "(":
            value = self._level(0)
            if self._take() != ")":
                raise ValueError
            return value
        if token in ("!", "-", "+", "~"):
            inner = self._operand()
            return {"!": int(not inner), "-": -inner, "+": inner, "~": ~inner}[token]
        if token == "defined":
            name = self._take()
            if name == "(":
                name = self._take()
                if self._take() != ")":
                    raise ValueError
            return int(name in self.macros)
        return self._atom(token)

    def _atom(self, token: str) -> int:
        if token[0].isdigit():
            octal = token[0] == "0" and token.isdigit() and token != "0"
            return int(token, 8) if octal else int(token, 0)
        if not (token[0].isalpha() or token[0] == "_"):
            raise ValueError
        if token in self.macros and self.depth < 20:
            return _Condition(self.macros[token], self.macros, self.depth + 1).value()
        return 0
