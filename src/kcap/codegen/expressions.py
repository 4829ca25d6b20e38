# SPDX-License-Identifier: Apache-2.0
"""Emission of expressions: scalars as operands, everything else as places."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kcap.codegen import maps, memory, operators, problems, statements
from kcap.codegen.function import implementation
from kcap.codegen.ir import Operand
from kcap.codegen.memory import Place
from kcap.sema import tree
from kcap.sema.types import Array, Pointer, String, Tuple, Void

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter


def value(gen: Emitter, expr: tree.Expr) -> Operand:
    """The operand of a scalar expression; '' for one of type Void."""
    outer, gen.span = gen.span, expr.span
    result = _VALUES[type(expr)](gen, expr)
    gen.span = outer
    return result


def place(gen: Emitter, expr: tree.Expr) -> Place:
    """Where a memory-typed expression stands; a temporary for what is computed."""
    outer, gen.span = gen.span, expr.span
    emit = _PLACES.get(type(expr))
    result = emit(gen, expr) if emit is not None else _temporary(gen, expr)
    gen.span = outer
    return result


def _temporary(gen: Emitter, expr: tree.Expr) -> Place:
    dest = gen.alloc(expr.type.size, expr.type.align)
    memory.store(gen, expr, dest)
    return Place(dest, "bpf")


# --- scalars --------------------------------------------------------------------------------


def _integer(gen: Emitter, expr: tree.IntegerLiteral) -> Operand:
    return memory.signed_constant(expr.value, expr.type.size)


def _variable(gen: Emitter, expr: tree.VariableRef) -> Operand:
    return gen.ir.load(gen.llvm_type(expr.type), statements.variable(gen, expr.variable))


def _map_read(gen: Emitter, expr: tree.MapRead) -> Operand:
    return maps.read_scalar(gen, expr)


def _ternary(gen: Emitter, expr: tree.Ternary) -> Operand:
    condition = gen.truth(expr.condition)
    then, otherwise, end = (gen.ir.fresh(s) for s in ("then", "else", "chosen"))
    then_end, otherwise_end = gen.ir.fresh("then_end"), gen.ir.fresh("else_end")
    gen.ir.branch(condition, then, otherwise)
    gen.ir.label(then)
    first = value(gen, expr.then)
    gen.ir.label(then_end)
    gen.ir.jump(end)
    gen.ir.label(otherwise)
    second = value(gen, expr.otherwise)
    gen.ir.label(otherwise_end)
    gen.ir.label(end)
    if isinstance(expr.type, Void):
        return ""
    llvm = gen.llvm_type(expr.type)
    return gen.ir.op(f"phi {llvm} [ {first}, %{then_end} ], [ {second}, %{otherwise_end} ]")


def _logical(gen: Emitter, expr: tree.Logical) -> Operand:
    return operators.boolean(gen, operators.truth(gen, expr))


def _pointer_offset(gen: Emitter, expr: tree.PointerOffset) -> Operand:
    pointer = expr.pointer.type
    assert isinstance(pointer, Pointer)
    step = max(1, pointer.target.size)
    index = gen.value64(expr.index)
    scaled = index if step == 1 else gen.ir.op(f"mul i64 {index}, {step}")
    return gen.ir.op(f"add i64 {gen.value(expr.pointer)}, {scaled}")


def _deref_value(gen: Emitter, expr: tree.Deref) -> Operand:
    return memory.load_scalar(gen, memory.deref(gen, expr.pointer), expr.type)


def _address_of(gen: Emitter, expr: tree.AddressOf) -> Operand:
    """The address of a place; of a map's element, that of a copy of it."""
    return memory.address_of(gen, place(gen, expr.place))


def _field_value(gen: Emitter, expr: tree.FieldAccess) -> Operand:
    return memory.load_field(gen, place(gen, expr.object), expr.field)


def _element_value(gen: Emitter, expr: tree.TupleElement | tree.Index) -> Operand:
    if isinstance(expr, tree.Index) and not isinstance(expr.index, tree.IntegerLiteral):
        return _dynamic_element(gen, expr)
    return memory.load_scalar(gen, place(gen, expr), expr.type)


def _dynamic_element(gen: Emitter, expr: tree.Index) -> Operand:
    """An element whose index is known only at run time: out of range reads zero."""
    array = expr.array.type
    assert isinstance(array, Array)
    where = place(gen, expr.array)
    index = gen.value64(expr.index)
    slot = gen.ir.alloca(expr.type.size, expr.type.size)
    llvm = gen.llvm_type(expr.type)
    gen.ir.store(llvm, "0", slot)
    inside = gen.ir.compare("ult", "i64", index, str(array.length))
    problems.out_of_bounds(gen, gen.ir.op(f"xor i1 {inside}, true"))
    with gen.if_(inside):
        element = _at_index(gen, where, index, array.element.size)
        gen.ir.store(llvm, memory.load_scalar(gen, element, expr.type), slot)
    return gen.ir.load(llvm, slot)


def _at_index(gen: Emitter, where: Place, index: Operand, size: int) -> Place:
    by = index if size == 1 else gen.ir.op(f"mul i64 {index}, {size}")
    if where.space in ("bpf", "ctx"):
        return Place(gen.ir.offset(memory.pointer_to(gen, where), by), where.space)
    start = memory.address_of(gen, where)
    return Place(gen.ir.op(f"add i64 {start}, {by}"), where.space)


def _call_value(gen: Emitter, expr: tree.Call) -> Operand:
    return implementation(expr).emit(expr, gen)


