# SPDX-License-Identifier: Apache-2.0
"""Constants of the kernel's user-space headers that BTF does not have, since they are macros.

They come with kcap as data (``constants.tsv``: name, value, header), so that scripts that include
``<linux/socket.h>`` and the like run on machines without kernel headers.
"""

from __future__ import annotations

from kcap.sema.types import INT32, INT64, UINT32, UINT64, Integer, Type

_constants: dict[str, int] | None = None


def uapi_constant(name: str) -> tuple[Type, int] | None:
    """The type, as C would have it for the literal, and value of a constant; None if unknown."""
    value = _table().get(name)
    if value is None:
        return None
    return _literal_type(value), value


def uapi_names() -> list[str]:
    """The names of all constants in the data."""
    return list(_table())


def _table() -> dict[str, int]:
    global _constants
    if _constants is None:
        from importlib.resources import files

        text = files("kcap.sema").joinpath("constants.tsv").read_text("utf-8")
        rows = (line.split("\t") for line in text.splitlines() if line and line[0] != "#")
        _constants = {row[0]: int(row[1], 0) for row in rows}
    return _constants


def _literal_type(value: int) -> Integer:
    for type_ in (INT32, UINT32, INT64, UINT64):
        if type_.minimum <= value <= type_.maximum:
            return type_
    return UINT64
