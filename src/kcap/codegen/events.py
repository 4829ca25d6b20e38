# SPDX-License-Identifier: Apache-2.0
"""Sending events to user space through the ring buffer, and counting what is lost.

An event is ``u32 site, u32 0`` and the payload, a tuple of typed values. Space is reserved in the
ring and the values are written straight into it. The reader is woken by the first record after a
pause, and looks at the ring from time to time after that (``kernel.ringbuf``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kcap.codegen.function import implementation
from kcap.codegen.module import EVENTS, LostCounter
from kcap.codegen.site import HEADER_SIZE
from kcap.kernel import uapi
from kcap.kernel.helpers import Helper
from kcap.kernel.spec import MapSpec
from kcap.sema import tree
from kcap.sema.types import Tuple

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.ir import Operand
    from kcap.codegen.site import Site

#: Without it, only a record that the reader waits for wakes it.
BPF_RB_FORCE_WAKEUP = 2
#: Providers of what fires by the clock.
_BY_CLOCK = ("interval", "profile")


def ring(gen: Emitter) -> Operand:
    """The event ring; its size is the configuration's."""
    return gen.module.map(MapSpec(EVENTS, uapi.BPF_MAP_TYPE_RINGBUF, 0, 0, gen.module.ring_size))


def emit(gen: Emitter, site: Site, exprs: list[tree.Expr]) -> None:
    """Evaluate, reserve, write, submit. Everything that isn't a plain copy is evaluated before,
    since a reservation must be submitted on every path."""
    values = [_prepare(gen, expr) for expr in exprs]
    send(gen, site, lambda at: _fill(gen, at, site.payload, exprs, values))


def send(gen: Emitter, site: Site, fill: Callable[[Operand], None]) -> None:
    """Reserve room for an event, have its payload written, submit it.

    :param fill: given a pointer to where the payload goes; doesn't leave the program.
    """
    number = gen.module.site(site)
    size = HEADER_SIZE + site.payload.size
    record = gen.ir.op(
        f"call ptr inttoptr (i64 {Helper.ringbuf_reserve} to ptr)"
        f"(ptr {ring(gen)}, i64 {size}, i64 0)"
    )
    then, otherwise, end = (gen.ir.fresh(stem) for stem in ("reserved", "full", "sent"))
    gen.ir.branch(gen.ir.compare("ne", "ptr", record, "null"), then, otherwise)
    gen.ir.label(then)
    gen.ir.store("i64", str(number), record)
    fill(gen.ir.offset(record, HEADER_SIZE))
    wakeup = BPF_RB_FORCE_WAKEUP if site.urgent else 0
    gen.ir.line(
        f"call void inttoptr (i64 {Helper.ringbuf_submit} to ptr)(ptr {record}, i64 {wakeup})"
    )
    gen.ir.jump(end)
    gen.ir.label(otherwise)
    gen.count_lost("event", gen.context.name)
    gen.ir.label(end)


def fires_by_clock(gen: Emitter) -> bool:
    """Whether the program is one that time alone starts again, also after ``exit()``."""
    return gen.context.provider in _BY_CLOCK


def leave_after_exit(gen: Emitter) -> None:
    """A timer's program that calls ``exit()`` leaves where it starts once one has called it.

    bpftrace's probes go on until user space has read of it, and its maps hold what they counted.
    But who writes ``interval:ms:1 { …; exit(); }`` means one run, and gets it from a reader that
    is fast enough; this makes up for one that isn't.
    """
    over = gen.ir.load("i64", gen.module.exited(), volatile=True)
    with gen.if_(gen.ir.compare("ne", "i64", over, "0")):
        gen.return_()


def _prepare(gen: Emitter, expr: tree.Expr) -> Operand:
    """The operand of a scalar; a pointer to BPF memory for what is computed there; '' for what
    :func:`_fill` may write directly."""
    if expr.type.is_scalar:
        return gen.value(expr)
    if isinstance(expr, tree.StringLiteral):
        return ""
    if isinstance(expr, tree.Call) and implementation(expr).direct:
        return ""
    return gen.address(expr)


def _fill(
    gen: Emitter, at: Operand, payload: Tuple, exprs: list[tree.Expr], values: list[Operand]
) -> None:
    for expr, value, offset in zip(exprs, values, payload.offsets, strict=True):
        dest = gen.ir.offset(at, offset)
        if expr.type.is_scalar:
            gen.ir.store(gen.llvm_type(expr.type), value, dest)
        elif value:
            gen.copy(dest, value, expr.type.size)
        else:
            gen.store(expr, dest)


def count_lost(gen: Emitter, counter: LostCounter) -> None:
    """Add one to a counter, atomically: all CPUs share it."""
    counted = gen.module.lost_counter(counter)
    gen.ir.op(f"atomicrmw add ptr {counted}, i64 1 monotonic")
