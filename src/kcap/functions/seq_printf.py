# SPDX-License-Identifier: Apache-2.0
"""``printf()`` of a pinned iterator: the kernel formats it, for whoever reads the pin.

bpf_seq_printf takes the format and 8 bytes for each value; a string is given by its address. What
it knows of formats is in bpf_bprintf_prepare (kernel/bpf/helpers.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen import memory
from kcap.functions.base import made
from kcap.functions.format import Conversion, parse
from kcap.functions.printing import FormatFunction, printable
from kcap.kernel.helpers import Helper
from kcap.sema.types import VOID, String, round_up

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.sema import tree
    from kcap.sema.function import CallSite, Sema
    from kcap.sema.types import Type

_MOST = 12  # MAX_BPRINTF_VARARGS
_KINDS = frozenset("diuxXcp")
_CHARACTERS = frozenset("0-+ ")  # flags that the kernel skips


class SeqPrintf(FormatFunction):
    """``printf()`` where ``ProbeContext.extra`` has a ``pin``."""

    name = "printf"
    helpers = frozenset({Helper.seq_printf})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        text = sema.string_literal(call.args[0], f"the format of {self.name}()")
        values = [printable(sema, node) for node in call.args[1:]]
        self._match(text, call, values, sema)
        if len(values) > _MOST:
            raise sema.fail(
                "format-arguments",
                call.span,
                f"printf: the kernel prints at most {_MOST} values at a time",
                help=("split it into several printf()",),
            )
        written = ""
        remaining = zip(values, call.args[1:], strict=True)
        for part in parse(text):
            if isinstance(part, str):
                written += part.replace("%", "%%")
                continue
            value, node = next(remaining)
            translated = _translated(part, value.type)
            if not translated:
                raise sema.fail(
                    "format-type",
                    node.span,
                    f"printf: the kernel can't print this by %{part.kind}",
                    label=f"this has type {value.type}",
                    notes=("what a pinned iterator prints is formatted by the kernel",),
                    help=("print integers, pointers and strings, by %d, %u, %x, %c, %p and %s",),
                )
            written += translated
        return made(self, call, VOID, *values, data=written)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        data = call.data.encode("utf-8", "surrogateescape")
        size = round_up(len(data) + 1, 8)
        text = gen.alloc(size)
        memory.store_bytes(gen, text, data, size)
        values = gen.alloc(8 * max(1, len(call.args)))
        for index, value in enumerate(call.args):
            is_text = isinstance(value.type, String)
            word = gen.ir.address(gen.address(value)) if is_text else gen.value64(value)
            gen.ir.store("i64", word, gen.ir.offset(values, 8 * index))
        # struct bpf_iter_meta begins with its seq_file; the context with a pointer to it.
        meta = gen.ir.pointer(gen.ir.load("i64", gen.ctx, volatile=True))
        seq = gen.ir.pointer(gen.ir.load("i64", meta))
        length = 8 * len(call.args)
        gen.helper(
            Helper.seq_printf,
            f"ptr {seq}",
            f"ptr {text}",
            f"i32 {len(data) + 1}",
            f"ptr {values if length else 'null'}",
            f"i32 {length}",
        )
        return ""


def _translated(conversion: Conversion, type_: Type) -> str:
    """The conversion as the kernel takes it, '' if it doesn't."""
    width = "".join(c for c in conversion.flags if c in _CHARACTERS) + conversion.width
    if conversion.precision:
        return ""
    if conversion.kind == "s":
        return f"%{width}s" if isinstance(type_, String) else ""
    if conversion.kind not in _KINDS or not type_.is_scalar:
        return ""
    if conversion.kind == "p":
        return "0x%llx"
    if conversion.kind == "c":
        return "%c"
    return f"%{width}{'ll' if conversion.bits > 32 else ''}{conversion.kind}"
