# SPDX-License-Identifier: Apache-2.0
"""Map functions that keep one small value a CPU: ``count()``, ``sum()``, ``avg()``, ``min()``,
``max()``, ``stats()``.

Each CPU changes its own value, so no update needs an atomic instruction; reading puts the CPUs'
values together, in user space when a map is printed, in the kernel in an expression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kcap.codegen.function import Function, MapFunction
from kcap.functions.base import made, type_name
from kcap.kernel.helpers import Helper
from kcap.records import dataclass
from kcap.sema import tree
from kcap.sema.types import INT64, UINT64, Aggregate, Boolean, Buffer_, Enum, Integer, Type

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.lang import ast
    from kcap.sema.function import CallSite, Sema

UPDATE_HELPERS = frozenset({Helper.map_lookup_elem, Helper.map_update_elem})


@dataclass(frozen=True, slots=True)
class Stats:
    """What ``stats()`` collected."""

    count: int
    average: int
    total: int


def _word(data: Buffer_, offset: int, signed: bool) -> int:
    return int.from_bytes(data[offset : offset + 8], "little", signed=signed)


def divide(total: int, count: int) -> int:
    """``total / count`` as C divides integers: towards zero; 0 without a count."""
    if not count:
        return 0
    quotient = abs(total) // count
    return -quotient if total < 0 else quotient


class Total(Aggregate):
    """One 64-bit sum a CPU."""

    __slots__ = ()
    signed: bool

    @property
    def size(self) -> int:
        return 8

    @property
    def castable(self) -> Type | None:
        return INT64 if self.signed else UINT64

    def decode(self, data: Buffer_, offset: int = 0) -> int:
        return _word(data, offset, self.signed)

    def decode_all(self, parts: Iterable[Buffer_]) -> list[int]:
        return (INT64 if self.signed else UINT64).decode_all(parts)

    def reduce(self, parts: list[Any]) -> int:
        total: int = sum(parts) & 0xFFFF_FFFF_FFFF_FFFF
        return total - (1 << 64) if self.signed and total >> 63 else total

    def emit_read(self, map_: str, key: str, gen: Emitter) -> str:
        total = cleared(gen)
        each_cpu(gen, map_, key, lambda value: add_to(gen, total, gen.ir.load("i64", value)))
        return gen.ir.load("i64", total)


@dataclass(frozen=True, slots=True)
class CountType(Total):
    """The value of ``count()``."""

    signed: bool = True

    def __str__(self) -> str:
        return "count_t"


@dataclass(frozen=True, slots=True)
class SumType(Total):
    """The value of ``sum()``."""

    signed: bool = True

    def __str__(self) -> str:
        return "sum_t" if self.signed else "usum_t"


@dataclass(frozen=True, slots=True)
class ExtremeType(Aggregate):
    """The value of ``min()`` or ``max()``: the value, and whether there is one.

    :param largest: of ``max()``.
    :param signed: how values compare.
    """

    largest: bool
    signed: bool = True

    @property
    def size(self) -> int:
        return 16

    @property
    def castable(self) -> Type | None:
        return INT64 if self.signed else UINT64

    def decode(self, data: Buffer_, offset: int = 0) -> int | None:
        is_set = _word(data, offset + 8, False)
        return _word(data, offset, self.signed) if is_set else None

    def reduce(self, parts: list[Any]) -> int:
        known = [part for part in parts if part is not None]
        return (max if self.largest else min)(known, default=0)

    @property
    def predicate(self) -> str:
        """The comparison by which a new value replaces the old one."""
        return ("s" if self.signed else "u") + ("gt" if self.largest else "lt")

    def emit_read(self, map_: str, key: str, gen: Emitter) -> str:
        best, is_set = cleared(gen), cleared(gen)

        def merge(value: str) -> None:
            known = gen.ir.load("i64", gen.ir.offset(value, 8))
            with gen.if_(gen.ir.compare("ne", "i64", known, "0")):
                emit_extreme(gen, self, gen.ir.load("i64", value), best, is_set)

        each_cpu(gen, map_, key, merge)
        return gen.ir.load("i64", best)

    def __str__(self) -> str:
        return ("" if self.signed else "u") + ("max_t" if self.largest else "min_t")


class Average(Aggregate):
    """A sum and a count a CPU."""

    __slots__ = ()
    signed: bool

    @property
    def size(self) -> int:
        return 16

    def decode(self, data: Buffer_, offset: int = 0) -> tuple[int, int]:
        return _word(data, offset, self.signed), _word(data, offset + 8, False)

    def _totals(self, parts: list[Any]) -> tuple[int, int]:
        return sum(total for total, _ in parts), sum(count for _, count in parts)


@dataclass(frozen=True, slots=True)
class AvgType(Average):
    """The value of ``avg()``."""

    signed: bool = True

    @property
    def castable(self) -> Type | None:
        return INT64 if self.signed else UINT64

    def reduce(self, parts: list[Any]) -> int:
        return divide(*self._totals(parts))

    def emit_read(self, map_: str, key: str, gen: Emitter) -> str:
        total, count = cleared(gen), cleared(gen)

        def merge(value: str) -> None:
            add_to(gen, total, gen.ir.load("i64", value))
            add_to(gen, count, gen.ir.load("i64", gen.ir.offset(value, 8)))

        each_cpu(gen, map_, key, merge)
        return emit_divide(gen, gen.ir.load("i64", total), gen.ir.load("i64", count), self.signed)

    def __str__(self) -> str:
        return "avg_t" if self.signed else "uavg_t"


@dataclass(frozen=True, slots=True)
class StatsType(Average):
    """The value of ``stats()``."""

    signed: bool = True

    def reduce(self, parts: list[Any]) -> Stats:
        total, count = self._totals(parts)
        return Stats(count, divide(total, count), total)

    def __str__(self) -> str:
        return "stats_t" if self.signed else "ustats_t"


# --- emission -------------------------------------------------------------------------------


def cleared(gen: Emitter) -> str:
    """A 64-bit variable on the stack, 0 each time this place is reached."""
    slot = gen.ir.alloca(8)
    gen.ir.store("i64", "0", slot)
    return slot


def add_to(gen: Emitter, pointer: str, amount: str) -> None:
    """Add an i64 to the one at ``pointer``, not atomically."""
    gen.ir.store("i64", gen.ir.op(f"add i64 {gen.ir.load('i64', pointer)}, {amount}"), pointer)


def each_cpu(gen: Emitter, map_: str, key: str, body: Callable[[str], None]) -> None:
    """A loop over all CPUs' values of a key; ``body`` gets a pointer to each that there is.

    bpf_map_lookup_percpu_elem is there from 5.19.
    """
    from kcap.kernel import cpus

    count = max(cpus.possible()) + 1
    cpu = gen.ir.alloca(4, 4)
    gen.ir.store("i32", "0", cpu)
    loop, inside, end = (gen.ir.fresh(stem) for stem in ("cpus", "cpu", "cpus_end"))
    gen.ir.label(loop)
    number = gen.ir.load("i32", cpu)
    more = gen.ir.compare("ult", "i32", number, str(count))
    gen.ir.branch(more, inside, end)
    gen.ir.label(inside)
    value = gen.ir.op(
        f"call ptr inttoptr (i64 {Helper.map_lookup_percpu_elem} to ptr)"
        f"(ptr {map_}, ptr {key}, i32 {number})"
    )
    with gen.if_(gen.ir.compare("ne", "ptr", value, "null")):
        body(value)
    gen.ir.store("i32", gen.ir.op(f"add i32 {number}, 1"), cpu)
    gen.ir.jump(loop)
    gen.ir.label(end)


def emit_divide(gen: Emitter, total: str, count: str, signed: bool) -> str:
    """``total / count``; 0 without a count. The instruction set v3 has no signed division."""
    divisor = gen.ir.select(gen.ir.compare("eq", "i64", count, "0"), "i64", "1", count)
    if not signed:
        return gen.ir.op(f"udiv i64 {total}, {divisor}")
    negative = gen.ir.compare("slt", "i64", total, "0")
    positive = gen.ir.select(negative, "i64", gen.ir.op(f"sub i64 0, {total}"), total)
    quotient = gen.ir.op(f"udiv i64 {positive}, {divisor}")
    return gen.ir.select(negative, "i64", gen.ir.op(f"sub i64 0, {quotient}"), quotient)


def emit_extreme(gen: Emitter, type_: ExtremeType, new: str, best: str, is_set: str) -> None:
    """Replace the value at ``best`` by ``new`` if it is the first or wins."""
    old = gen.ir.load("i64", best)
    first = gen.ir.compare("eq", "i64", gen.ir.load("i64", is_set), "0")
    wins = gen.ir.compare(type_.predicate, "i64", new, old)
    with gen.if_(gen.ir.op(f"or i1 {first}, {wins}")):
        gen.ir.store("i64", new, best)
        gen.ir.store("i64", "1", is_set)


def update_or_insert(
    gen: Emitter,
    map_: tree.Map,
    key: str,
    size: int,
    update: Callable[[str], None],
) -> None:
    """Change this CPU's value of a key; if it has none, insert zeros changed the same way. In an
    array all values are there, and the one that is changed is marked as set.

    :param key: pointer to the BPF map's key.
    :param size: bytes of one CPU's value.
    :param update: emits the change of the value at a pointer.
    """
    from kcap.codegen import maps

    found = gen.lookup(gen.map(map_), key)
    if map_.in_array:
        assert isinstance(map_.value, Aggregate)
        with gen.if_(gen.ir.compare("ne", "ptr", found, "null")):
            update(found)
            gen.ir.store("i64", "1", gen.ir.offset(found, map_.value.map_layout(None).set_at))
        return
    then, otherwise, end = (gen.ir.fresh(stem) for stem in ("found", "missing", "updated"))
    gen.ir.branch(gen.ir.compare("ne", "ptr", found, "null"), then, otherwise)
    gen.ir.label(then)
    update(found)
    gen.ir.jump(end)
    gen.ir.label(otherwise)
    value = gen.alloc(size)
    gen.zero(value, size)
    update(value)
    maps.update(gen, map_, key, value)
    gen.ir.label(end)


# --- functions ------------------------------------------------------------------------------


def assigned(function: Function, call: CallSite, sema: Sema, type_: Aggregate) -> None:
    """Note the map's type; a map function only makes sense where it is assigned to a map."""
    if call.target is None:
        raise sema.fail(
            "map-function",
            call.span,
            f"{function.name}() must be assigned directly to a map",
            help=(f"write @name = {call.span.text}",),
        )
    sema.set_map_value(call.target, type_)


