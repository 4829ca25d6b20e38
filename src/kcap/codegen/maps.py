# SPDX-License-Identifier: Apache-2.0
"""The maps of a script: reading, writing, stepping their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen import memory, problems, rewriting
from kcap.codegen.ir import Operand
from kcap.codegen.map_specs import key_size, key_type, spec
from kcap.codegen.memory import Place
from kcap.kernel.helpers import Helper
from kcap.sema import tree

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter


def operand(gen: Emitter, map_: tree.Map) -> Operand:
    """The operand of a map, which is declared with its first use."""
    return gen.module.map(spec(map_))


def key(gen: Emitter, map_: tree.Map, expr: tree.Expr | None) -> Operand:
    """A pointer to the key: every byte of it determined by its value."""
    type_ = key_type(map_)
    dest = gen.alloc(key_size(type_), 8)
    if expr is None:
        gen.ir.store("i64", "0", dest)
    elif type_.is_scalar:
        gen.ir.store("i64", gen.value64(expr), dest)
    else:
        gen.store(expr, dest, canonical=True)
    return dest


def lookup(gen: Emitter, map_: tree.Map, key_expr: tree.Expr | None) -> Operand:
    """A pointer to the value of a key, or null."""
    found = gen.lookup(operand(gen, map_), key(gen, map_, key_expr))
    problems.check_lookup(gen, found)
    return found


def read_scalar(gen: Emitter, expr: tree.MapRead) -> Operand:
    """A scalar value; zero when there is no such key."""
    if gen.known_read is not None and gen.known_read[0] is expr:
        return gen.known_read[1]
    if expr in gen.repeated:
        builder, value = gen.read_values.get(gen.repeated[expr], (None, ""))
        if builder is gen.ir:  # another one makes another function: a loop's
            return value
    value = _loaded(gen, lookup(gen, expr.map, expr.key), gen.llvm_type(expr.type))
    gen.read_values[expr] = gen.ir, value
    return value


def _loaded(gen: Emitter, found: Operand, llvm: str) -> Operand:
    """The value at a pointer; zero when it is null."""
    here, then, end = (gen.ir.fresh(stem) for stem in ("missing", "found", "read"))
    is_null = gen.ir.compare("eq", "ptr", found, "null")
    gen.ir.jump(here)
    gen.ir.label(here)
    gen.ir.branch(is_null, end, then)
    gen.ir.label(then)
    loaded = gen.ir.load(llvm, found)
    gen.ir.label(end)
    return gen.ir.op(f"phi {llvm} [ 0, %{here} ], [ {loaded}, %{then} ]")


def read_place(gen: Emitter, expr: tree.MapRead) -> Place:
    """A value in memory: a copy of it, or zeros when there is no such key."""
    dest = gen.alloc(expr.type.size, 8)
    found = lookup(gen, expr.map, expr.key)
    then, otherwise, end = (gen.ir.fresh(stem) for stem in ("found", "missing", "read"))
    gen.ir.branch(gen.ir.compare("ne", "ptr", found, "null"), then, otherwise)
    gen.ir.label(then)
    memory.copy(gen, dest, found, expr.type.size, 8)
    gen.ir.jump(end)
    gen.ir.label(otherwise)
    memory.zero(gen, dest, expr.type.size)
    gen.ir.label(end)
    return Place(dest, "bpf")


def assign(gen: Emitter, map_: tree.Map, key_expr: tree.Expr | None, value: tree.Expr) -> None:
    """``@x[key] = value``."""
    where = key(gen, map_, key_expr)
    read = rewriting.own_read(map_, key_expr, value)
    if read is not None:
        _rewrite(gen, map_, where, value, read)
        return
    dest = gen.alloc(value.type.size, 8)
    gen.store(value, dest)
    update(gen, map_, where, dest)


def _rewrite(
    gen: Emitter, map_: tree.Map, where: Operand, value: tree.Expr, read: tree.MapRead
) -> None:
    """``@x[key] = @x[key] + 1``: one look-up, and the new value is stored where the old one was
    found. Nobody can tell that from an update, which takes a lock and a second look-up."""
    llvm = gen.llvm_type(value.type)
    found = gen.lookup(operand(gen, map_), where)
    problems.check_lookup(gen, found)
    gen.known_read = read, _loaded(gen, found, gen.llvm_type(read.type))
    changed = gen.value(value)
    gen.known_read = None
    then, otherwise, end = (gen.ir.fresh(stem) for stem in ("there", "missing", "written"))
    gen.ir.branch(gen.ir.compare("ne", "ptr", found, "null"), then, otherwise)
    gen.ir.label(then)
    gen.ir.store(llvm, changed, found)
    gen.ir.jump(end)
    gen.ir.label(otherwise)
    dest = gen.alloc(value.type.size, 8)
    gen.ir.store(llvm, changed, dest)
    update(gen, map_, where, dest)
    gen.ir.label(end)


def update(gen: Emitter, map_: tree.Map, key_: Operand, value: Operand) -> None:
    """bpf_map_update_elem; what the map refuses (it is full) is counted, never lost silently."""
    status = gen.helper(
        Helper.map_update_elem,
        f"ptr {operand(gen, map_)}",
        f"ptr {key_}",
        f"ptr {value}",
        "i64 0",
    )
    with gen.if_(gen.ir.compare("slt", "i64", status, "0")):
        gen.count_lost("map", map_.name)


def step(gen: Emitter, target: tree.MapRead, by: int, *, prefix: bool) -> Operand:
    """``@x++`` and its like. An existing value is changed atomically, so that no CPU's change is
    lost; the value that the expression has is then only what it was a moment ago."""
    map_, llvm = target.map, gen.llvm_type(target.type)
    where = key(gen, map_, target.key)
    found = gen.lookup(operand(gen, map_), where)
    slot = gen.ir.alloca(8, 8)
    gen.ir.store(llvm, "0", slot)
    then, otherwise, end = (gen.ir.fresh(stem) for stem in ("found", "missing", "stepped"))
    gen.ir.branch(gen.ir.compare("ne", "ptr", found, "null"), then, otherwise)
    gen.ir.label(then)
    before = gen.ir.load(llvm, found)
    gen.ir.store(llvm, before, slot)
    _add(gen, found, before, by, llvm)
    gen.ir.jump(end)
    gen.ir.label(otherwise)
    first = gen.alloc(8, 8)
    gen.ir.store("i64", "0", first)
    gen.ir.store(llvm, str(by), first)
    update(gen, map_, where, first)
    gen.ir.label(end)
    value = gen.ir.load(llvm, slot)
    return gen.ir.op(f"add {llvm} {value}, {by}") if prefix else value


def _add(gen: Emitter, pointer: Operand, before: Operand, by: int, llvm: str) -> None:
    if llvm in ("i32", "i64"):  # BPF has atomic addition of these widths only
        gen.ir.op(f"atomicrmw add ptr {pointer}, {llvm} {by} monotonic")
    else:
        gen.ir.store(llvm, gen.ir.op(f"add {llvm} {before}, {by}"), pointer)
