# SPDX-License-Identifier: Apache-2.0
"""Constants of the kernel's user-space headers that BTF does not have, since they are macros.

They come with kcap as data (``constants.tsv``: name, value, header), so that scripts that include
``<linux/socket.h>`` and the like run on machines without kernel headers.
"""

from __future__ import annotations

import os

from kcap.sema.types import INT32, INT64, UINT32, UINT64, Integer, Type

_SYSCALL = "__NR_"
_text: bytes | None = None


def uapi_constant(name: str) -> tuple[Type, int] | None:
    """The type, as C would have it for the literal, and value of a constant; None if unknown."""
    if name.startswith(_SYSCALL):
        return _syscall(name.removeprefix(_SYSCALL))
    table = _table()
    start = table.find(b"\n" + name.encode("utf-8", "surrogateescape") + b"\t")
    if start < 0:
        return None
    value = int(table[start + 1 : table.index(b"\n", start + 1)].split(b"\t")[1])
    return _literal_type(value), value


def _syscall(name: str) -> tuple[Type, int] | None:
    """The number of a system call of this architecture (``__NR_read`` of <asm/unistd.h>)."""
    path = os.path.join(os.path.dirname(os.path.dirname(__file__)), "functions", "syscalls.tsv")
    with open(path, encoding="ascii") as file:
        for line in file:
            machine, number, found = line.split()[:3]
            if found == name and machine == os.uname().machine:
                return INT32, int(number)
    return None


def uapi_names() -> list[str]:
    """The names of all constants in the data."""
    rows = _table().decode().splitlines()[1:]
    return [row.split("\t", 1)[0] for row in rows]


def _table() -> bytes:
    """The data, as it is: searching it for one name is quicker than reading all of it."""
    global _text
    if _text is None:
        path = os.path.join(os.path.dirname(__file__), "constants.tsv")
        with open(path, "rb") as file:
            _text = file.read()
    return _text


def _literal_type(value: int) -> Integer:
    for type_ in (INT32, UINT32, INT64):
        if type_.minimum <= value <= type_.maximum:
            return type_
    return UINT64
