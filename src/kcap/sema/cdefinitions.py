# SPDX-License-Identifier: Apache-2.0
"""C definitions of a script and of headers that it includes, read with libclang.

libclang is a large library, so it is only imported when there is a definition to read. Types that
the definitions use and don't define are the kernel's: libclang gets a stand-in of the same size
and alignment, and whoever looks at the type gets the one from BTF.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostics
from kcap.lang.source import Span
from kcap.records import dataclass, field
from kcap.sema.basictypes import BASIC_TYPES
from kcap.sema.clangtypes import ClangTypes
from kcap.sema.headers import (
    COMPILER_DIRECTORY,
    COMPILER_HEADERS,
    SYSTEM_DIRECTORIES,
    kernel_arguments,
    kernel_directories,
    usable_headers,
)
from kcap.sema.types import Boolean, Enum, Integer, Pointer, Type

if TYPE_CHECKING:
    from kcap.sema.kerneltypes import KernelTypes

SCRIPT, PRELUDE = "/script.h", "/kcap-prelude.h"
"""What libclang calls the two texts; absolute, since it looks for relative ones on disk."""

MAX_ROUNDS = 20
"""How often libclang is asked again after it missed types."""

_UNKNOWN = (
    re.compile(r"unknown type name '(\w+)'"),
    re.compile(r"(?:incomplete|undefined) (?:definition of )?type '((?:struct|union|enum) \w+)"),
)


@dataclass(slots=True)
class Composed:
    """The text that libclang reads, and where its parts come from."""

    text: str = ""
    parts: list[tuple[int, Span]] = field(default_factory=list)

    def add(self, definition: ast.CDefinition) -> None:
        """Append a definition on lines of its own."""
        text = definition.text
        self.parts.append((len(self.text), definition.span))
        ends = definition.kind != "type" or text.rstrip().endswith(";")
        self.text += text if ends else text + ";"
        self.text += "\n"

    def span(self, offset: int) -> Span | None:
        """The place in the script of an offset (in characters) into the text."""
        for start, span in reversed(self.parts):
            if start <= offset:
                at = min(span.start + offset - start, span.end)
                return Span(span.source, at, min(at + 1, span.end))
        return None


def read_definitions(
    definitions: Sequence[ast.CDefinition],
    types: KernelTypes,
    diagnostics: Diagnostics,
    include_directories: Iterable[str] = (),
) -> ClangTypes | None:
    """The types and constants that C definitions give, or None if there are none.

    :param definitions: without conditions (see :mod:`kcap.sema.preprocess`).
    :param types: gives what they refer to.
    :param diagnostics: gets C's errors, at their place in the script.
    :param include_directories: where headers are looked for (``-I``), besides the directories of
        the files that include them.
    """
    headers = usable_headers(definitions, types, diagnostics, include_directories)
    composed = Composed()
    for definition in definitions:
        if (
            definition.kind == "type"
            or definition in headers
            or (definition.kind == "define" and composed.parts)
        ):
            composed.add(definition)
    if not any(span.text[:1] != "#" for _, span in composed.parts) and not headers:
        return None
    defines = [d for d in definitions if d.kind == "define"]
    return _read(composed, defines, types, diagnostics, list(headers.values()))


def _read(
    composed: Composed,
    defines: list[ast.CDefinition],
    types: KernelTypes,
    diagnostics: Diagnostics,
    directories: list[str],
) -> ClangTypes | None:
    cindex = _libclang(diagnostics, composed)
    if cindex is None:
        return None
    text = "".join(f"{d.text}\n" for d in defines) + composed.text
    shift = len(text) - len(composed.text)
    arguments = ["-x", "c", "-std=gnu11", "-fsigned-char", "-w", "-fsyntax-only", "-nostdlibinc"]
    arguments += _search_path(directories)
    compiler = [(f"{COMPILER_DIRECTORY}/{n}", t) for n, t in COMPILER_HEADERS.items()]
    # The C library and the kernel's source have their own idea of some names; then only what turns
    # out to be missing is given.
    others = {*SYSTEM_DIRECTORIES, *kernel_directories()}
    prelude = "" if others.intersection(directories) else _prelude()
    missing: set[str] = set()
    for _ in range(MAX_ROUNDS):
        unit = cindex.Index.create().parse(
            SCRIPT,
            ["-include", PRELUDE, *arguments],
            [(SCRIPT, text), (PRELUDE, prelude), *compiler],
            cindex.TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD if directories else 0,
        )
        new = _missing(unit, types) - missing
        if _redefines(unit, types):  # then the kernel's own may not fit
            new = {name for name in new if " " not in name}
        if not new:
            break
        missing |= new
        prelude += "".join(_stand_in(name, types) for name in sorted(new))
    _report(unit, cindex, composed, shift, diagnostics)
    return ClangTypes(unit, cindex, types, PRELUDE)


def _search_path(directories: list[str]) -> list[str]:
    """Arguments that let clang find the headers of the script, and what those of libraries need."""
    path = [f"-I{each}" for each in dict.fromkeys(directories) if each not in SYSTEM_DIRECTORIES]
    if any(each in SYSTEM_DIRECTORIES for each in directories):
        path += [f"-isystem{each}" for each in (COMPILER_DIRECTORY, *SYSTEM_DIRECTORIES)]
    if any(each in kernel_directories() for each in directories):
        path += kernel_arguments()
    return path


def _libclang(diagnostics: Diagnostics, composed: Composed) -> Any:
    try:
        from clang import cindex
    except ImportError:
        diagnostics.error(
            "no-libclang",
            "C definitions need libclang, which is not installed",
            composed.parts[0][1],
            help=["pip install libclang"],
        )
        return None
    return cindex


def _prelude() -> str:
    """Typedefs for the basic names that C itself doesn't have."""
    lines = ["typedef _Bool bool;\n"]
    for name, type_ in BASIC_TYPES.items():
        c_word = " " in name or name in ("char", "short", "int", "long", "unsigned", "bool")
        if isinstance(type_, Integer) and not c_word:
            lines.append(f"typedef {_c_integer(type_)} {name};\n")
    return "".join(lines)


