# SPDX-License-Identifier: Apache-2.0
"""Builtins about the probe that fired: ``probe``, ``func``, ``arg0``…, ``retval``, ``reg()``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kcap.codegen import memory
from kcap.codegen.function import Function
from kcap.codegen.module import TARGET_ADDRESS
from kcap.functions import registers, target_names
from kcap.functions.base import HelperBuiltin, ScalarBuiltin, made
from kcap.functions.symbols import (
    KernelSymbol,
    UserSymbol,
    emit_user_symbol,
    kernel_address,
)
from kcap.functions.usdt_operands import emit_operand, operands, thread_pointer
from kcap.kernel.helpers import Helper
from kcap.sema import tree
from kcap.sema.types import UINT8, UINT32, UINT64, VOID, Pointer, String
from kcap.words import plural

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.sema.function import CallSite, Sema

USER_PROBES = frozenset({"uprobe", "uretprobe", "usdt"})
#: The most arguments that a USDT probe has (<sys/sdt.h>).
USDT_ARGUMENTS = 12
RETURN_PROBES = frozenset({"kretprobe", "uretprobe"})
#: Their context starts with the interrupted registers (struct bpf_perf_event_data).
PERF_PROBES = frozenset({"profile", "interval", "software", "hardware"})


def load_register(gen: Emitter, name: str) -> str:
    """The value of a register of the context, an i64 operand."""
    at = registers.current().offsets[name]
    return gen.ir.load("i64", gen.ir.offset(gen.ctx, at), volatile=True)


def load_slot(gen: Emitter, slot: int) -> str:
    """The 8-byte slot of the context of a tracing program, an i64 operand."""
    return memory.load_slot(gen, memory.Place(gen.ctx, "ctx", 8 * slot))


def load_stack(gen: Emitter, offset: int, space: str) -> str:
    """The 8 bytes at the stack pointer plus ``offset``; 0 if they can't be read."""
    slot = gen.alloc(8)
    stack = load_register(gen, registers.current().sp)
    gen.read(slot, 8, gen.ir.op(f"add i64 {stack}, {offset}"), space)
    return gen.ir.load("i64", slot)


def not_here(function: Function, call: CallSite, sema: Sema, why: str, *help_: str) -> Exception:
    """The error for a builtin that the probe type does not have."""
    return sema.fail(
        "not-in-this-probe",
        call.span,
        f'The {function.name} builtin can not be used with "{sema.context.provider}" probes',
        label=why,
        help=help_,
    )


class Argument(Function):
    """``arg0`` and so on: the arguments of the traced function as integers.

    :cvar index: which, from 0.
    """

    index: ClassVar[int]
    summary = "An argument of the traced function, as an integer."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        context = sema.context
        if context.provider in RETURN_PROBES:
            raise not_here(
                self, call, sema, "arguments are gone when the function returns",
                f"save {self.name} in a map in a "
                f"{context.provider.replace('ret', '')} probe, keyed by tid",
                "or use fexit, which has both args and retval",
            )  # fmt: skip
        if context.arguments == "none":
            raise not_here(
                self, call, sema, "there are no numbered arguments here",
                "use args.NAME for the fields of a tracepoint",
            )  # fmt: skip
        given = operands(context)
        if given is not None and self.index >= len(given):
            raise not_here(
                self, call, sema, f"the probe has {plural(len(given), 'argument')}",
            )  # fmt: skip
        if given is not None and given[self.index].unreadable:
            raise not_here(self, call, sema, given[self.index].unreadable)
        if given is not None and given[self.index].of_thread:
            thread = thread_pointer(sema.types)
            if thread is None:
                raise not_here(
                    self, call, sema, "the kernel does not tell where threads have their variables"
                )
            return made(self, call, UINT64, data=thread)
        return made(self, call, UINT64, data=context.space)

    def needs(self, call: tree.Call) -> frozenset[int]:
        """The task, for what counts from its thread pointer."""
        return frozenset({Helper.get_current_task} if isinstance(call.data, int) else ())

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        if gen.context.arguments == "slots":
            return load_slot(gen, self.index)
        given = operands(gen.context)
        if given is not None:
            operand = given[self.index]
            return emit_operand(operand, gen, call.data if operand.of_thread else 0)
        known = registers.current()
        if self.index < len(known.arguments):
            return load_register(gen, known.arguments[self.index])
        at = known.stack_arguments + 8 * (self.index - len(known.arguments))
        return load_stack(gen, at, call.data)