def number_argument(function: Function, sema: Sema, node: ast.Expr) -> tree.Expr:
    """An integer of any width; it is extended by its own sign."""
    expr = sema.rvalue(node)
    if not isinstance(expr.type, Integer | Boolean | Enum):
        raise sema.fail(
            "argument-type",
            node.span,
            f"{function.name}() only supports integer arguments ({type_name(expr.type)} provided)",
            label=f"this has type {expr.type}",
        )
    return expr


class NumberFunction(MapFunction):
    """A map function of one integer."""

    arity = (1, 1)
    helpers = UPDATE_HELPERS

    def result(self, signed: bool) -> Aggregate:
        """The type of the map's values, for values of a signedness."""
        raise NotImplementedError

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        value = number_argument(self, sema, call.args[0])
        type_ = self.result(bool(getattr(value.type, "signed", False)))
        assigned(self, call, sema, type_)
        return made(self, call, type_, value)

    def emit_update(self, statement: tree.UpdateAggregate, gen: Emitter) -> None:
        amount = gen.value64(statement.call.args[0])
        key = gen.map_key(statement.map, statement.key)
        update_or_insert(
            gen,
            statement.map,
            key,
            statement.call.type.size,
            lambda value: self.change(gen, statement.map.value, value, amount),
        )

    def change(self, gen: Emitter, type_: Type, value: str, amount: str) -> None:
        """Emit the change of one CPU's value by ``amount``."""
        raise NotImplementedError


