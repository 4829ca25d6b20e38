# SPDX-License-Identifier: Apache-2.0
"""Functions that print by a format: ``printf()``, ``errorf()``, ``warnf()``, ``cat()``,
``system()``, ``debugf()``; and ``join()``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kcap.codegen.function import Function
from kcap.functions.base import made
from kcap.functions.format import Format, FormatError, accepts, parse, type_word
from kcap.functions.loops import counted
from kcap.functions.sites import (
    CatSite,
    ErrorfSite,
    FormatSite,
    JoinSite,
    PrintfSite,
    SystemSite,
    WarnfSite,
)
from kcap.functions.strings import emit_minimum, space_of
from kcap.kernel.helpers import Helper
from kcap.sema import tree
from kcap.sema.types import (
    VOID,
    Aggregate,
    Array,
    Integer,
    Pointer,
    String,
    Type,
    Unresolved,
)
from kcap.words import plural

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.lang import ast
    from kcap.sema.function import CallSite, Sema


_CONVERSIONS = (
    "integers: %d %i %u %x %X %o %c, text: %s, pointers: %p, bytes: %r %rx %rh, GFP flags: %gr; "
    "%% is a percent sign"
)


class FormatFunction(Function):
    """A function whose arguments are a constant format and what it prints."""

    arity: ClassVar[tuple[int, int | None]] = (1, None)
    site: ClassVar[type[FormatSite]]

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        text = sema.string_literal(call.args[0], f"the format of {self.name}()")
        values = [printable(sema, node) for node in call.args[1:]]
        self._match(text, call, values, sema)
        format_ = Format(text, [value.type for value in values])
        return made(self, call, VOID, *values, data=self.site(format_, call.span))

    def _match(self, text: str, call: CallSite, values: list[tree.Expr], sema: Sema) -> None:
        """Every conversion has its argument, of a type that it takes."""
        node = call.args[0]
        try:
            conversions = [part for part in parse(text) if not isinstance(part, str)]
        except FormatError as error:
            raise sema.fail(
                "format", node.span, f"{self.name}: {error}", help=[_CONVERSIONS]
            ) from error
        if len(conversions) != len(values):
            few = len(values) < len(conversions)
            raise sema.fail(
                "format-arguments",
                call.span,
                f"{self.name}: {'Not enough' if few else 'Too many'} arguments for format string "
                f"({len(values)} supplied, {len(conversions)} expected)",
                labels=[(node.span, f"{plural(len(conversions), 'conversion')} here")],
            )
        for conversion, value, written in zip(conversions, values, call.args[1:], strict=True):
            if isinstance(value.type, Unresolved) or accepts(conversion, value.type):
                continue
            raise sema.fail(
                "format-type",
                written.span,
                f"{self.name}: {conversion} specifier expects a value of type "
                f"{conversion.expects} ({type_word(value.type)} supplied)",
                label=f"this has type {value.type}",
                help=_advice(value.type),
            )

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        gen.event(call.data, call.args)
        return ""


def printable(sema: Sema, node: ast.Expr) -> tree.Expr:
    """An argument to print: what can be read as an integer is, the rest stays as it is."""
    expr = sema.rvalue(node)
    if isinstance(expr.type, Aggregate) and expr.type.castable is not None:
        return sema.convert(expr, expr.type.castable, "a printed value")
    return expr


def _advice(type_: Type) -> tuple[str, ...]:
    if isinstance(type_, Pointer):
        return ("use str() to read the string that it points to, or %p for the address",)
    if isinstance(type_, Array):
        return ("use buf() with %r for bytes, or print one element",)
    if type_word(type_) == "integer":
        return ("use %d for signed, %u for unsigned, %lld and %llu for 64-bit integers",)
    if type_word(type_) == "string":
        return ("use %s for strings",)
    return ()


class PrintfFunction(FormatFunction):
    name = "printf"
    signatures = ("void printf(const string fmt, args...)",)
    summary = "Print by a format; user space does the formatting."
    site = PrintfSite

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        if "pin" not in sema.context.extra:
            return super().check(call, sema)
        from kcap.functions.seq_printf import SeqPrintf

        return SeqPrintf().check(call, sema)


class Errorf(FormatFunction):
    name = "errorf"
    signatures = ("void errorf(const string fmt, args...)",)
    summary = "Print an error message with the place in the script."
    site = ErrorfSite


class Warnf(FormatFunction):
    name = "warnf"
    signatures = ("void warnf(const string fmt, args...)",)
    summary = "Print a warning with the place in the script."
    site = WarnfSite


class Cat(FormatFunction):
    name = "cat"
    signatures = ("void cat(string namefmt, [...args])",)
    summary = "Print the contents of a file."
    site = CatSite


class System(FormatFunction):
    name = "system"
    signatures = ("void system(string namefmt, [...args])",)
    summary = "Run a shell command and print its standard output."
    unsafe = True
    site = SystemSite


#: ``join()`` takes as many strings, each of as many bytes (with its NUL).
JOIN_STRINGS = 16
JOIN_LENGTH = 1024


class Join(Function):
    name = "join"
    signatures = ("void join(char *arr[], [char * sep = ' '])",)
    summary = "Print an array of strings that ends with NULL, joined by a separator."
    arity = (1, 2)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        array = sema.rvalue(call.args[0])
        if not isinstance(array.type, Pointer | Integer):
            raise sema.fail(
                "argument-type",
                call.args[0].span,
                f"join() only supports int or pointer arguments ({type_word(array.type)} provided)",
            )
        separator = " "
        if len(call.args) > 1:
            separator = sema.string_literal(call.args[1], "the separator of join()")
        return made(self, call, VOID, array, data=JoinSite(separator))

    def needs(self, call: tree.Call) -> frozenset[int]:
        pointer = call.args[0].type
        user = isinstance(pointer, Pointer | Integer) and pointer.space == "user"
        if user:
            return frozenset({Helper.probe_read_user, Helper.probe_read_user_str})
        return frozenset({Helper.probe_read_kernel, Helper.probe_read_kernel_str})

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        from kcap.codegen.events import ring
        from kcap.codegen.site import HEADER_SIZE

        ir, array = gen.ir, call.args[0]
        space = space_of(array, gen)
        limit = JOIN_STRINGS * JOIN_LENGTH
        record = gen.alloc(HEADER_SIZE + limit + JOIN_LENGTH)
        ir.store("i64", str(gen.module.site(call.data)), record)
        start = gen.value64(array)
        used, element = ir.alloca(8), gen.alloc(8)
        ir.store("i64", "0", used)
        with counted(gen, JOIN_STRINGS) as each:
            at = ir.op(f"add i64 {start}, {ir.op(f'shl i64 {each.index}, 3')}")
            gen.read(element, 8, at, space)
            address, more = ir.load("i64", element), ir.fresh("string")
            ir.branch(ir.compare("eq", "i64", address, "0"), each.leave, more)
            ir.label(more)
            position = ir.op(f"and i64 {ir.load('i64', used)}, {limit - 1}")
            dest = ir.offset(ir.offset(record, HEADER_SIZE), position)
            got = gen.read_string(dest, JOIN_LENGTH, address, space)
            length = ir.select(ir.compare("sgt", "i64", got, "0"), "i64", got, "0")
            ir.store("i64", ir.op(f"add i64 {position}, {length}"), used)
        size = emit_minimum(gen, ir.load("i64", used), limit)
        whole = ir.op(f"add i64 {size}, {HEADER_SIZE}")
        sent = gen.helper(
            Helper.ringbuf_output, f"ptr {ring(gen)}", f"ptr {record}", f"i64 {whole}", "i64 1"
        )
        with gen.if_(ir.compare("ne", "i64", sent, "0")):
            gen.count_lost("event", gen.context.name)
        return ""


class Debugf(FormatFunction):
    name = "debugf"
    signatures = ("void debugf(const string fmt, args...)",)
    summary = "Print to the kernel's trace pipe, for debugging scripts; slow."
    arity = (1, 4)
    helpers = frozenset({Helper.trace_printk})
    site = PrintfSite

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        """bpf_trace_printk takes a format and up to three words; strings by their address."""
        text = call.data.format.text.encode("utf-8", "surrogateescape")
        literal = tree.StringLiteral(call.span, String(len(text) + 1), text)
        words = []
        for arg in call.args:
            word = gen.value64(arg) if arg.type.is_scalar else gen.ir.address(gen.address(arg))
            words.append(f"i64 {word}")
        where = gen.address(literal)
        gen.helper(Helper.trace_printk, f"ptr {where}", f"i32 {len(text) + 1}", *words)
        return ""


FUNCTIONS: tuple[type[Function], ...] = (
    PrintfFunction,
    Errorf,
    Warnf,
    Cat,
    System,
    Join,
    Debugf,
)
