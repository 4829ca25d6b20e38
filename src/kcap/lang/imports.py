# SPDX-License-Identifier: Apache-2.0
"""``import "path";`` at the top of a script (language.md, "Imports").

An imported script's definitions, macros, map declarations and probes come before those of the
script that imports it; a C header becomes an ``#include``. Every file is imported once. Parts of
bpftrace's standard library (``stdlib/…``) are there without being imported.
"""

from __future__ import annotations

import os
import stat
from typing import NoReturn

from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostics, Label
from kcap.lang.parser import parse_with_diagnostics
from kcap.lang.source import Source, Span

_SUFFIXES = (".bpf.c", ".bt", ".h")


def inclusion(header: str, origin: str) -> ast.CDefinition:
    """An ``#include`` that stands in no script.

    :param header: the header with its quotes or angle brackets.
    :param origin: where it comes from, for messages about it.
    """
    source = Source(origin, f"#include {header}")
    value, span = Span(source, 9, len(source.text)), Span(source, 0, len(source.text))
    return ast.CDefinition(span, "include", "", value.text, value)


class _Refused(Exception):
    """Leaves one import after its diagnostic was recorded."""


def resolve_imports(
    program: ast.Program, diagnostics: Diagnostics, *, directory: str
) -> ast.Program:
    """The program with everything that it imports, and without its import statements.

    Only imports at the top are resolved; those inside blocks stay.

    :param diagnostics: gets an error for each file that can't be imported, and the errors of the
        files imported.
    :param directory: the directory that the script stands in, or the working directory for a
        script that stands in no file.
    """
    if not program.imports:
        return program
    importer = _Importer(diagnostics)
    importer.add(program, directory)
    preamble: list[ast.Config | ast.Import] = [] if program.config is None else [program.config]
    return program.replace(
        c_definitions=importer.c_definitions,
        preamble=preamble,
        items=importer.items,
        grouped=importer.grouped,
    )


class _Importer:
    """Collects the parts of a script and of what it imports, imported ones first."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        self.diagnostics = diagnostics
        self.c_definitions: list[ast.CDefinition] = []
        self.items: list[ast.Item] = []
        self.grouped: dict[ast.Node, Span] = {}
        self.seen: set[str] = set()

    def add(self, program: ast.Program, directory: str) -> None:
        """Add a script that stands in ``directory``, after what it imports."""
        for statement in program.imports:
            try:
                self._import(statement, directory)
            except _Refused:
                continue
        self.c_definitions.extend(program.c_definitions)
        self.items.extend(program.items)
        self.grouped.update(program.grouped)

    def _refuse(self, title: str, statement: ast.Import, *help: str) -> NoReturn:
        self.diagnostics.error("import", title, statement.path.span, help=help)
        raise _Refused

    def _import(self, statement: ast.Import, directory: str) -> None:
        name = statement.path.value
        if not name or "\0" in name:
            self._refuse("this is no path", statement)
        if name.split("/")[0] == "stdlib":
            return  # kcap has bpftrace's standard library built in
        path = os.path.realpath(os.path.join(directory, name))
        try:
            if not os.path.isdir(path):
                self._file(path, statement)
                return
            self._check_directory(path, statement)
            names = sorted(entry for entry in os.listdir(path) if entry.endswith(_SUFFIXES))
        except OSError as error:
            self._refuse(f"{name} can't be read: {error.strerror}", statement)
        if not names:
            self._refuse(f"there is nothing to import in {name}", statement, _what_can_be())
        for entry in names:
            self._file(os.path.join(path, entry), statement)

    def _check_directory(self, path: str, statement: ast.Import) -> None:
        """Refuse a directory into which anyone may put a file: scripts run as root."""
        if os.stat(path).st_mode & stat.S_IWOTH:
            self._refuse(
                f"{path} is writable by everyone, so nothing is imported from it",
                statement,
                f"move the file, or take that right away: chmod o-w {path}",
            )

    def _file(self, path: str, statement: ast.Import) -> None:
        path = os.path.realpath(path)
        if path in self.seen:
            return
        self.seen.add(path)
        self._check_directory(os.path.dirname(path), statement)
        if path.endswith(".bt"):
            self._script(path, statement)
        elif path.endswith(".bpf.c"):
            self._refuse(
                "kcap can't import BPF programs written in C",
                statement,
                "that takes a C compiler, which kcap does without: write it as a macro or a "
                "function (fn) of the language; types and constants can be imported from a .h file",
            )
        elif path.endswith(".h"):
            os.stat(path)
            self.c_definitions.append(inclusion(f'"{path}"', path))
        else:
            self._refuse(
                f"{statement.path.value} is of no kind that can be imported",
                statement,
                _what_can_be(),
            )

    def _script(self, path: str, statement: ast.Import) -> None:
        with open(path, "rb") as file:
            source = Source.from_bytes(path, file.read())
        program, found = parse_with_diagnostics(source)
        self.diagnostics.extend(found)
        if program is None:
            raise _Refused
        if program.config is not None:
            self.diagnostics.error(
                "import",
                "an imported script can't have a config block",
                program.config.span,
                labels=(Label(statement.span, "imported here"),),
                help=("move its entries to the script that imports it",),
            )
        self.add(program, os.path.dirname(path))


def _what_can_be() -> str:
    return "scripts (.bt), C headers (.h) and directories of them can be imported"
