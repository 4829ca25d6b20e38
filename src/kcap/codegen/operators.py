# SPDX-License-Identifier: Apache-2.0
"""Operators on scalars, comparisons of what lies in memory, and conversions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen import memory, problems
from kcap.codegen.ir import Operand
from kcap.sema import tree
from kcap.sema.types import Aggregate, Array, Boolean, Pointer, String, Type

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter

_ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "&": "and", "|": "or", "^": "xor"}
_COMPARE = {
    "==": ("eq", "eq"),
    "!=": ("ne", "ne"),
    "<": ("slt", "ult"),
    "<=": ("sle", "ule"),
    ">": ("sgt", "ugt"),
    ">=": ("sge", "uge"),
}


def is_signed(type_: Type) -> bool:
    """Whether widening extends the sign: signed integers and enums."""
    return bool(getattr(type_, "signed", False))


def bits(type_: Type) -> int:
    """The width of a scalar in bits."""
    return 8 * type_.size


def widen(gen: Emitter, value: Operand, type_: Type) -> Operand:
    """A scalar of ``type_`` as an i64."""
    return gen.ir.resize(value, bits(type_), 64, is_signed(type_))


def truth(gen: Emitter, expr: tree.Expr) -> Operand:
    """Whether a scalar is not zero (a string: not empty), as an i1."""
    if isinstance(expr, tree.Unary) and expr.op == "!":
        return gen.ir.op(f"xor i1 {truth(gen, expr.operand)}, true")
    if isinstance(expr, tree.Binary) and expr.op in _COMPARE:
        return _compare(gen, expr)
    if isinstance(expr, tree.Logical):
        return _logical(gen, expr)
    if isinstance(expr.type, String):
        first = gen.ir.load("i8", gen.address(expr))
        return gen.ir.compare("ne", "i8", first, "0")
    return gen.ir.compare("ne", gen.llvm_type(expr.type), gen.value(expr), "0")


def boolean(gen: Emitter, condition: Operand) -> Operand:
    """An i1 as the i8 that booleans are."""
    return gen.ir.op(f"zext i1 {condition} to i8")


def unary(gen: Emitter, expr: tree.Unary) -> Operand:
    """``-x``, ``~x``, ``!x``."""
    if expr.op == "!":
        return boolean(gen, truth(gen, expr))
    type_, value = gen.llvm_type(expr.type), gen.value(expr.operand)
    return gen.ir.op(f"sub {type_} 0, {value}" if expr.op == "-" else f"xor {type_} {value}, -1")


def binary(gen: Emitter, expr: tree.Binary) -> Operand:
    """An arithmetic operator or a comparison."""
    if expr.op in _COMPARE:
        return boolean(gen, _compare(gen, expr))
    left, right = gen.value(expr.left), gen.value(expr.right)
    if expr.op in ("<<", ">>"):
        right = gen.ir.resize(right, bits(expr.right.type), bits(expr.type), False)
    return arithmetic(gen, expr.op, expr.type, left, right)


def arithmetic(gen: Emitter, op: str, type_: Type, left: Operand, right: Operand) -> Operand:
    """An operator on two scalars of one type."""
    llvm = gen.llvm_type(type_)
    if op in _ARITHMETIC:
        return gen.ir.op(f"{_ARITHMETIC[op]} {llvm} {left}, {right}")
    if op in ("<<", ">>"):  # more than the width is undefined in LLVM; BPF masks the count
        count = gen.ir.op(f"and {llvm} {right}, {bits(type_) - 1}")
        kind = "shl" if op == "<<" else "ashr" if is_signed(type_) else "lshr"
        return gen.ir.op(f"{kind} {llvm} {left}, {count}")
    return _divide(gen, op, type_, left, right)


def _divide(gen: Emitter, op: str, type_: Type, left: Operand, right: Operand) -> Operand:
    """Division and remainder; by zero they give 1, and say so.

    BPF has signed division only from ISA v4 (6.6): magnitudes are divided instead.
    """
    llvm = gen.llvm_type(type_)
    is_zero = gen.ir.compare("eq", llvm, right, "0")
    if not right.lstrip("-").isdigit() or int(right) == 0:
        problems.division_by_zero(gen, is_zero)
    divisor = gen.ir.select(is_zero, llvm, "1", right)
    kind = "udiv" if op == "/" else "urem"
    if not is_signed(type_):
        result = gen.ir.op(f"{kind} {llvm} {left}, {divisor}")
    else:
        magnitude = gen.ir.op(f"{kind} {llvm} {_abs(gen, llvm, left)}, {_abs(gen, llvm, divisor)}")
        sign = gen.ir.op(f"xor {llvm} {left}, {divisor}") if op == "/" else left
        negative = gen.ir.compare("slt", llvm, sign, "0")
        negated = gen.ir.op(f"sub {llvm} 0, {magnitude}")
        result = gen.ir.select(negative, llvm, negated, magnitude)
    return gen.ir.select(is_zero, llvm, "1", result)


def _abs(gen: Emitter, llvm: str, value: Operand) -> Operand:
    negative = gen.ir.compare("slt", llvm, value, "0")
    return gen.ir.select(negative, llvm, gen.ir.op(f"sub {llvm} 0, {value}"), value)


def _logical(gen: Emitter, expr: tree.Logical) -> Operand:
    """Short-circuit ``&&`` and ``||``."""
    decided = "false" if expr.op == "&&" else "true"
    first, more, end = (gen.ir.fresh(stem) for stem in ("left", "right", "logical"))
    left = truth(gen, expr.left)
    gen.ir.jump(first)
    gen.ir.label(first)
    gen.ir.branch(left, *((more, end) if expr.op == "&&" else (end, more)))
    gen.ir.label(more)
    right = truth(gen, expr.right)
    last = gen.ir.fresh("last")
    gen.ir.jump(last)
    gen.ir.label(last)
    gen.ir.label(end)
    return gen.ir.op(f"phi i1 [ {decided}, %{first} ], [ {right}, %{last} ]")


def _compare(gen: Emitter, expr: tree.Binary) -> Operand:
    """A comparison, as an i1."""
    type_ = expr.left.type
    if isinstance(type_, String):
        return _compare_strings(gen, expr)
    if not type_.is_scalar:
        return _compare_memory(gen, expr)
    signed, unsigned = _COMPARE[expr.op]
    predicate = signed if is_signed(type_) else unsigned
    return gen.ir.compare(
        predicate, gen.llvm_type(type_), gen.value(expr.left), gen.value(expr.right)
    )


def _compare_strings(gen: Emitter, expr: tree.Binary) -> Operand:
    left, right = expr.left, expr.right
    if isinstance(_origin(left), tree.StringLiteral):
        left, right = right, left
    literal = _origin(right)
    if isinstance(literal, tree.StringLiteral):
        equal = equals_bytes(
            gen, gen.address(_origin(left)), _origin(left).type.size, literal.value
        )
    else:
        size = min(_origin(left).type.size, literal.type.size)
        equal = equal_strings(gen, gen.address(_origin(left)), gen.address(literal), size)
    return equal if expr.op == "==" else gen.ir.op(f"xor i1 {equal}, true")


def _origin(expr: tree.Expr) -> tree.Expr:
    """A string behind conversions to other sizes, which don't change what it says."""
    while isinstance(expr, tree.Cast) and isinstance(expr.operand.type, String):
        expr = expr.operand
    return expr


