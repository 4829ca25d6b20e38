# SPDX-License-Identifier: Apache-2.0
"""``args`` of functions of programs: their parameters from DWARF, their values from registers.

The calling conventions are those of :mod:`kcap.functions.registers`: the first integers and
pointers are in registers, which the context of a uprobe has saved. A struct by value of up to 16
bytes takes one or two registers, a larger one none; floating-point numbers have registers of their
own, which are not saved (System V ABI AMD64, section 3.2.3). What is in no saved register is left
out of ``args``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.btf import render
from kcap.errors import FileError
from kcap.functions import registers
from kcap.probes.args import SLOT, args_struct
from kcap.sema.kerneltypes import KernelTypes
from kcap.sema.types import Field, Pointer

if TYPE_CHECKING:
    from kcap.sema.types import Struct

_LARGEST = 16
"""Bytes of a struct that is still passed in registers."""


def arguments(
    path: str, symbol: str, address: int, types: KernelTypes, directories: tuple[str, ...] = ()
) -> Struct | None:
    """The type of ``args`` of a function, or None where its file has no DWARF for it.

    :param path: the file.
    :param symbol: the function's name.
    :param address: where it begins, as its symbol has it.
    :param types: what converts BTF to types of the language.
    :param directories: where separate debugging information is looked for first.
    :raises FileError: that is there, but can't be read.
    """
    found = _function(path, symbol, address, directories)
    if found is None:
        return None
    btf, proto = found
    known = registers.current()
    free = [known.offsets[name] for name in known.arguments]
    fields = []
    for param in proto.params:
        resolved = b.resolve(btf, param.type_id)
        if isinstance(resolved, b.Composite | b.Float | b.Void):
            if isinstance(resolved, b.Composite) and resolved.size <= _LARGEST:
                del free[: (resolved.size + SLOT - 1) // SLOT]
            continue
        if not free:
            break
        type_ = types.from_btf(btf, param.type_id)
        if isinstance(type_, Pointer):
            type_ = Pointer(type_.target, "user")
        fields.append(Field(param.name, free.pop(0), type_, slot=SLOT))
    size = max((field.offset + SLOT for field in fields), default=0)
    return args_struct(symbol, fields, size)


def listing(path: str, symbol: str, address: int, directories: tuple[str, ...] = ()) -> list[str]:
    """The parameters as ``-lv`` prints them: ``struct Foo* foo1``."""
    try:
        found = _function(path, symbol, address, directories)
    except FileError:  # the probe itself needs none
        found = None
    if found is None:
        return []
    btf, proto = found
    return [render.parameter(btf, param).replace(" *", "*") for param in proto.params]


@cache
def _function(
    path: str, symbol: str, address: int, directories: tuple[str, ...]
) -> tuple[b.Btf, b.FuncProto] | None:
    from kcap.symbols.debugfile import debug_file
    from kcap.symbols.dwarf import function_btf

    file = debug_file(path, directories)
    btf = function_btf(file, address, symbol) if file else None
    function = btf.find(symbol, b.Func) if btf is not None else None
    return (btf, btf.prototype(function)) if btf is not None and function is not None else None


@cache
def program_types(path: str, directories: tuple[str, ...] = ()) -> b.Btf | None:
    """All named types of a program, for casts; None if it has no DWARF."""
    from kcap.symbols.debugfile import debug_file
    from kcap.symbols.dwarf import types_btf

    file = debug_file(path, directories)
    try:
        return types_btf(file) if file else None
    except FileError:
        return None
