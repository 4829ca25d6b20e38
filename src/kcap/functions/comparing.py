# SPDX-License-Identifier: Apache-2.0
"""Comparing and measuring strings: ``strncmp()``, ``strcontains()``, ``strstr()``, ``strlen()``,
``strcap()``, ``str_concat()``, ``memcmp()``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kcap.codegen.function import Function
from kcap.functions.base import integer_argument, made, type_name
from kcap.functions.loops import counted, load_byte
from kcap.functions.strings import constant_integer, emit_minimum, space_of
from kcap.kernel.helpers import Helper
from kcap.sema import tree
from kcap.sema.types import BOOL, INT8, INT64, UINT64, Array, Pointer, String

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.lang import ast
    from kcap.sema.function import CallSite, Sema

#: Rounds of two loops in each other that the verifier has the patience for.
MAX_ROUNDS = 1 << 16


def text_argument(function: Function, sema: Sema, node: ast.Expr) -> tree.Expr:
    """An argument that is a string (or a ``char`` array)."""
    expr = sema.rvalue(node)
    if not isinstance(expr.type, String):
        pointer = isinstance(expr.type, Pointer)
        raise sema.fail(
            "argument-type",
            node.span,
            f"{function.name}() expects a string ({type_name(expr.type)} provided)",
            label=f"this has type {expr.type}",
            help=("use str() to read the string that it points to",) if pointer else (),
        )
    return expr


def literal(expr: tree.Expr) -> bytes | None:
    """The bytes of a constant string up to its first NUL, else None."""
    return expr.value.partition(b"\0")[0] if isinstance(expr, tree.StringLiteral) else None


def compare_bytes(left: bytes, right: bytes, count: int) -> int:
    """0 if the first bytes of two strings are equal, else 1."""
    return int(left[:count] != right[:count])


class Strncmp(Function):
    name = "strncmp"
    signatures = ("int64 strncmp(char * s1, char * s2, int64 n)",)
    summary = "Compare the first n characters of two strings; 0 if they are equal."
    arity = (3, 3)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        left, right = (text_argument(self, sema, node) for node in call.args[:2])
        count = sema.integer_literal(call.args[2], "the length of strncmp()")
        if count < 0:
            raise sema.fail(
                "argument-value",
                call.args[2].span,
                f"Builtin strncmp requires a non-negative size ({count} provided)",
            )
        known = literal(left), literal(right)
        if known[0] is not None and known[1] is not None:
            return tree.IntegerLiteral(call.span, INT64, compare_bytes(*known, count))  # type: ignore[arg-type]
        return made(self, call, INT64, left, right, data=count)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        left, right = call.args
        limit = min(call.data, left.type.size, right.type.size)
        ir = gen.ir
        difference = emit_compare(gen, gen.address(left), gen.address(right), limit, text=True)
        return ir.op(f"zext i1 {ir.compare('ne', 'i64', difference, '0')} to i64")


def emit_compare(
    gen: Emitter, left: str, right: str, limit: int, *, text: bool, count: str | None = None
) -> str:
    """The difference of the first bytes that differ, 0 if there are none, as an i64.

    :param limit: how many bytes to compare at most.
    :param text: stop at a NUL.
    :param count: an i64 operand: how many bytes to compare, if fewer than ``limit``.
    """
    ir = gen.ir
    result = ir.alloca(8)
    ir.store("i64", "0", result)
    with counted(gen, limit) as each:
        if count is not None:
            within = ir.fresh("within")
            ir.branch(ir.compare("ult", "i64", each.index, count), within, each.leave)
            ir.label(within)
        one, other = load_byte(gen, left, each.index), load_byte(gen, right, each.index)
        ir.store("i64", ir.op(f"sub i64 {one}, {other}"), result)
        stop = ir.compare("ne", "i64", one, other)
        if text:
            stop = ir.op(f"or i1 {stop}, {ir.compare('eq', 'i64', one, '0')}")
        go_on = ir.fresh("equal")
        ir.branch(stop, each.leave, go_on)
        ir.label(go_on)
    return ir.load("i64", result)


class Strstr(Function):
    name = "strstr"
    signatures = ("int64 strstr(string haystack, string needle)",)
    summary = "Index of the first place of needle in haystack, -1 if it is not there."
    arity = (2, 2)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        haystack, needle = (text_argument(self, sema, node) for node in call.args)
        known = literal(haystack), literal(needle)
        if known[0] is not None and known[1] is not None:
            return tree.IntegerLiteral(call.span, INT64, known[0].find(known[1]))
        rounds = haystack.type.size * needle.type.size
        if rounds > MAX_ROUNDS:
            raise sema.fail(
                "too-long",
                call.span,
                f"{self.name}() of a string of {haystack.type.size} bytes and one of "
                f"{needle.type.size} takes too many steps for the kernel",
                help=("give str() a length: str(ptr, 64)",),
            )
        return made(self, call, INT64, haystack, needle)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        """For each start in the haystack, compare until a difference or the needle's end."""
        haystack, needle = call.args
        where, ir = gen.address(haystack), gen.ir
        known = literal(needle)
        what = gen.address(needle) if known is None else ""
        starts = haystack.type.size - (len(known) if known is not None else 0)
        result = ir.alloca(8)
        ir.store("i64", "-1", result)
        with counted(gen, max(starts, 0)) as start:
            here = ir.offset(where, start.index)
            hit, miss, next_ = (ir.fresh(stem) for stem in ("hit", "miss", "next"))
            if known is not None:
                emit_match_constant(gen, here, known, miss)
            else:
                emit_match(
                    gen, where, start.index, what, needle.type.size, haystack.type.size, miss
                )
            ir.label(hit)
            ir.store("i64", start.index, result)
            ir.jump(start.leave)
            ir.label(miss)
            ended = ir.compare("eq", "i64", load_byte(gen, here, "0"), "0")
            ir.branch(ended, start.leave, next_)
            ir.label(next_)
        return ir.load("i64", result)