def _block_value(gen: Emitter, expr: tree.BlockExpr) -> Operand:
    statements.emit_block(gen, expr.body)
    return value(gen, expr.result) if expr.result is not None else ""


def _step(gen: Emitter, expr: tree.IncDec) -> Operand:
    """``++`` and ``--``: the value before (postfix) or after (prefix)."""
    if isinstance(expr.target, tree.MapRead):
        return maps.step(gen, expr.target, step_by(expr), prefix=expr.prefix)
    llvm = gen.llvm_type(expr.type)
    where = statements.variable(gen, expr.target.variable)
    before = gen.ir.load(llvm, where)
    after = gen.ir.op(f"add {llvm} {before}, {step_by(expr)}")
    gen.ir.store(llvm, after, where)
    return after if expr.prefix else before


def step_by(expr: tree.IncDec) -> int:
    """What an increment or decrement adds: 1, or the size of a pointer's target."""
    type_ = expr.target.type
    step = max(1, type_.target.size) if isinstance(type_, Pointer) else 1
    return step if expr.op == "++" else -step


def _void(gen: Emitter, expr: tree.Expr) -> Operand:
    return ""


_VALUES: dict[type[tree.Expr], Callable[[Emitter, Any], Operand]] = {
    tree.IntegerLiteral: _integer,
    tree.VariableRef: _variable,
    tree.MapRead: _map_read,
    tree.MapRef: _void,
    tree.Unary: operators.unary,
    tree.Binary: operators.binary,
    tree.Logical: _logical,
    tree.Ternary: _ternary,
    tree.Cast: operators.cast,
    tree.PointerOffset: _pointer_offset,
    tree.Deref: _deref_value,
    tree.AddressOf: _address_of,
    tree.FieldAccess: _field_value,
    tree.TupleElement: _element_value,
    tree.Index: _element_value,
    tree.IncDec: _step,
    tree.Call: _call_value,
    tree.BlockExpr: _block_value,
}


# --- places ---------------------------------------------------------------------------------


def _variable_place(gen: Emitter, expr: tree.VariableRef) -> Place:
    return Place(statements.variable(gen, expr.variable), "bpf")


def _map_place(gen: Emitter, expr: tree.MapRead) -> Place:
    return maps.read_place(gen, expr)


def _args_place(gen: Emitter, expr: tree.Args) -> Place:
    return Place(gen.ctx, "ctx")


def _deref_place(gen: Emitter, expr: tree.Deref) -> Place:
    return memory.deref(gen, expr.pointer)


def _field_place(gen: Emitter, expr: tree.FieldAccess) -> Place:
    return memory.field_place(gen, place(gen, expr.object), expr.field)


def _tuple_element_place(gen: Emitter, expr: tree.TupleElement) -> Place:
    type_ = expr.object.type
    assert isinstance(type_, Tuple)
    return place(gen, expr.object).at(type_.offsets[expr.index])


def _index_place(gen: Emitter, expr: tree.Index) -> Place:
    array = expr.array.type
    assert isinstance(array, Array)
    where = place(gen, expr.array)
    if isinstance(expr.index, tree.IntegerLiteral):
        return where.at(expr.index.value * array.element.size)
    index = gen.value64(expr.index)
    inside = gen.ir.compare("ult", "i64", index, str(array.length))
    problems.out_of_bounds(gen, gen.ir.op(f"xor i1 {inside}, true"))
    return _at_index(gen, where, gen.ir.select(inside, "i64", index, "0"), array.element.size)


def _ternary_place(gen: Emitter, expr: tree.Ternary) -> Place:
    dest = gen.alloc(expr.type.size, expr.type.align)
    condition = gen.truth(expr.condition)
    then, otherwise, end = (gen.ir.fresh(s) for s in ("then", "else", "chosen"))
    gen.ir.branch(condition, then, otherwise)
    gen.ir.label(then)
    memory.store(gen, expr.then, dest)
    gen.ir.jump(end)
    gen.ir.label(otherwise)
    memory.store(gen, expr.otherwise, dest)
    gen.ir.label(end)
    return Place(dest, "bpf")


def _cast_place(gen: Emitter, expr: tree.Cast) -> Place:
    """Conversions between types in memory: a C string from a char array, an array of the bytes of
    an integer, a string of another size."""
    from_, to = expr.operand.type, expr.type
    if from_.is_scalar or isinstance(to, String):
        dest = gen.alloc(max(to.size, from_.size) + 1, 8)
        if from_.is_scalar:
            gen.ir.store(gen.llvm_type(from_), value(gen, expr.operand), dest)
        elif isinstance(from_, String):
            memory.store(gen, expr, dest)
        else:
            where = place(gen, expr.operand)
            # one more, so that the helper's NUL goes behind a string that fills the array
            size = min(to.size, from_.size) + 1
            gen.read_string(dest, size, memory.address_of(gen, where), where.space)
        return Place(dest, "bpf")
    if isinstance(to, Tuple):
        return _temporary(gen, expr)
    return place(gen, expr.operand)


def _block_place(gen: Emitter, expr: tree.BlockExpr) -> Place:
    statements.emit_block(gen, expr.body, release=False)
    assert expr.result is not None
    return place(gen, expr.result)


_PLACES: dict[type[tree.Expr], Callable[[Emitter, Any], Place]] = {
    tree.VariableRef: _variable_place,
    tree.MapRead: _map_place,
    tree.Args: _args_place,
    tree.Deref: _deref_place,
    tree.FieldAccess: _field_place,
    tree.TupleElement: _tuple_element_place,
    tree.Index: _index_place,
    tree.Ternary: _ternary_place,
    tree.Cast: _cast_place,
    tree.BlockExpr: _block_place,
}
