# SPDX-License-Identifier: Apache-2.0
"""``uaddr()``: the address of a variable of the program or library that a probe is in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen.function import Function
from kcap.functions import registers
from kcap.functions.base import made
from kcap.functions.probe_builtins import load_register
from kcap.kernel.helpers import Helper
from kcap.records import dataclass
from kcap.sema import tree
from kcap.sema.types import Integer, Pointer

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.sema.function import CallSite, Sema
    from kcap.symbols.elf import ElfSymbol


@dataclass(frozen=True, slots=True)
class _Where:
    """How the address is found.

    :param number: the address itself if the file is always mapped where it was linked for, else
        how far it is from the place where the probe was hit.
    :param fixed: which of the two.
    :param behind: the probe is hit behind the function's return, so that only the kernel knows
        where its entry is.
    """

    number: int
    fixed: bool
    behind: bool


class Uaddr(Function):
    name = "uaddr"
    lasting = False
    signatures = ("T * uaddr(const string sym)",)
    summary = "Address of a variable or function of the probed program or library."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        place = sema.context.extra.get("place")
        if place is None:
            raise sema.fail(
                "not-in-this-probe",
                call.span,
                "uaddr() can only be used with uprobe, uretprobe and usdt probes",
            )
        name = sema.string_literal(call.args[0], "the symbol of uaddr()")
        path, offset = place
        symbol = user_symbol(path, name)
        if symbol is None:
            raise sema.fail(
                "unknown-symbol",
                call.args[0].span,
                f"Could not resolve symbol: {path}:{name}",
                help=("the file has no variable or function of that name",),
            )
        where = _find(path, offset, symbol, behind=sema.context.provider == "uretprobe")
        type_ = Integer(symbol.size if symbol.size in (1, 2, 4, 8) else 8, False)
        return made(self, call, Pointer(type_, "user"), data=where)

    def needs(self, call: tree.Call) -> frozenset[int]:
        """Behind the return of a function of a file that is mapped anywhere, the helper (6.6)."""
        where: _Where = call.data
        ask = where.behind and not where.fixed
        return frozenset({Helper.get_func_ip}) if ask else frozenset()

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        """Where the file is mapped follows from where the probe was hit."""
        where: _Where = call.data
        if where.fixed:
            return str(where.number)
        if where.behind:
            hit = gen.helper(Helper.get_func_ip, f"ptr {gen.ctx}")
        else:
            hit = load_register(gen, registers.current().pc)
        return gen.ir.op(f"add i64 {hit}, {where.number}")


def user_symbol(path: str, name: str) -> ElfSymbol | None:
    """A variable or function of a file; of a stripped one, as its debugging information has it.

    :raises FileError: the file can't be read.
    """
    from kcap.symbols.debugfile import debug_file
    from kcap.symbols.elf import ElfFile

    for candidate in dict.fromkeys((path, debug_file(path) or path)):
        elf = ElfFile(candidate)
        found = elf.variable(name) or elf.function(name)
        elf.close()
        if found is not None:
            return found
    return None


def _find(path: str, offset: int, symbol: ElfSymbol, *, behind: bool) -> _Where:
    """How a symbol is reached from a probe at an offset of the file."""
    from kcap.symbols.elf import ElfFile

    elf = ElfFile(path)
    here, fixed = elf.address_of(offset), elf.fixed
    elf.close()
    assert here is not None, "a probe stands in a loaded part of the file"
    return _Where(symbol.address if fixed else symbol.address - here, fixed, behind)


FUNCTIONS: tuple[type[Function], ...] = (Uaddr,)
