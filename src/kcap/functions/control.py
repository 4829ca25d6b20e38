# SPDX-License-Identifier: Apache-2.0
"""Functions that end the trace or interfere with what is traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kcap.codegen import events
from kcap.codegen.function import Function
from kcap.functions.base import integer_argument, made
from kcap.functions.sites import ExitSite, ExitStatusSite, UnwatchSite
from kcap.kernel.helpers import Helper
from kcap.lang import ast
from kcap.sema import tree
from kcap.sema.types import BOOL, INT32, UINT32, UINT64, VOID, Integer, Pointer

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.sema.function import CallSite, Sema


class Exit(Function):
    name = "exit"
    signatures = ("void exit([int code])",)
    summary = "End the trace; end probes still run and maps are printed."
    arity = (0, 1)
    helpers = frozenset({Helper.ktime_get_ns})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        code: tree.Expr = tree.IntegerLiteral(call.span, INT32, 0)
        if call.args:
            code = integer_argument(self, sema, call.args[0], INT32)
        iterator = sema.context.provider == "iter"
        return made(self, call, VOID, code, data=ExitStatusSite() if iterator else ExitSite())

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        """The trace ends with its iterators, after the last object, whatever they ask for: as in
        bpftrace, ``exit()`` only leaves the program for this object."""
        if isinstance(call.data, ExitSite):
            self._ask(gen, call.data, call.args[0])
        else:
            gen.event(call.data, [call.args[0]])
        gen.return_()
        return ""

    def _ask(self, gen: Emitter, site: ExitSite, code: tree.Expr) -> None:
        """All but timers' programs go on until user space has read this: the time tells what came
        later."""
        status, now = gen.value(code), gen.helper(Helper.ktime_get_ns)
        at_now, at_status = site.payload.offsets

        def fill(at: str) -> None:
            gen.ir.store("i64", now, gen.ir.offset(at, at_now))
            gen.ir.store("i32", status, gen.ir.offset(at, at_status))
            if events.fires_by_clock(gen):
                gen.ir.store("i64", "1", gen.module.exited())

        events.send(gen, site, fill)


class Unwatch(Function):
    name = "unwatch"
    signatures = ("void unwatch(void * addr)",)
    summary = "Remove the watchpoints at an address; asynchronous."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        from kcap.functions.symbols import address_argument

        address = address_argument(self, sema, call.args[0])
        return made(self, call, VOID, address, data=UnwatchSite())

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        address = call.args[0]
        gen.event(call.data, [tree.Cast(address.span, UINT64, address)])
        return ""


#: Names of signals as ``kill -l`` has them; the numbers are the same on all architectures that
#: kcap runs on (include/uapi/asm-generic/signal.h).
SIGNALS = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
)  # fmt: skip


def signal_number(name: str) -> int:
    """The number of a signal by its name, with or without ``SIG``; 0 if there is none."""
    short = name.upper().removeprefix("SIG")
    return SIGNALS.index(short) + 1 if short in SIGNALS else 0


class Signal(Function):
    name = "signal"
    signatures = ("void signal(const string sig)", "void signal(uint32 signum)")
    summary = "Send a signal to the process being traced."
    arity = (1, 1)
    unsafe = True
    helper: ClassVar[int] = Helper.send_signal
    helpers = frozenset({Helper.send_signal})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        node = call.args[0]
        if isinstance(node, ast.String):
            number = signal_number(node.value)
            if not number:
                raise self._invalid(call, sema, f"{node.value} is not a valid signal")
            return made(self, call, VOID, tree.IntegerLiteral(node.span, UINT32, number))
        if isinstance(node, ast.Integer) and not 1 <= node.value <= 64:
            raise self._invalid(call, sema, f"{node.value} is not a valid signal number")
        return made(self, call, VOID, integer_argument(self, sema, node, UINT32))

    def _invalid(self, call: CallSite, sema: Sema, why: str) -> Exception:
        return sema.fail(
            "argument-value",
            call.args[0].span,
            f"{self.name}() accepts a string literal or an integer between 1 and 64 (inclusive)",
            label=why,
        )

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        gen.helper(self.helper, f"i32 {gen.value(call.args[0])}")
        return ""


class SignalThread(Signal):
    name = "signal_thread"
    signatures = ("void signal_thread(const string sig)", "void signal_thread(uint32 signum)")
    summary = "Send a signal to the thread being traced."
    helper = Helper.send_signal_thread
    helpers = frozenset({Helper.send_signal_thread})


class Override(Function):
    name = "override"
    signatures = ("void override(uint64 rc)",)
    summary = "Don't run the traced function, return rc from it."
    arity = (1, 1)
    unsafe = True
    helpers = frozenset({Helper.override_return})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        if sema.context.provider != "kprobe":
            raise sema.fail(
                "not-in-this-probe", call.span, "override() can only be used inside kprobes"
            )
        return made(self, call, VOID, integer_argument(self, sema, call.args[0], UINT64))

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        gen.helper(Helper.override_return, f"ptr {gen.ctx}", f"i64 {gen.value64(call.args[0])}")
        return ""


class WriteUser(Function):
    name = "write_user"
    signatures = ("bool write_user(T * dst, T * src, uint32 len)",)
    summary = "Write bytes to the memory of the current process."
    arity = (3, 3)
    unsafe = True
    unsafe_title = "{name}() is unsafe. To use you need the --unsafe flag"
    discardable = True
    helpers = frozenset({Helper.probe_write_user})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        destination = sema.rvalue(call.args[0])
        if not isinstance(destination.type, Pointer | Integer):
            raise sema.fail(
                "argument-type", call.args[0].span, "write_user() expects a pointer to write to"
            )
        source = sema.expr(call.args[1])
        length = sema.integer_literal(call.args[2], "the length of write_user()")
        limit = source.type.target.size if isinstance(source.type, Pointer) else source.type.size
        if not 0 < length <= limit:
            raise sema.fail(
                "argument-value",
                call.args[2].span,
                f"write_user() of {length} bytes, but the source has {limit}",
            )
        return made(self, call, BOOL, destination, source, data=length)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        destination, source = call.args
        if isinstance(source.type, Pointer):
            where = gen.ir.pointer(gen.value(source))
        else:
            where = gen.address(source)
        to = gen.value64(destination)
        status = gen.helper(
            Helper.probe_write_user, f"i64 {to}", f"ptr {where}", f"i32 {call.data}"
        )
        return gen.ir.op(f"zext i1 {gen.ir.compare('eq', 'i64', status, '0')} to i8")


FUNCTIONS: tuple[type[Function], ...] = (
    Exit,
    Unwatch,
    Signal,
    SignalThread,
    Override,
    WriteUser,
)
