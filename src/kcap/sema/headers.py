# SPDX-License-Identifier: Apache-2.0
"""Which of the headers that a script includes are read.

Hardly any machine has kernel headers, and where the kernel has BTF they aren't needed: types come
from BTF, and the constants of user-space headers come with kcap. So a header of the kernel's or of
the C library is no error when it is missing; one of the user's own is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kcap.lang import ast

if TYPE_CHECKING:
    from kcap.lang.diagnostic import Diagnostics
    from kcap.sema.kerneltypes import KernelTypes

KERNEL_DIRECTORIES = (
    "asm", "asm-generic", "crypto", "drm", "linux", "net", "rdma", "scsi", "sound", "target",
    "trace", "uapi", "video", "xen",
)  # fmt: skip
"""First parts of the paths of kernel headers (``include/`` of the kernel's source)."""

BASIC_HEADERS = frozenset(
    {"inttypes.h", "limits.h", "stdarg.h", "stdbool.h", "stddef.h", "stdint.h", "sys/types.h"}
)
"""Headers whose types always exist."""

LIBRARY_DIRECTORIES = ("/usr/include",)


def usable_headers(
    definitions: Sequence[ast.CDefinition],
    types: KernelTypes,
    diagnostics: Diagnostics,
    include_directories: Iterable[str] = (),
) -> dict[ast.CDefinition, str]:
    """The ``#include``s that are to be read, each with the directory that it is found from.

    :param diagnostics: gets an error for a header of the user's own that is not there, and a
        warning for one of the kernel's when there is no BTF either.
    """
    found: dict[ast.CDefinition, str] = {}
    for definition in definitions:
        if definition.kind != "include" or not definition.value:
            continue
        name = definition.value[1:-1]
        if name in BASIC_HEADERS:
            continue
        directory = _directory(definition, name, list(include_directories))
        if directory is not None:
            found[definition] = directory
        elif not _is_kernel_header(name):
            _missing(definition, name, types, diagnostics)
        elif types.btf is None:
            diagnostics.warning(
                "missing-header",
                f"{name} is not read, and the kernel has no BTF: its types are not known",
                definition.span,
            )
    return found


def _is_kernel_header(name: str) -> bool:
    return name.split("/")[0] in KERNEL_DIRECTORIES


def _directory(
    definition: ast.CDefinition, name: str, include_directories: list[str]
) -> str | None:
    """The directory in which a header of the user's own is found."""
    directories = list(include_directories)
    if definition.value is not None and definition.value[0] == '"':
        directories.insert(0, os.path.dirname(definition.span.source.name) or ".")
    for directory in directories:
        if os.path.isfile(os.path.join(directory, name)):
            return directory
    return None


def _missing(
    definition: ast.CDefinition, name: str, types: KernelTypes, diagnostics: Diagnostics
) -> None:
    in_library = any(os.path.isfile(os.path.join(d, name)) for d in LIBRARY_DIRECTORIES)
    if definition.value is not None and definition.value[0] == "<":
        if types.btf is None and not in_library:
            title = f"{name} is not read, and the kernel has no BTF: its types are not known"
            diagnostics.warning("missing-header", title, definition.span)
        return
    diagnostics.error(
        "missing-header",
        f"'{name}' file not found",
        definition.value_span or definition.span,
        help=["give its directory with -I"],
    )
