# SPDX-License-Identifier: Apache-2.0
"""Symbols: ``ksym()``, ``usym()``, ``kaddr()``; addresses that user space prints as names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcap.codegen.function import Function
from kcap.functions.base import made
from kcap.kernel.helpers import Helper
from kcap.sema import tree
from kcap.sema.types import UINT64, Boolean, Buffer_, Enum, Integer, Opaque, OpaqueWord, Pointer

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.environment import Environment
    from kcap.lang import ast
    from kcap.sema.function import CallSite, Sema


class KernelSymbol(OpaqueWord):
    """A kernel address that is printed as the name of the function that holds it."""

    __slots__ = ()

    def resolve(self, value: Any, environment: Environment) -> str:
        return environment.kernel_symbol(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KernelSymbol)

    def __hash__(self) -> int:
        return hash(KernelSymbol)

    def __str__(self) -> str:
        return "ksym_t"


class UserSymbol(Opaque):
    """A user address and the process it is of: u64 address, u32 pid, u32 zero."""

    __slots__ = ()

    @property
    def names_processes(self) -> bool:
        return True

    @property
    def size(self) -> int:
        return 16

    @property
    def align(self) -> int:
        return 8

    def decode(self, data: Buffer_, offset: int = 0) -> tuple[int, int]:
        address = int.from_bytes(data[offset : offset + 8], "little")
        return address, int.from_bytes(data[offset + 8 : offset + 12], "little")

    def resolve(self, value: Any, environment: Environment) -> str:
        address, pid = value
        return environment.user_symbol(pid, address)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UserSymbol)

    def __hash__(self) -> int:
        return hash(UserSymbol)

    def __str__(self) -> str:
        return "usym_t"


def emit_user_symbol(gen: Emitter, address: str, dest: str) -> None:
    """Write a UserSymbol: the address (an i64) and the current process."""
    pid = gen.ir.op(f"lshr i64 {gen.process_ids()}, 32")
    gen.ir.store("i64", address, dest)
    gen.ir.store("i64", pid, gen.ir.offset(dest, 8))


def address_argument(function: Function, sema: Sema, node: ast.Expr) -> tree.Expr:
    """An argument that is an address: an integer or a pointer."""
    expr = sema.rvalue(node)
    if isinstance(expr.type, Boolean | Enum):
        return sema.convert(expr, UINT64, f"the address of {function.name}()")
    if not isinstance(expr.type, Pointer | Integer):
        raise sema.fail(
            "argument-type",
            node.span,
            f"{function.name}() expects an integer or pointer argument",
            label=f"this has type {expr.type}",
        )
    return expr


class Ksym(Function):
    name = "ksym"
    signatures = ("ksym_t ksym(uint64 addr)",)
    named_type = ("ksym_t", KernelSymbol())
    summary = "The kernel function that contains an address, looked up when it is printed."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        return made(self, call, KernelSymbol(), address_argument(self, sema, call.args[0]))

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        return gen.value64(call.args[0])


class Usym(Function):
    name = "usym"
    signatures = ("usym_t usym(uint64 addr)",)
    named_type = ("usym_t", UserSymbol())
    summary = "The user function that contains an address of the current process."
    arity = (1, 1)
    helpers = frozenset({Helper.get_current_pid_tgid})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        return made(self, call, UserSymbol(), address_argument(self, sema, call.args[0]))

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        emit_user_symbol(gen, gen.value64(call.args[0]), dest)


class Kaddr(Function):
    name = "kaddr"
    signatures = ("uint64 kaddr(const string name)",)
    summary = "Address of a kernel symbol, looked up when the script is compiled."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        name = sema.string_literal(call.args[0], "the symbol of kaddr()")
        address = kernel_address(name)
        if not address:
            raise sema.fail(
                "unknown-symbol",
                call.span,
                f"Failed to resolve kernel symbol: {name}",
                help=("/proc/kallsyms lists them; reading their addresses needs root",),
            )
        return tree.IntegerLiteral(call.span, UINT64, address)


def kernel_address(name: str, path: str = "/proc/kallsyms") -> int:
    """The address of a kernel symbol, 0 if there is none or addresses are hidden."""
    wanted = name.encode()
    with open(path, "rb") as file:
        for line in file:
            fields = line.split()
            if len(fields) >= 3 and fields[2] == wanted:
                return int(fields[0], 16)
    return 0


class PercpuKaddr(Function):
    name = "percpu_kaddr"
    signatures = (
        "uint64 *percpu_kaddr(const string name)",
        "uint64 *percpu_kaddr(const string name, int cpu)",
    )
    summary = "Address of a per-CPU kernel symbol on a CPU; NULL if there is no such CPU."
    arity = (1, 2)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        from kcap.kernel import cpus

        name = sema.string_literal(call.args[0], "the symbol of percpu_kaddr()")
        base, offsets = kernel_address(name), kernel_address("__per_cpu_offset")
        if not offsets:
            raise sema.fail(
                "unknown-symbol", call.span, "percpu_kaddr() needs the addresses of /proc/kallsyms"
            )
        if not base:
            raise sema.fail(
                "unknown-symbol",
                call.args[0].span,
                f"Could not resolve variable {name}",
                help=("/proc/kallsyms lists the kernel's symbols",),
            )
        data = (base, offsets, max(cpus.possible()) + 1)
        cpu = [address_argument(self, sema, call.args[1])] if len(call.args) > 1 else []
        return made(self, call, Pointer(UINT64, "kernel"), *cpu, data=data)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        """The symbol's offset in the per-CPU area plus where the CPU's area starts
        (include/asm-generic/percpu.h); per_cpu_ptr's helper would need the symbol in BTF."""
        ir = gen.ir
        base, offsets, count = call.data
        cpu = gen.value64(call.args[0]) if call.args else gen.helper(Helper.get_smp_processor_id)
        slot = gen.alloc(8)
        at = ir.op(f"add i64 {ir.op(f'shl i64 {cpu}, 3')}, {signed(offsets)}")
        gen.read(slot, 8, at, "kernel")
        address = ir.op(f"add i64 {ir.load('i64', slot)}, {signed(base)}")
        there = ir.compare("ult", "i64", cpu, str(count))
        return ir.select(there, "i64", address, "0")


def signed(address: int) -> int:
    """An address as LLVM writes a constant i64."""
    return address - (1 << 64) if address >> 63 else address


FUNCTIONS: tuple[type[Function], ...] = (Ksym, Usym, Kaddr, PercpuKaddr)