def equals_bytes(gen: Emitter, pointer: Operand, size: int, text: bytes) -> Operand:
    """Whether the string of ``size`` bytes at ``pointer`` is ``text``, as an i1."""
    wanted = text if len(text) >= size else text + b"\0"
    if len(wanted) > size:
        return "false"
    equal = "true"
    at = 0
    while at < len(wanted):
        width = next(w for w in (8, 4, 2, 1) if at + w <= len(wanted))
        loaded = gen.ir.load(f"i{8 * width}", gen.ir.offset(pointer, at), align=1)
        constant = memory.signed_constant(int.from_bytes(wanted[at : at + width], "little"), width)
        same = gen.ir.compare("eq", f"i{8 * width}", loaded, constant)
        equal = same if equal == "true" else gen.ir.op(f"and i1 {equal}, {same}")
        at += width
    return equal


def equal_strings(gen: Emitter, left: Operand, right: Operand, size: int) -> Operand:
    """Whether two strings are equal up to their NUL or ``size`` bytes, as an i1."""
    ir = gen.ir
    start, loop, more, end = (ir.fresh(s) for s in ("start", "compare", "more", "compared"))
    ir.jump(start)
    ir.label(start)
    ir.label(loop)
    index = f"%{ir.fresh('i')}"
    following = f"%{ir.fresh('i')}"
    ir.line(f"{index} = phi i64 [ 0, %{start} ], [ {following}, %{more} ]")
    a = ir.load("i8", ir.offset(left, index))
    b = ir.load("i8", ir.offset(right, index))
    same = ir.compare("eq", "i8", a, b)
    ended = ir.compare("eq", "i8", a, "0")
    stop = ir.op(f"or i1 {ended}, {ir.op(f'xor i1 {same}, true')}")
    ir.branch(stop, end, more)
    ir.label(more)
    ir.line(f"{following} = add i64 {index}, 1")
    in_range = ir.compare("ult", "i64", following, str(size))
    ir.branch(in_range, loop, end)
    ir.label(end)
    return ir.op(f"phi i1 [ {same}, %{loop} ], [ true, %{more} ]")