def emit_match_constant(gen: Emitter, here: str, known: bytes, miss: str) -> None:
    """Jump to ``miss`` unless the bytes at ``here`` are ``known``."""
    for at, byte in enumerate(known):
        same = gen.ir.fresh("same")
        have = load_byte(gen, here, str(at))
        gen.ir.branch(gen.ir.compare("eq", "i64", have, str(byte)), same, miss)
        gen.ir.label(same)


def emit_match(
    gen: Emitter, where: str, start: str, what: str, length: int, size: int, miss: str
) -> None:
    """Jump to ``miss`` unless the string at ``what`` stands at ``where + start``.

    :param length: bytes of the string's type.
    :param size: bytes at ``where``.
    """
    ir = gen.ir
    matched = ir.alloca(8)
    ir.store("i64", "0", matched)
    with counted(gen, length) as each:
        full, more, inside, same = (ir.fresh(stem) for stem in ("full", "more", "inside", "same"))
        wanted = load_byte(gen, what, each.index)
        ir.branch(ir.compare("eq", "i64", wanted, "0"), full, more)
        ir.label(full)
        ir.store("i64", "1", matched)
        ir.jump(each.leave)
        ir.label(more)
        at = ir.op(f"add i64 {start}, {each.index}")
        ir.branch(ir.compare("ult", "i64", at, str(size)), inside, each.leave)
        ir.label(inside)
        have = load_byte(gen, where, at)
        ir.branch(ir.compare("eq", "i64", have, wanted), same, each.leave)
        ir.label(same)
    hit = ir.fresh("matched")
    ir.branch(ir.compare("ne", "i64", ir.load("i64", matched), "0"), hit, miss)
    ir.label(hit)


class Strcontains(Strstr):
    name = "strcontains"
    signatures = ("bool strcontains(string haystack, string needle)",)
    summary = "Whether a string contains another."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        position = super().check(call, sema)
        zero = tree.IntegerLiteral(call.span, INT64, 0)
        if isinstance(position, tree.IntegerLiteral):
            return tree.IntegerLiteral(call.span, BOOL, int(position.value >= 0))
        return tree.Binary(call.span, BOOL, ">=", position, zero)


class Strlen(Function):
    name = "strlen"
    signatures: ClassVar[tuple[str, ...]] = (
        "uint64 strlen(string exp)",
        "uint64 strlen(int8 exp[])",
        "uint64 strlen(int8 *exp)",
    )
    summary = "Length of a string, without its NUL."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        expr = sema.expr(call.args[0])
        if not is_text(expr):
            raise not_text(self, expr, call.args[0], sema)
        known = literal(expr)
        if known is not None:
            return tree.IntegerLiteral(call.span, UINT64, len(known))
        return made(self, call, UINT64, expr, data=sema.config.max_strlen + 1)

    def needs(self, call: tree.Call) -> frozenset[int]:
        type_ = call.args[0].type
        user = isinstance(type_, Pointer) and type_.space == "user"
        return frozenset({Helper.probe_read_user_str if user else Helper.probe_read_kernel_str})

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        """Reading a string is what tells its length; BPF memory is kernel memory to the helper."""
        expr = call.args[0]
        size = call.data if expr.type.is_scalar else expr.type.size + 1
        copy = gen.alloc(size)
        if expr.type.is_scalar:
            got = gen.read_string(copy, size, gen.value64(expr), space_of(expr, gen))
        else:
            got = gen.read_string(copy, size, gen.ir.address(gen.address(expr)), "kernel")
        some = gen.ir.compare("sgt", "i64", got, "0")
        return gen.ir.select(some, "i64", gen.ir.op(f"sub i64 {got}, 1"), "0")