class StackArgument(Argument):
    """``sarg0`` and so on: what is passed on the stack, for other calling conventions."""

    summary = "A value on the stack of the traced function, where arguments are passed."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        if sema.context.arguments != "registers" or sema.context.provider in RETURN_PROBES:
            raise not_here(self, call, sema, "only kprobe and uprobe see the stack")
        return made(self, call, UINT64, data=sema.context.space)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        known = registers.current()
        return load_stack(gen, known.stack_arguments + 8 * self.index, call.data)


def _numbered(base: type[Argument], stem: str, count: int) -> tuple[type[Function], ...]:
    return tuple(
        type(
            f"{base.__name__}{n}",
            (base,),
            {
                "__doc__": f"``{stem}{n}``.",
                "name": f"{stem}{n}",
                "index": n,
                "signatures": (f"uint64 {stem}{n}",),
            },
        )
        for n in range(count)
    )


class Retval(Function):
    name = "retval"
    signatures = ("uint64 retval", "T retval")
    summary = "What the traced function returned; fexit knows its type."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        type_ = sema.context.retval
        if type_ is None:
            raise not_here(
                self, call, sema, "nothing has been returned yet",
                "use kretprobe, uretprobe or fexit",
            )  # fmt: skip
        return made(self, call, type_)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        slot = gen.context.extra.get("retval_slot")
        if isinstance(slot, int):
            whole = load_slot(gen, slot)
        else:
            whole = load_register(gen, registers.current().returned)
        return gen.ir.resize(whole, 64, 8 * call.type.size, False)


class Func(Function):
    name = "func"
    signatures = ("ksym_t func", "usym_t func")
    summary = "Name of the traced function."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        context = sema.context
        if context.provider in USER_PROBES:
            return made(self, call, UserSymbol(), data=context.provider == "uprobe")
        shared = context.extra.get("many_functions", False)
        if context.arguments == "none" and not context.function and not shared:
            raise not_here(self, call, sema, "no function is traced")
        known = shared and context.extra["target_index"] == "load"
        return made(self, call, KernelSymbol(), data=known or context.function)

    def needs(self, call: tree.Call) -> frozenset[int]:
        """Nothing where the traced function is known, or its registers are. Behind the return of
        a user function, only the helper tells (6.6)."""
        return frozenset() if call.data else frozenset({Helper.get_func_ip})

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        """The helper knows a kernel function's entry, unless the probe is in its middle. Before
        5.17 not all programs may call it: the address is looked up when compiling then."""
        context = gen.context
        inside = context.provider == "uprobe" or "+" in context.name
        if call.data and not inside and not gen.module.features.func_ip:
            if call.data is True:
                return gen.ir.address(gen.module.constant(TARGET_ADDRESS))
            return str(kernel_address(call.data))
        if inside:
            return load_register(gen, registers.current().pc)
        return gen.helper(Helper.get_func_ip, f"ptr {gen.ctx}")

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        emit_user_symbol(gen, self.emit(call, gen), dest)


class ProbeName(Function):
    name = "probe"
    signatures = ("string probe",)
    summary = "Full name of the probe that fired."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        if target_names.differ(sema.context):
            return target_names.TargetName().check(call, sema)
        text = sema.context.name.encode("utf-8", "surrogateescape")
        return tree.StringLiteral(call.span, String(len(text) + 1), text)