def _compare_memory(gen: Emitter, expr: tree.Binary) -> Operand:
    """Arrays, tuples and buffers, all bytes (values are stored in canonical form)."""
    size = expr.left.type.size
    left = gen.alloc(size)
    right = gen.alloc(size)
    gen.store(expr.left, left, canonical=True)
    gen.store(expr.right, right, canonical=True)
    differs = "false"
    at = 0
    while at < size:
        width = next(w for w in (8, 4, 2, 1) if at + w <= size)
        a, b = (gen.ir.load(f"i{8 * width}", gen.ir.offset(p, at), align=1) for p in (left, right))
        other = gen.ir.compare("ne", f"i{8 * width}", a, b)
        differs = other if differs == "false" else gen.ir.op(f"or i1 {differs}, {other}")
        at += width
    return differs if expr.op == "!=" else gen.ir.op(f"xor i1 {differs}, true")


def cast(gen: Emitter, expr: tree.Cast) -> Operand:
    """A conversion whose result is a scalar."""
    from_, to = expr.operand.type, expr.type
    if isinstance(from_, Aggregate):
        total = _read_aggregate(gen, expr.operand, from_)
        return gen.ir.resize(total, 64, bits(to), False)
    if isinstance(to, Boolean):
        return boolean(gen, truth(gen, expr.operand))
    if isinstance(from_, Array):
        return gen.ir.load(gen.llvm_type(to), gen.address(expr.operand), align=1)
    return convert(gen, gen.value(expr.operand), from_, to)


def convert(gen: Emitter, value: Operand, from_: Type, to: Type) -> Operand:
    """A scalar of one type as one of another; a pointer is made of an integer's bits alone."""
    signed = is_signed(from_) and not isinstance(from_, Pointer) and not isinstance(to, Pointer)
    return gen.ir.resize(value, bits(from_), bits(to), signed)


def _read_aggregate(gen: Emitter, operand: tree.Expr, type_: Aggregate) -> Operand:
    """The value of a per-CPU aggregate, all CPUs together: the aggregate's own business."""
    assert isinstance(operand, tree.MapRead)
    return type_.emit_read(gen.map(operand.map), gen.map_key(operand.map, operand.key), gen)
