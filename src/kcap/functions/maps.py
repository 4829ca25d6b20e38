# SPDX-License-Identifier: Apache-2.0
"""Functions on maps: ``print()``, ``clear()``, ``zero()``, ``delete()``, ``has_key()``, ``len()``;
``print()`` of values too."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kcap.codegen.function import Function
from kcap.functions.base import made, type_name
from kcap.functions.printing import printable
from kcap.functions.sites import (
    ClearSite,
    MapSite,
    PrintEntrySite,
    PrintMapSite,
    PrintValueSite,
    ZeroSite,
)
from kcap.kernel.helpers import Helper
from kcap.lang import ast
from kcap.sema import tree
from kcap.sema.types import BOOL, INT64, VOID, Aggregate, Tuple, Void

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.sema.function import CallSite, Sema


class Print(Function):
    name = "print"
    signatures = (
        "void print(T val)",
        "void print(@map)",
        "void print(@map, uint64 top)",
        "void print(@map, uint64 top, uint64 div)",
    )
    summary = "Print a value or a map."
    arity = (1, 3)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        node = call.args[0]
        if isinstance(node, ast.Map):
            return self._whole_map(call, sema)
        if len(call.args) > 1:
            raise sema.fail(
                "argument-count",
                call.args[1].span,
                "only the print of a whole map takes a top and a divisor",
            )
        if isinstance(node, ast.MapAccess):
            map_, key = sema.map_argument(node, "the argument of print()")
            if isinstance(map_.value, Aggregate) and map_.value.castable is None and key:
                return made(self, call, VOID, key, data=PrintEntrySite(map_, key.type))
        value = printable(sema, node)
        if isinstance(value.type, Void | Aggregate):
            raise sema.fail(
                "argument-type",
                node.span,
                f"print: cannot print a value of type {type_name(value.type)}",
            )
        return made(self, call, VOID, value, data=PrintValueSite(value.type))

    def _whole_map(self, call: CallSite, sema: Sema) -> tree.Expr:
        map_, _ = sema.map_argument(call.args[0], "the argument of print()")
        numbers = [
            sema.integer_literal(node, f"the {name} of print()")
            for node, name in zip(call.args[1:], ("top", "divisor"), strict=False)
        ]
        top, div = [*numbers, 0, 0][:2]
        if map_.key is None and numbers:
            sema.warn(
                "print-scalar",
                call.args[1].span,
                f"{map_.name} has no keys, so there is no top of it to print",
            )
        return made(self, call, VOID, data=PrintMapSite(map_, top, div))

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        gen.event(call.data, call.args)
        return ""


class WholeMapFunction(Function):
    """A function that user space carries out on a whole map."""

    arity = (1, 1)
    site: ClassVar[type[MapSite]]

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        node = call.args[0]
        if not isinstance(node, ast.Map):
            raise sema.fail(
                "argument-type",
                node.span,
                f"{self.name}() expects a map to be provided",
                help=("name the map without a key",) if isinstance(node, ast.MapAccess) else (),
            )
        map_, _ = sema.map_argument(node, f"the argument of {self.name}()")
        return made(self, call, VOID, data=self.site(map_))

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        gen.event(call.data, [])
        return ""


class Clear(WholeMapFunction):
    name = "clear"
    signatures = ("void clear(map m)",)
    summary = "Delete all keys of a map."
    site = ClearSite


class Zero(WholeMapFunction):
    name = "zero"
    signatures = ("void zero(map m)",)
    summary = "Set all values of a map to zero."
    site = ZeroSite


def keyed_argument(
    function: Function, call: CallSite, sema: Sema
) -> tuple[tree.Map, tree.Expr | None]:
    """The map and key of ``f(@map, key)`` or ``f(@map[key])``; no key for a map without keys."""
    node = call.args[0]
    if not isinstance(node, ast.Map | ast.MapAccess):
        raise sema.fail(
            "argument-type", node.span, f"{function.name}() expects a map as first argument"
        )
    if isinstance(node, ast.MapAccess) or len(call.args) < 2:
        return sema.map_argument(node, f"the argument of {function.name}()")
    access = ast.MapAccess(call.span, node, call.args[1])
    return sema.map_argument(access, f"the key of {function.name}()")


class Delete(Function):
    name = "delete"
    signatures = ("bool delete(map m, mapkey k)", "bool delete(map m)")
    summary = "Delete a key from a map; false if it was not there."
    arity = (1, 2)
    discardable = True
    helpers = frozenset({Helper.map_delete_elem})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        map_, key = keyed_argument(self, call, sema)
        if key is None and map_.key is not None:
            raise sema.fail(
                "argument-count",
                call.span,
                "call to delete() with a single argument expects a map without explicit keys "
                "(scalar map)",
                help=(f"give the key: delete({map_.name}, key), or clear({map_.name}) for all",),
            )
        map_.emptied = map_.emptied or key is None
        return made(self, call, BOOL, *([key] if key is not None else []), data=map_)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        map_, key = call.data, call.args[0] if call.args else None
        if isinstance(map_.value, Aggregate):
            layout = map_.value.map_layout(map_.key)
            if getattr(map_.value, "bucket_count", 0):
                return emit_delete_buckets(gen, map_, key, layout.key_size)
        where = gen.map_key(map_, key)
        status = gen.helper(Helper.map_delete_elem, f"ptr {gen.map(map_)}", f"ptr {where}")
        return gen.ir.op(f"zext i1 {gen.ir.compare('eq', 'i64', status, '0')} to i8")


def emit_delete_buckets(gen: Emitter, map_: tree.Map, key: tree.Expr | None, size: int) -> str:
    """Delete every bucket of a histogram; whether there was one, as an i8."""
    from kcap.functions.aggregates import add_to, cleared

    deleted, index = cleared(gen), cleared(gen)
    where = gen.alloc(size)
    gen.zero(where, size)
    if key is not None:
        gen.store(key, where, canonical=True)
    loop, inside, end = (gen.ir.fresh(stem) for stem in ("buckets", "bucket", "buckets_end"))
    gen.ir.label(loop)
    number = gen.ir.load("i64", index)
    more = gen.ir.compare("ult", "i64", number, str(map_.value.bucket_count))  # type: ignore[attr-defined]
    gen.ir.branch(more, inside, end)
    gen.ir.label(inside)
    at = 0 if key is None else map_.value.map_layout(map_.key).key.offsets[1]  # type: ignore[attr-defined]
    gen.ir.store("i32", gen.ir.resize(number, 64, 32, False), gen.ir.offset(where, at))
    status = gen.helper(Helper.map_delete_elem, f"ptr {gen.map(map_)}", f"ptr {where}")
    done = gen.ir.op(f"zext i1 {gen.ir.compare('eq', 'i64', status, '0')} to i64")
    add_to(gen, deleted, done)
    add_to(gen, index, "1")
    gen.ir.jump(loop)
    gen.ir.label(end)
    some = gen.ir.compare("ne", "i64", gen.ir.load("i64", deleted), "0")
    return gen.ir.op(f"zext i1 {some} to i8")


def needs_keys(function: Function, call: CallSite, sema: Sema, map_: tree.Map) -> None:
    """Refuse a map without keys."""
    if map_.key is None:
        raise sema.fail(
            "map-without-keys",
            call.args[0].span,
            f"call to {function.name}() expects a map with explicit keys (non-scalar map)",
        )


class HasKey(Function):
    name = "has_key"
    signatures = ("bool has_key(map m, mapkey k)",)
    summary = "Whether a map has a key."
    arity = (1, 2)
    helpers = frozenset({Helper.map_lookup_elem})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        if isinstance(call.args[0], ast.Map):
            needs_keys(self, call, sema, sema.map_argument(call.args[0], "has_key()")[0])
        map_, key = keyed_argument(self, call, sema)
        if key is None:
            raise sema.fail("argument-count", call.span, "has_key() expects a map and a key")
        return made(self, call, BOOL, key, data=map_)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        map_ = call.data
        found = gen.lookup(gen.map(map_), gen.map_key(map_, call.args[0]))
        return gen.ir.op(f"zext i1 {gen.ir.compare('ne', 'ptr', found, 'null')} to i8")


class Len(Function):
    name = "len"
    signatures = ("int64 len(map m)", "int64 len(ustack stack)", "int64 len(kstack stack)")
    summary = "Number of elements of a map, or of frames of a stack."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        node = call.args[0]
        if not isinstance(node, ast.Map):
            return self._stack(call, sema)
        map_, _ = sema.map_argument(node, "the argument of len()")
        needs_keys(self, call, sema, map_)
        return count_elements(call, map_)

    def _stack(self, call: CallSite, sema: Sema) -> tree.Expr:
        from kcap.functions.dwstack import DwarfStackType
        from kcap.functions.stacks import StackLength, StackType

        value = sema.expr(call.args[0])
        if isinstance(value.type, DwarfStackType):
            title = "len() can't tell the depth of a dw_ustack"
            help_ = ("print it, or take the len() of ustack",)
            raise sema.fail("argument-type", call.args[0].span, title, help=help_)
        if isinstance(value.type, StackType):
            return made(StackLength(), call, INT64, value)
        raise sema.fail(
            "argument-type",
            call.args[0].span,
            "call to len() expects a map, ustack, or kstack",
            label=f"this has type {value.type}",
        )


def count_elements(call: CallSite, map_: tree.Map) -> tree.Expr:
    """A loop over the map that counts: there is no helper for it (bpf_map_sum_elem_count is a
    kfunc, from 6.6 on)."""
    span = call.span
    assert map_.key is not None
    number = tree.Variable("$len", INT64)
    element = tree.Variable("$element", Tuple((map_.key, map_.value)))
    count = tree.VariableRef(span, INT64, number)
    step = tree.ExprStmt(span, tree.IncDec(span, INT64, count, "++", True))
    start = tree.AssignVariable(span, number, tree.IntegerLiteral(span, INT64, 0))
    return tree.BlockExpr(span, INT64, [start, tree.ForMap(span, element, map_, [step])], count)


FUNCTIONS: tuple[type[Function], ...] = (Print, Clear, Zero, Delete, HasKey, Len)