def _c_integer(type_: Integer) -> str:
    sign = "signed" if type_.signed else "unsigned"
    return f"{sign} {({1: 'char', 2: 'short', 4: 'int', 8: 'long'})[type_.bytes]}"


def _missing(unit: Any, types: KernelTypes) -> set[str]:
    """Types that the definitions miss and the kernel has."""
    found = set()
    for diagnostic in unit.diagnostics:
        for pattern in _UNKNOWN:
            match = pattern.search(diagnostic.spelling)
            if match is not None and _kernel_type(match[1], types) is not None:
                found.add(match[1])
    return found


def _redefines(unit: Any, types: KernelTypes) -> bool:
    """Whether a definition takes the place of one of the kernel's structs or unions."""
    look_up = {"STRUCT_DECL": types.struct, "UNION_DECL": types.union}
    return any(
        cursor.kind.name in look_up
        and cursor.is_definition()
        and cursor.location.file is not None
        and cursor.location.file.name == SCRIPT
        and look_up[cursor.kind.name](cursor.spelling) is not None
        for cursor in unit.cursor.get_children()
    )


def _kernel_type(name: str, types: KernelTypes) -> Type | None:
    keyword, _, tag = name.partition(" ")
    if not tag:
        return types.named(name)
    look_up = {"struct": types.struct, "union": types.union, "enum": types.enum}
    return look_up[keyword](tag)


def _stand_in(name: str, types: KernelTypes) -> str:
    """C for something of the size and alignment of a kernel type."""
    type_ = _kernel_type(name, types)
    assert type_ is not None
    if name.startswith("enum "):
        return f"{name} {{ kcap_{name[5:]} }};\n"
    opaque = f"{{ unsigned char kcap[{type_.size}]; }} __attribute__((aligned({type_.align})))"
    if " " in name:
        return f"{name} {opaque};\n"
    if isinstance(type_, Integer):
        return f"typedef {_c_integer(type_)} {name};\n"
    if isinstance(type_, Pointer):
        return f"typedef void *{name};\n"
    if isinstance(type_, Boolean | Enum):
        return f"typedef {'_Bool' if isinstance(type_, Boolean) else 'int'} {name};\n"
    return f"typedef struct {opaque} {name};\n"


def _report(
    unit: Any, cindex: Any, composed: Composed, shift: int, diagnostics: Diagnostics
) -> None:
    data = composed.text.encode("utf-8", "surrogateescape")
    for found in unit.diagnostics:
        if found.severity < cindex.Diagnostic.Error:
            continue
        file = found.location.file
        span = None
        notes = []
        if file is not None and file.name == SCRIPT:
            offset = max(0, found.location.offset - shift)
            span = composed.span(len(data[:offset].decode("utf-8", "surrogateescape")))
        elif file is not None:
            notes = [f"in {file.name}:{found.location.line}"]
        diagnostics.error("c-definition", f"C error: {found.spelling}", span, notes=notes)