def is_text(expr: tree.Expr) -> bool:
    """Whether something is like a string: a string, an array of char, a pointer to char."""
    type_ = expr.type
    if isinstance(type_, Pointer):
        return type_.target == INT8
    return isinstance(type_, String) or (isinstance(type_, Array) and type_.element == INT8)


def not_text(function: Function, expr: tree.Expr, node: ast.Expr, sema: Sema) -> Exception:
    """The error for an argument that is not like a string."""
    return sema.fail(
        "argument-type",
        node.span,
        "string-like values must be either strings, arrays or pointers of a char-like type",
        label=f"the argument of {function.name}() has type {expr.type}",
    )


class AssertStr(Strlen):
    name = "assert_str"
    signatures = ("void assert_str(exp)",)
    summary = "Refuse the script unless the value is like a string."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        expr = sema.expr(call.args[0])
        if not is_text(expr):
            raise not_text(self, expr, call.args[0], sema)
        return tree.IntegerLiteral(call.span, BOOL, 1)


class Strcap(Strlen):
    name = "strcap"
    signatures = ("int64 strcap(string exp)", "int64 strcap(int8 exp[])", "int64 strcap(int8 *exp)")
    summary = "Bytes that a string's type holds; of a pointer, the length of the string."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        expr = sema.expr(call.args[0])
        if isinstance(expr.type, String | Array) and is_text(expr):
            return tree.IntegerLiteral(call.span, INT64, expr.type.size)
        return tree.Cast(call.span, INT64, super().check(call, sema))


def with_nul(expr: tree.Expr) -> int:
    """Bytes of a string with its NUL, for which a char array has no room of its own."""
    is_array = isinstance(expr, tree.Cast) and isinstance(expr.operand.type, Array)
    return expr.type.size + is_array


class StrConcat(Function):
    name = "str_concat"
    signatures = ("string str_concat(string s1, string s2)",)
    summary = "Two strings, one behind the other."
    arity = (2, 2)
    helpers = frozenset({Helper.probe_read_kernel_str})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        first, second = (text_argument(self, sema, node) for node in call.args)
        known = literal(first), literal(second)
        if known[0] is not None and known[1] is not None:
            joined = known[0] + known[1]
            return tree.StringLiteral(call.span, String(len(joined) + 1), joined)
        size = min(with_nul(first) + with_nul(second) - 1, sema.config.max_strlen + 1)
        return made(self, call, String(size), first, second)

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        """The second string overwrites the first one's NUL."""
        first, second = (gen.ir.address(gen.address(arg)) for arg in call.args)
        size, ir = call.type.size, gen.ir
        head = min(with_nul(call.args[0]), size)
        ir.store("i8", "0", dest)
        got = gen.read_string(dest, head, first, "kernel")
        some = ir.compare("sgt", "i64", got, "0")
        length = ir.select(some, "i64", ir.op(f"sub i64 {got}, 1"), "0")
        at = emit_minimum(gen, length, head - 1)
        room = size - (head - 1)
        gen.read_string(ir.offset(dest, at), min(room, with_nul(call.args[1])), second, "kernel")


class Memcmp(Function):
    name = "memcmp"
    signatures = ("int memcmp(left, right, uint64 count)",)
    summary = "Compare the first bytes of two values; 0 if they are the same."
    arity = (3, 3)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        left, right = (sema.expr(node) for node in call.args[:2])
        length = integer_argument(self, sema, call.args[2], UINT64, "length")
        count = constant_integer(length)
        smallest = min(left.type.size, right.type.size)
        if count is not None and not 0 <= count <= smallest:
            raise sema.fail(
                "argument-value",
                call.args[2].span,
                f"memcmp() of {count} bytes, but the smaller value has {smallest}",
            )
        if count is not None:
            return made(self, call, INT64, left, right, data=count)
        return made(self, call, INT64, left, right, length, data=smallest)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        """A length that is known only at run time counts as far as both values reach."""
        left, right, *length = call.args
        count = gen.value64(length[0]) if length else None
        addresses = gen.address(left), gen.address(right)
        return emit_compare(gen, *addresses, call.data, text=False, count=count)


FUNCTIONS: tuple[type[Function], ...] = (
    Strncmp,
    Strstr,
    Strcontains,
    Strlen,
    AssertStr,
    Strcap,
    StrConcat,
    Memcmp,
)
