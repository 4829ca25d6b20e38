# SPDX-License-Identifier: Apache-2.0
"""Strings and bytes: ``str()``, ``buf()``, ``path()``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen.function import Function
from kcap.functions.base import integer_argument, made, type_name
from kcap.functions.symbols import address_argument
from kcap.kernel.helpers import Helper
from kcap.sema import tree
from kcap.sema.types import INT8, UINT8, UINT64, Array, Buffer, Integer, Pointer, String

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.lang import ast
    from kcap.sema.function import CallSite, Sema


def constant_integer(expr: tree.Expr) -> int | None:
    """The value of an expression that is a constant integer, cast or not, else None."""
    if isinstance(expr, tree.IntegerLiteral):
        return expr.value
    if not isinstance(expr, tree.Cast) or not isinstance(expr.type, Integer):
        return None
    value = constant_integer(expr.operand)
    if value is None:
        return None
    cut = value & ((1 << 8 * expr.type.bytes) - 1)
    return cut - (1 << 8 * expr.type.bytes) if cut > expr.type.maximum else cut


def space_of(expr: tree.Expr, gen: Emitter) -> str:
    """The address space that a pointer (or an address in an integer) is read in."""
    space = expr.type.space if isinstance(expr.type, Pointer | Integer) else "unknown"
    if space != "unknown":
        return space
    return gen.context.space if gen.context.space != "unknown" else "kernel"


class Str(Function):
    name = "str"
    signatures = ("string str(char * data [, uint32 length])",)
    summary = "Read a NUL-terminated string from kernel or user memory."
    arity = (1, 2)
    direct = True

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        operand = sema.expr(call.args[0])
        if isinstance(operand, tree.StringLiteral) and len(call.args) == 1:
            return operand
        limit = sema.config.max_strlen + 1
        length = self._length(call, sema)
        known = constant_integer(length) if length is not None else None
        capacity = limit if known is None else max(1, min(known, limit))
        if isinstance(operand.type, String | Array):
            return self._copy(operand, capacity, length, call, sema)
        _warn_if_shortened(call, known, limit, sema)
        source = self._source(operand, call.args[0], sema)
        extra = [] if length is None or known is not None else [length]
        return made(self, call, String(capacity), source, *extra)

    def _length(self, call: CallSite, sema: Sema) -> tree.Expr | None:
        if len(call.args) < 2:
            return None
        return integer_argument(self, sema, call.args[1], UINT64, "length")

    def _copy(
        self,
        operand: tree.Expr,
        capacity: int,
        length: tree.Expr | None,
        call: CallSite,
        sema: Sema,
    ) -> tree.Expr:
        """str() of what is a string (or a char array) already: cut, or nothing to do."""
        if isinstance(operand.type, Array) and operand.type.element not in (INT8, UINT8):
            raise self._not_a_string(operand, call.args[0], sema)
        size = operand.type.size if isinstance(operand.type, String) else operand.type.size + 1
        if length is not None:
            size = min(size, capacity)
        if isinstance(operand, tree.StringLiteral):
            return tree.StringLiteral(call.span, String(size), operand.value[: size - 1])
        return tree.Cast(call.span, String(size), operand)

    def _source(self, operand: tree.Expr, node: ast.Expr, sema: Sema) -> tree.Expr:
        if not isinstance(operand.type, Integer | Pointer):
            raise self._not_a_string(operand, node, sema)
        return address_argument(self, sema, node)

    def _not_a_string(self, operand: tree.Expr, node: ast.Expr, sema: Sema) -> Exception:
        return sema.fail(
            "argument-type",
            node.span,
            f"str() expects an integer or a pointer type as first argument "
            f"({type_name(operand.type)} provided)",
            label=f"this has type {operand.type}",
        )

    def needs(self, call: tree.Call) -> frozenset[int]:
        pointer = call.args[0].type
        user = isinstance(pointer, Pointer | Integer) and pointer.space == "user"
        return frozenset({Helper.probe_read_user_str if user else Helper.probe_read_kernel_str})

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        """A failed read leaves the first byte as it was: write a NUL there before."""
        source, capacity = call.args[0], call.type.size
        size: int | str = capacity
        if len(call.args) > 1:
            size = emit_minimum(gen, gen.value64(call.args[1]), capacity)
        address = gen.value64(source)
        gen.ir.store("i8", "0", dest)
        gen.read_string(dest, size, address, space_of(source, gen))


def emit_minimum(gen: Emitter, value: str, limit: int) -> str:
    """min(value, limit), unsigned; the compare stands on the very register that is used."""
    small = gen.ir.compare("ult", "i64", value, str(limit))
    return gen.ir.select(small, "i64", value, str(limit))


def _warn_if_shortened(call: CallSite, length: int | None, limit: int, sema: Sema) -> None:
    """Say that a length that the script gives is more than can be read."""
    if length is not None and length > limit:
        shortened = f"is too long and will be shortened to {sema.config.max_strlen} bytes"
        sema.warn(
            "length-shortened",
            call.span,
            f"length param ({length}) {shortened} (see BPFTRACE_MAX_STRLEN)",
            help=[f"for more: config = {{ max_strlen = {length} }}"],
        )


class Buf(Function):
    name = "buf"
    signatures = ("buffer buf(void * data, [int64 length])",)
    summary = "Read bytes from kernel or user memory."
    arity = (1, 2)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        operand = sema.expr(call.args[0])
        limit = sema.config.max_strlen
        if len(call.args) == 1:
            if not isinstance(operand.type, Array | String):
                raise sema.fail(
                    "argument-value",
                    call.span,
                    f"buf() expects a length argument for non-array type {type_name(operand.type)}",
                    help=[f"say how many bytes: buf({call.args[0].span.text}, 16)"],
                )
            return made(self, call, Buffer(min(operand.type.size, limit)), operand)
        length = integer_argument(self, sema, call.args[1], UINT64, "length")
        known = constant_integer(length)
        capacity = limit if known is None else min(known, limit)
        if isinstance(operand.type, Array | String):
            capacity = min(capacity, operand.type.size)
        elif not isinstance(operand.type, Pointer | Integer):
            raise sema.fail(
                "argument-type",
                call.args[0].span,
                "buf() expects an integer, a pointer or an array as first argument "
                f"({type_name(operand.type)} provided)",
            )
        else:
            _warn_if_shortened(call, known, limit, sema)
            operand = address_argument(self, sema, call.args[0])
        return made(self, call, Buffer(capacity), operand, *([] if known is not None else [length]))

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        source = call.args[0]
        capacity = call.type.size - 4
        size: int | str = capacity
        if len(call.args) > 1:
            size = emit_minimum(gen, gen.value64(call.args[1]), capacity)
            length = gen.ir.resize(size, 64, 32, False)
        else:
            length = str(capacity)
        if source.type.is_scalar:
            address, space = gen.value64(source), space_of(source, gen)
        else:
            address, space = gen.ir.address(gen.address(source)), "kernel"
        gen.ir.store("i32", length, dest)
        gen.read(gen.ir.offset(dest, 4), size, address, space)


class Path(Function):
    name = "path"
    signatures = ("string path(struct path * path [, int32 size])",)
    summary = "Full path that a struct path names."
    arity = (1, 2)
    helpers = frozenset({Helper.d_path})
    direct = True

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        if sema.context.provider not in ("fentry", "fexit", "iter"):
            raise sema.fail(
                "not-in-this-probe",
                call.span,
                f'path can not be used with "{sema.context.provider}" probes',
                help=("use fentry or fexit",),
            )
        size = sema.config.max_strlen
        if len(call.args) > 1:
            wanted = sema.integer_literal(call.args[1], "the size of path()")
            size = max(1, min(wanted, size))
        operand = sema.expr(call.args[0])
        if not isinstance(operand.type, Pointer):
            operand = tree.Call(
                call.span, Pointer(operand.type, "kernel", True), AddressOf(), [operand]
            )
        return made(self, call, String(size), operand)

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        pointer = gen.ir.pointer(gen.value64(call.args[0]))
        gen.ir.store("i8", "0", dest)
        gen.helper(Helper.d_path, f"ptr {pointer}", f"ptr {dest}", f"i32 {call.type.size}")


class AddressOf(Function):
    """The address of a struct in kernel memory, as helpers want it; not a function of scripts."""

    name = "&"

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        raise NotImplementedError

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        from kcap.codegen.memory import address_of

        return address_of(gen, gen.place(call.args[0]))


FUNCTIONS: tuple[type[Function], ...] = (Str, Buf, Path)