class ProbeType(Function):
    name = "probetype"
    signatures = ("string probetype",)
    summary = "Name of the probe type; begin and end probes are of type special."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        provider = sema.context.provider
        text = ("special" if provider in ("begin", "end") else provider).encode()
        return tree.StringLiteral(call.span, String(len(text) + 1), text)


class Ctx(ScalarBuiltin):
    name = "ctx"
    signatures = ("void * ctx",)
    summary = "The context that the BPF program was called with."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        type_ = sema.context.extra.get("ctx_type", VOID)
        return made(self, call, Pointer(type_, sema.context.extra.get("ctx_space", "ctx")))

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        return gen.ir.address(gen.ctx)


class Reg(Function):
    name = "reg"
    signatures = ("uint64 reg(const string name)",)
    summary = "A register of the traced function, at a kprobe or uprobe."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        if sema.context.arguments != "registers" and sema.context.provider not in PERF_PROBES:
            raise sema.fail(
                "not-in-this-probe",
                call.span,
                f'reg can not be used with "{sema.context.provider}" probes',
                help=("only kprobe, kretprobe, uprobe and uretprobe have registers",),
            )
        name = sema.string_literal(call.args[0], "the register of reg()")
        offsets = registers.current().offsets
        if name not in offsets:
            raise sema.fail(
                "unknown-register",
                call.args[0].span,
                f"'{name}' is not a valid register on this architecture",
                help=(f"the registers are {', '.join(sorted(offsets))}",),
            )
        return made(self, call, UINT64, data=name)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        return load_register(gen, call.data)


class Usermode(Function):
    name = "usermode"
    signatures = ("uint8 usermode",)
    summary = "1 if the processor was in user mode, else 0; x86-64 only."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        provider = sema.context.provider
        if registers.current() is not registers.X86_64:
            raise sema.fail(
                "architecture", call.span, "'usermode' builtin is only supported on x86_64"
            )
        if provider in USER_PROBES or provider in ("begin", "end", "self"):
            return tree.IntegerLiteral(call.span, UINT8, 1)
        if sema.context.arguments != "registers" and provider not in PERF_PROBES:
            return tree.IntegerLiteral(call.span, UINT8, 0)
        return made(self, call, UINT8)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        """The lowest two bits of CS are the privilege level: 3 is user mode."""
        ring = gen.ir.op(f"and i64 {load_register(gen, 'cs')}, 3")
        return gen.ir.op(f"zext i1 {gen.ir.compare('eq', 'i64', ring, '3')} to i8")


class Cpu(HelperBuiltin):
    name = "cpu"
    signatures = ("uint32 cpu",)
    summary = "ID of the processor that runs the probe."
    helper = Helper.get_smp_processor_id
    helpers = frozenset({helper})
    result = UINT32


class Numaid(HelperBuiltin):
    name = "numaid"
    signatures = ("uint32 numaid",)
    summary = "ID of the NUMA node that runs the probe."
    helper = Helper.get_numa_node_id
    helpers = frozenset({helper})
    result = UINT32


class Rand(HelperBuiltin):
    name = "rand"
    signatures = ("uint32 rand",)
    summary = "A pseudo-random number."
    helper = Helper.get_prandom_u32
    helpers = frozenset({helper})
    result = UINT32


class Ncpus(Function):
    name = "ncpus"
    signatures = ("uint64 ncpus",)
    summary = "Number of processors that are online."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        import os

        return tree.IntegerLiteral(call.span, UINT64, os.sysconf("SC_NPROCESSORS_ONLN"))


FUNCTIONS: tuple[type[Function], ...] = (
    *_numbered(Argument, "arg", USDT_ARGUMENTS),
    *_numbered(StackArgument, "sarg", 10),
    Retval,
    Func,
    ProbeName,
    ProbeType,
    Ctx,
    Reg,
    Usermode,
    Cpu,
    Numaid,
    Rand,
    Ncpus,
)
