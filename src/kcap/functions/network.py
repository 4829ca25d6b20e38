# SPDX-License-Identifier: Apache-2.0
"""Network addresses and byte order: ``ntop()``, ``pton()``, ``macaddr()``, ``bswap()``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kcap.codegen.function import Function
from kcap.functions.base import made, type_name
from kcap.functions.strings import constant_integer
from kcap.kernel.helpers import Helper
from kcap.sema import tree
from kcap.sema.types import UINT8, UINT64, Array, Buffer_, Integer, Opaque, Pointer, String

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.environment import Environment
    from kcap.lang import ast
    from kcap.sema.function import CallSite, Sema

AF_INET = 2
AF_INET6 = 10
MAC_LENGTH = 6


class Inet(Opaque):
    """An IP address: u32 address family, then 16 bytes (IPv4: the first 4)."""

    __slots__ = ()

    @property
    def size(self) -> int:
        return 20

    @property
    def align(self) -> int:
        return 4

    def decode(self, data: Buffer_, offset: int = 0) -> tuple[int, bytes]:
        family = int.from_bytes(data[offset : offset + 4], "little")
        return family, bytes(data[offset + 4 : offset + 20])

    def resolve(self, value: Any, environment: Environment) -> str:
        import socket

        family, raw = value
        if family == AF_INET6:
            return socket.inet_ntop(socket.AF_INET6, raw)
        return socket.inet_ntop(socket.AF_INET, raw[:4]) if family == AF_INET else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Inet)

    def __hash__(self) -> int:
        return hash(Inet)

    def __str__(self) -> str:
        return "inet"


class MacAddress(Opaque):
    """A MAC address, 6 bytes."""

    __slots__ = ()

    @property
    def size(self) -> int:
        return MAC_LENGTH

    @property
    def align(self) -> int:
        return 1

    def decode(self, data: Buffer_, offset: int = 0) -> bytes:
        return bytes(data[offset : offset + MAC_LENGTH])

    def resolve(self, value: Any, environment: Environment) -> str:
        text: str = value.hex(":").upper()
        return text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MacAddress)

    def __hash__(self) -> int:
        return hash(MacAddress)

    def __str__(self) -> str:
        return "mac_address"


def emit_bytes(gen: Emitter, source: tree.Expr, dest: str, size: int) -> None:
    """Copy ``size`` bytes to ``dest``: of an array or string, or of what a pointer or an address
    in an integer points to."""
    from kcap.functions.strings import space_of

    if source.type.is_scalar:
        gen.read(dest, size, gen.value64(source), space_of(source, gen))
        return
    from kcap.codegen.memory import address_of

    where = gen.place(source)
    space = where.space if where.space == "user" else "kernel"
    gen.read(dest, size, address_of(gen, where), space)


class Ntop(Function):
    name = "ntop"
    signatures = (
        "inet ntop([int64 af, ] int addr)",
        "inet ntop([int64 af, ] char addr[4])",
        "inet ntop([int64 af, ] char addr[16])",
    )
    named_type = ("inet", Inet())
    summary = "An IP address that prints as text."
    arity = (1, 2)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        address = sema.expr(call.args[-1])
        family = self._inferred(address, call.args[-1], sema)
        if len(call.args) == 1:
            known = tree.IntegerLiteral(call.span, UINT64, family)
            return made(self, call, Inet(), known, address)
        given = sema.rvalue(call.args[0])
        if not isinstance(given.type, Integer):
            raise sema.fail(
                "argument-type",
                call.args[0].span,
                "ntop() expects an integer or array argument, got "
                f"{type_name(given.type)} for the address family",
            )
        return made(self, call, Inet(), given, address)

    def _inferred(self, address: tree.Expr, node: ast.Expr, sema: Sema) -> int:
        type_ = address.type
        if isinstance(type_, Integer):
            return AF_INET
        if isinstance(type_, Array) and type_.element.size == 1 and type_.length in (4, 16):
            return AF_INET if type_.length == 4 else AF_INET6
        raise sema.fail(
            "argument-type",
            node.span,
            f"ntop() argument must be an integer or an array of 4 or 16 bytes "
            f"({type_name(type_)} provided)",
            label=f"this has type {type_}",
        )

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        family, address = call.args
        gen.zero(dest, 20)
        value = gen.ir.resize(gen.value64(family), 64, 32, False)
        gen.ir.store("i32", value, dest)
        at = gen.ir.offset(dest, 4)
        if address.type.is_scalar:
            gen.ir.store("i32", gen.ir.resize(gen.value64(address), 64, 32, False), at)
        else:
            emit_bytes(gen, address, at, address.type.size)


class Macaddr(Function):
    name = "macaddr"
    signatures = ("macaddr_t macaddr(char [6] mac)",)
    named_type = ("macaddr_t", MacAddress())
    summary = "A MAC address that prints as text."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        address = sema.expr(call.args[0])
        type_ = address.type
        array = isinstance(type_, Array) and type_.size == MAC_LENGTH
        text = isinstance(type_, String) and type_.length >= MAC_LENGTH
        if not (array or text or isinstance(type_, Pointer | Integer)):
            raise sema.fail(
                "argument-type",
                call.args[0].span,
                f"macaddr() argument must be 6 bytes in size ({type_name(type_)} provided)",
                label=f"this has type {type_}",
            )
        return made(self, call, MacAddress(), address)

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        emit_bytes(gen, call.args[0], dest, MAC_LENGTH)


class Pton(Function):
    name = "pton"
    signatures = ("char addr[4] pton(const string addr_v4)", "char addr[16] pton(...)")
    summary = "The bytes of an IP address, network order; computed when the script is compiled."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        import socket

        text = sema.string_literal(call.args[0], "the address of pton()")
        family = socket.AF_INET6 if ":" in text else socket.AF_INET
        try:
            raw = socket.inet_pton(family, text)
        except OSError as error:
            raise sema.fail(
                "argument-value",
                call.args[0].span,
                f"pton() expects a string argument of an IPv4/IPv6 address, got {text}",
            ) from error
        return made(self, call, Array(UINT8, len(raw)), data=raw)

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        raw = call.data
        for at in range(0, len(raw), 4):
            word = int.from_bytes(raw[at : at + 4], "little", signed=True)
            gen.ir.store("i32", str(word), gen.ir.offset(dest, at), align=1)


class Bswap(Function):
    name = "bswap"
    signatures = tuple(f"uint{n} bswap(uint{n} n)" for n in (8, 16, 32, 64))
    summary = "The integer with the order of its bytes reversed."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        value = sema.rvalue(call.args[0])
        if not isinstance(value.type, Integer):
            raise sema.fail(
                "argument-type",
                call.args[0].span,
                f"bswap() only supports integer arguments ({type_name(value.type)} provided)",
            )
        type_ = Integer(value.type.bytes, False)
        known = constant_integer(value)
        if known is not None:
            raw = (known & type_.maximum).to_bytes(type_.bytes, "big")
            return tree.IntegerLiteral(call.span, type_, int.from_bytes(raw, "little"))
        return made(self, call, type_, value)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        value, bits = gen.value(call.args[0]), 8 * call.type.size
        if bits == 8:
            return value
        return gen.ir.op(f"call i{bits} @llvm.bswap.i{bits}(i{bits} {value})")


class SocketCookie(Function):
    name = "socket_cookie"
    signatures = ("uint64 socket_cookie(struct sock *sk)",)
    summary = "The number that the kernel gave to a socket."
    arity = (1, 1)
    helpers = frozenset({Helper.get_socket_cookie})
    providers: ClassVar[tuple[str, ...]] = ("fentry", "fexit", "rawtracepoint")

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        socket = sema.expr(call.args[0])
        target = socket.type.target if isinstance(socket.type, Pointer) else None
        if getattr(target, "name", "") != "sock":
            raise sema.fail(
                "argument-type",
                call.args[0].span,
                "socket_cookie() only supports 'struct sock *' as the argument "
                f"({socket.type} provided)",
            )
        return made(self, call, UINT64, socket)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        pointer = gen.ir.pointer(gen.value(call.args[0]))
        return gen.helper(Helper.get_socket_cookie, f"ptr {pointer}")


FUNCTIONS: tuple[type[Function], ...] = (Ntop, Macaddr, Pton, Bswap, SocketCookie)