class Count(MapFunction):
    name = "count"
    signatures = ("count_t count()",)
    summary = "Count how often this is called."
    helpers = UPDATE_HELPERS

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        type_ = CountType()
        assigned(self, call, sema, type_)
        return made(self, call, type_)

    def emit_update(self, statement: tree.UpdateAggregate, gen: Emitter) -> None:
        key = gen.map_key(statement.map, statement.key)
        update_or_insert(gen, statement.map, key, 8, lambda value: add_to(gen, value, "1"))


class Sum(NumberFunction):
    name = "sum"
    signatures = ("sum_t sum(int64 n)",)
    summary = "Sum of all n."

    def result(self, signed: bool) -> Aggregate:
        return SumType(signed)

    def change(self, gen: Emitter, type_: Type, value: str, amount: str) -> None:
        add_to(gen, value, amount)


class Avg(NumberFunction):
    name = "avg"
    signatures = ("avg_t avg(int64 n)",)
    summary = "Average of all n."

    def result(self, signed: bool) -> Aggregate:
        return AvgType(signed)

    def change(self, gen: Emitter, type_: Type, value: str, amount: str) -> None:
        add_to(gen, value, amount)
        add_to(gen, gen.ir.offset(value, 8), "1")


class StatsFunction(Avg):
    name = "stats"
    signatures = ("stats_t stats(int64 n)",)
    summary = "Count, average and sum of all n."

    def result(self, signed: bool) -> Aggregate:
        return StatsType(signed)


class Min(NumberFunction):
    name = "min"
    signatures = ("min_t min(int64 n)",)
    summary = "The smallest n."

    def result(self, signed: bool) -> Aggregate:
        return ExtremeType(False, signed)

    def change(self, gen: Emitter, type_: Type, value: str, amount: str) -> None:
        assert isinstance(type_, ExtremeType)
        emit_extreme(gen, type_, amount, value, gen.ir.offset(value, 8))


class Max(Min):
    name = "max"
    signatures = ("max_t max(int64 n)",)
    summary = "The largest n."

    def result(self, signed: bool) -> Aggregate:
        return ExtremeType(True, signed)


FUNCTIONS: tuple[type[Function], ...] = (Count, Sum, Avg, StatsFunction, Min, Max)
