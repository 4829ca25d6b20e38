# SPDX-License-Identifier: Apache-2.0
"""``args`` of functions of programs: their parameters from DWARF, their values from registers and
the stack.

The calling convention is the System V ABI's for AMD64 (section 3.2.3), of which the one of arm64
(AAPCS64) is near enough for integers and pointers. The first integers and pointers are in
registers (:mod:`kcap.functions.registers`), which the context of a uprobe has saved. A struct by
value of up to 16 bytes takes one or two of them, all or none; a larger one, and what finds no
register free, is on the stack. Floating-point numbers have registers of their own, which are not
saved: they, and structs with such a number where a register's worth of them has nothing else, are
left out of ``args``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from kcap import btf as b
from kcap.btf import render
from kcap.errors import FileError
from kcap.functions import registers
from kcap.probes.args import SLOT, args_struct
from kcap.sema.kerneltypes import KernelTypes
from kcap.sema.types import Field, Pointer
from kcap.symbols.perfile import kept_per_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kcap.sema.types import Struct

_Kind = Literal["integer", "vector", "memory"]
_VECTORS = 8
"""Registers for floating-point arguments."""
_LARGEST = 16
"""Bytes of a struct that is still passed in registers."""


def arguments(
    path: str, symbol: str, address: int, types: KernelTypes, directories: tuple[str, ...] = ()
) -> UserArguments | None:
    """The arguments of a function, or None where its file has no DWARF for it.

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
    values = _Values()
    fields = []
    for param in proto.params:
        place = values.take(btf, param)
        if place is None or isinstance(b.resolve(btf, param.type_id), b.Float):
            continue
        offset, size = place
        type_ = types.from_btf(btf, param.type_id)
        if isinstance(type_, Pointer):
            type_ = Pointer(type_.target, "user")
        fields.append(Field(param.name, offset, type_, slot=size))
    return UserArguments(args_struct(symbol, fields, SLOT * len(values.places)), values.places)


class UserArguments(NamedTuple):
    """The arguments of a function of a program.

    :ivar struct: the type of ``args``; its fields count from the first slot.
    :ivar places: where each slot is: bytes from the start of the context, or, of what is on the
        stack, (where the context has the stack pointer, bytes behind that).
    """

    struct: Struct
    places: tuple[int | tuple[int, int], ...]


class _Values:
    """Deals out registers and the stack to arguments, in their order."""

    def __init__(self) -> None:
        known = registers.current()
        self._free = [known.offsets[name] for name in known.arguments]
        self._vectors = _VECTORS
        self._first = self._stack = known.stack_arguments
        self._sp = known.offsets[known.sp]
        self.places: tuple[int | tuple[int, int], ...] = ()

    def take(self, btf: b.Btf, param: b.Param) -> tuple[int, int] | None:
        """(offset in the slots, bytes of them) of the next argument; None if it is in no slot."""
        kinds = _kinds(btf, param.type_id)
        wanted, vectors = kinds.count("integer"), kinds.count("vector")
        if "memory" not in kinds and wanted <= len(self._free) and vectors <= self._vectors:
            taken, self._free = self._free[:wanted], self._free[wanted:]
            self._vectors -= vectors
            return self._slots(taken) if taken and not vectors else None
        if not isinstance(b.resolve(btf, param.type_id), b.Composite):
            self._stack += (self._stack - self._first) % (SLOT * max(1, len(kinds)))
        at, self._stack = self._stack, self._stack + SLOT * len(kinds)
        return self._slots([(self._sp, at + SLOT * n) for n in range(len(kinds))])

    def _slots(self, places: Sequence[int | tuple[int, int]]) -> tuple[int, int]:
        first, self.places = len(self.places), (*self.places, *places)
        return SLOT * first, SLOT * len(places)


def _kinds(btf: b.Btf, type_id: int) -> list[_Kind]:
    """What each eight bytes of an argument are passed in."""
    resolved = b.resolve(btf, type_id)
    if isinstance(resolved, b.Void | b.Fwd):  # further arguments (...), or a type of no size
        return []
    count = (b.size_of(btf, type_id) + SLOT - 1) // SLOT
    if isinstance(resolved, b.Float):
        return ["vector"] if count == 1 else ["memory"] * count  # long double
    if not isinstance(resolved, b.Composite):
        return ["integer"] * count
    if resolved.size > _LARGEST:
        return ["memory"] * count
    kinds: list[_Kind] = ["vector"] * count
    for offset, is_float in _scalars(btf, type_id):
        if not is_float:
            kinds[offset // SLOT] = "integer"
    return kinds


def _scalars(btf: b.Btf, type_id: int, base: int = 0) -> Iterator[tuple[int, bool]]:
    """(offset, whether it is a floating-point number) of all that a struct is made of."""
    resolved = b.resolve(btf, type_id)
    if isinstance(resolved, b.Composite):
        for member in resolved.members:
            yield from _scalars(btf, member.type_id, base + member.bit_offset // 8)
    elif isinstance(resolved, b.Array):
        size = b.size_of(btf, resolved.type_id)
        for index in range(resolved.length):
            yield from _scalars(btf, resolved.type_id, base + index * size)
    else:
        yield base, isinstance(resolved, b.Float)


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


def _function(
    path: str, symbol: str, address: int, directories: tuple[str, ...]
) -> tuple[b.Btf, b.FuncProto] | None:
    from kcap.symbols.debugfile import debug_file

    file = debug_file(path, directories)
    return _function_in(file, symbol, address) if file else None


@kept_per_file
def _function_in(file: str, symbol: str, address: int) -> tuple[b.Btf, b.FuncProto] | None:
    """A function by the DWARF that a file has."""
    from kcap.symbols.dwarf import function_btf

    btf = function_btf(file, address, symbol)
    function = btf.find(symbol, b.Func) if btf is not None else None
    return (btf, btf.prototype(function)) if btf is not None and function is not None else None


def program_types(path: str, directories: tuple[str, ...] = ()) -> b.Btf | None:
    """All named types of a program, for casts; None if it has no DWARF."""
    from kcap.symbols.debugfile import debug_file

    file = debug_file(path, directories)
    return _types_in(file) if file else None


@kept_per_file
def _types_in(file: str) -> b.Btf | None:
    """All types that the DWARF of a file names; None if it can't be read."""
    from kcap.symbols.dwarf import types_btf

    try:
        return types_btf(file)
    except FileError:
        return None
