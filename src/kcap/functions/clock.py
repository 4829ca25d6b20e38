# SPDX-License-Identifier: Apache-2.0
"""Time: ``nsecs``, ``elapsed``, ``jiffies``, ``time()``, ``strftime()``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kcap.codegen.function import Function
from kcap.codegen.module import START_TIME, TAI_OFFSET
from kcap.functions.base import HelperBuiltin, integer_argument, made
from kcap.functions.sites import TimeSite, format_time
from kcap.kernel.helpers import Helper
from kcap.lang import ast
from kcap.records import dataclass
from kcap.sema import tree
from kcap.sema.types import UINT64, UNRESOLVED, VOID, OpaqueWord

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.environment import Environment
    from kcap.sema.function import CallSite, Sema

#: ``nsecs`` modes and the helper of each; sw_tai is the monotonic clock plus an offset.
MODES = {
    "boot": Helper.ktime_get_boot_ns,  # 5.8
    "monotonic": Helper.ktime_get_ns,
    "tai": Helper.ktime_get_tai_ns,  # 6.1
    "sw_tai": Helper.ktime_get_ns,
}
CLOCK_TAI = 11


class Nsecs(Function):
    name = "nsecs"
    signatures = ("uint64 nsecs", "uint64 nsecs([boot|monotonic|tai|sw_tai])")
    summary = "Nanoseconds of a kernel clock; since boot, including suspends, if not said."
    arity = (0, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        mode = "boot"
        if call.args:
            node = call.args[0]
            if not isinstance(node, ast.Identifier) or node.name not in MODES:
                raise sema.fail(
                    "argument-value",
                    node.span,
                    f"Invalid timestamp mode: {node.span.text}",
                    help=(f"the modes are {', '.join(MODES)}",),
                )
            mode = node.name
        return made(self, call, UINT64, data=mode)

    def needs(self, call: tree.Call) -> frozenset[int]:
        return frozenset({MODES[call.data]})

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        now = gen.helper(MODES[call.data])
        if call.data != "sw_tai":
            return now
        return gen.ir.op(f"add i64 {now}, {gen.ir.address(gen.module.constant(TAI_OFFSET))}")


def tai_offset() -> int:
    """CLOCK_TAI minus CLOCK_MONOTONIC, between two readings of the latter, in nanoseconds."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    tai = time.clock_gettime_ns(CLOCK_TAI)
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return tai - (before + after) // 2


def constants() -> dict[str, int]:
    """What programs want to know of the moment of loading, by the constants' names."""
    return {
        START_TIME: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        TAI_OFFSET: tai_offset() & 0xFFFF_FFFF_FFFF_FFFF,
    }


class Elapsed(Function):
    name = "elapsed"
    signatures = ("uint64 elapsed",)
    summary = "Nanoseconds since the trace was started."
    helpers = frozenset({Helper.ktime_get_boot_ns})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        return made(self, call, UINT64)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        start = gen.ir.address(gen.module.constant(START_TIME))
        return gen.ir.op(f"sub i64 {gen.helper(Helper.ktime_get_boot_ns)}, {start}")


class Jiffies(HelperBuiltin):
    name = "jiffies"
    signatures = ("uint64 jiffies",)
    summary = "The kernel's jiffies."
    helper = Helper.jiffies64
    helpers = frozenset({helper})
    result = UINT64


@dataclass(frozen=True, slots=True)
class Timestamp(OpaqueWord):
    """Nanoseconds since boot that are printed as a date.

    :param format: a strftime(3) format; ``%f`` is the microseconds.
    """

    format: str

    def resolve(self, value: Any, environment: Environment) -> str:
        return format_time(self.format, value + environment.boot_to_wall())

    def __str__(self) -> str:
        return "timestamp"


class Strftime(Function):
    name = "strftime"
    signatures = ("timestamp strftime(const string fmt, uint64 timestamp_ns)",)
    named_type = ("timestamp", UNRESOLVED)
    summary = "A time since boot as wall-clock time, formatted when it is printed."
    arity = (2, 2)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        format_ = sema.string_literal(call.args[0], "the format of strftime()")
        node = call.args[1]
        value = integer_argument(self, sema, node, UINT64, "second argument")
        if isinstance(node, ast.Unary) and node.op == "-" and isinstance(node.operand, ast.Integer):
            raise sema.fail(
                "argument-value", node.span, "strftime() can not take a negative timestamp"
            )
        return made(self, call, Timestamp(format_), value)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        return gen.value64(call.args[0])


class Time(Function):
    name = "time"
    signatures = ("void time(const string fmt)",)
    summary = "Print the wall-clock time at which user space sees the event."
    arity = (0, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        format_ = "%H:%M:%S\n"
        if call.args:
            format_ = sema.string_literal(call.args[0], "the format of time()")
        return made(self, call, VOID, data=TimeSite(format_))

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        gen.event(call.data, [])
        return ""


FUNCTIONS: tuple[type[Function], ...] = (Nsecs, Elapsed, Jiffies, Strftime, Time)
