# SPDX-License-Identifier: Apache-2.0
"""Every builtin and function by name.

Each family is a module whose ``FUNCTIONS`` lists its classes. Adding one means adding a class
there; checks, documentation and ``--list-functions`` read from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kcap.codegen.function import Function

FAMILIES = (
    "process",
    "probe_builtins",
    "clock",
    "strings",
    "comparing",
    "names",
    "network",
    "symbols",
    "uaddr",
    "dwstack",
    "stacks",
    "printing",
    "maps",
    "aggregates",
    "histogram",
    "tseries",
    "skbfilter",
    "skboutput",
    "control",
    "macros",
    "meta",
)
"""The families' modules, in the order of the documentation."""
_COMMON = ("control", "process", "aggregates", "histogram", "printing", "clock", "maps")
"""Where a name is looked for first: what most scripts use, and what a start loads anyway."""


def family(name: str) -> Any:
    """A family's module: ``FUNCTIONS`` are its classes."""
    return import_module(f"kcap.functions.{name}")


class Functions(Mapping[str, "Function"]):
    """Builtins and functions by name and by alias. Families are imported when a name was found in
    none of those before: all of them take a seventh of a start."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Function]] = {}
        rest = (name for name in FAMILIES if name not in _COMMON)
        self._missing = [*_COMMON, *rest][::-1]

    def __getitem__(self, name: str) -> Function:
        for functions in self._found.values():
            if name in functions:
                return functions[name]
        while self._missing:
            functions = self._load()
            if name in functions:
                return functions[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        while self._missing:
            self._load()
        for module in FAMILIES:
            yield from self._found[module]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _load(self) -> dict[str, Function]:
        """Import the next family."""
        module = self._missing.pop()
        made = [cls() for cls in family(module).FUNCTIONS]
        named = {name: each for each in made for name in (each.name, *each.aliases)}
        self._found[module] = named
        return named


@cache
def all_functions() -> Functions:
    """Every builtin and function, by name and by each alias."""
    return Functions()
