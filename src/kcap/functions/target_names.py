# SPDX-License-Identifier: Apache-2.0
"""``probe`` where one program serves many targets: a table of their names.

The program learns which of the context's targets has fired from the attach cookie, or, where the
kernel knows none and the program is loaded for each target, from a constant that loading puts in
(``ProgramSpec.constants``). ``ProbeContext.extra`` says which: ``target_index`` is ``cookie`` or
``load``; ``target_names`` are the names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen.function import Function
from kcap.codegen.module import TARGET_INDEX
from kcap.functions.base import made
from kcap.kernel.helpers import Helper
from kcap.kernel.spec import MapSpec, MapType
from kcap.sema.types import String, round_up

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.sema import tree
    from kcap.sema.function import CallSite, Sema
    from kcap.sema.probe import ProbeContext


class TargetName(Function):
    """The name of the probe that has fired."""

    name = "probe"

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        longest = max(len(name) for name in _names(sema.context))
        index = sema.context.extra["target_index"]
        return made(self, call, String(round_up(longest + 1, 8)), data=index)

    def needs(self, call: tree.Call) -> frozenset[int]:
        return frozenset({Helper.get_attach_cookie}) if call.data == "cookie" else frozenset()

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        size = call.type.size
        names = _names(gen.context)
        table = MapSpec(
            f"kcap_probes_{gen.index}",
            MapType.ARRAY,
            4,
            size,
            len(names),
            contents=b"".join(name.ljust(size, b"\0") for name in names),
        )
        key = gen.alloc(4, 4)
        gen.ir.store("i32", _index(gen), key, align=4)
        found = gen.lookup(gen.module.map(table), key)
        then, otherwise, end = (gen.ir.fresh(stem) for stem in ("named", "nameless", "name"))
        gen.ir.branch(gen.ir.compare("ne", "ptr", found, "null"), then, otherwise)
        gen.ir.label(then)
        gen.copy(dest, found, size)
        gen.ir.jump(end)
        gen.ir.label(otherwise)
        gen.zero(dest, size)
        gen.ir.label(end)


def differ(context: ProbeContext) -> bool:
    """Whether the targets of a context have names of their own."""
    return "target_names" in context.extra


def _names(context: ProbeContext) -> list[bytes]:
    names: list[str] = context.extra["target_names"]
    return [name.encode("utf-8", "surrogateescape") for name in names]


def _index(gen: Emitter) -> str:
    """The number of the target that has fired, an i32 operand."""
    if gen.context.extra["target_index"] == "cookie":
        return gen.ir.resize(gen.helper(Helper.get_attach_cookie, f"ptr {gen.ctx}"), 64, 32, False)
    return gen.ir.resize(gen.ir.address(gen.module.constant(TARGET_INDEX)), 64, 32, False)
