# SPDX-License-Identifier: Apache-2.0
"""``tseries()``: an integer over time, one value for each of the last intervals.

The BPF map's key is the script's key with a slot behind it (interval number modulo how many are
kept). Each CPU's value is ``u64 interval, s64 value, u64 extra``, where extra is how many values
an average has, or when the last value came.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kcap.codegen.function import Function, MapFunction
from kcap.functions.aggregates import (
    UPDATE_HELPERS,
    assigned,
    divide,
    number_argument,
    update_or_insert,
)
from kcap.functions.base import made
from kcap.functions.histogram import emit_extended_key, hashable
from kcap.kernel.helpers import Helper
from kcap.lang import ast
from kcap.records import dataclass
from kcap.sema import tree
from kcap.sema.function import unstable_feature
from kcap.sema.types import UINT32, Aggregate, Buffer_, MapLayout, Tuple, Type

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.sema.function import CallSite, Sema

AGGREGATIONS = ("avg", "max", "min", "sum")
MAX_INTERVALS = 1_000_000


@dataclass(frozen=True, slots=True)
class Point:
    """One interval.

    :param start: nanoseconds since boot at which it starts.
    :param value: its value, None if nothing was recorded.
    """

    start: int
    value: int | None


@dataclass(frozen=True, slots=True)
class Series:
    """A time series: every interval from the key's first to the map's last.

    :param absolute: times count from the epoch, not from boot.
    """

    points: tuple[Point, ...]
    interval: int
    absolute: bool = False


Part = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class TseriesType(Aggregate):
    """The value of ``tseries()``.

    :param interval: nanoseconds.
    :param count: how many intervals are kept.
    :param aggregation: ``avg``, ``max``, ``min``, ``sum``, or '' for the last value.
    :param absolute: its times come from the script, not from the clock (see :meth:`Tseries.check`).
    """

    interval: int
    count: int
    aggregation: str = ""
    signed: bool = True
    absolute: bool = False

    @property
    def size(self) -> int:
        return 24

    @property
    def bucket_count(self) -> int:
        """How many slots a key has."""
        return self.count

    def decode(self, data: Buffer_, offset: int = 0) -> Part:
        word = int.from_bytes
        return (
            word(data[offset : offset + 8], "little"),
            word(data[offset + 8 : offset + 16], "little", signed=self.signed),
            word(data[offset + 16 : offset + 24], "little"),
        )

    def map_layout(self, key: Type | None) -> MapLayout:
        if key is None:
            return MapLayout(UINT32, self, self.count)
        return MapLayout(Tuple((key, UINT32)), self)

    def reduce(self, parts: list[Any]) -> tuple[int, int] | None:
        """The latest interval among the parts of all CPUs and its value."""
        known = [part for part in parts if part[2]]
        if not known:
            # What comes at time 0 is not newer than nothing, so that the value stays 0.
            return (0, 0) if any(value for _, value, _ in parts) else None
        latest = max(part[0] for part in known)
        return latest, self._merge([part for part in known if part[0] == latest])

    def _merge(self, parts: list[Part]) -> int:
        values = [value for _, value, _ in parts]
        if self.aggregation == "sum":
            return sum(values)
        if self.aggregation == "avg":
            return divide(sum(values), sum(extra for _, _, extra in parts))
        if self.aggregation:
            return max(values) if self.aggregation == "max" else min(values)
        return max(parts, key=lambda part: part[2])[1]

    def collect(
        self, entries: Iterable[tuple[Any, list[Any]]], keyed: bool
    ) -> list[tuple[Any, Any]]:
        keys: dict[Any, Any] = {}
        found: dict[Any, dict[int, int]] = {}
        for whole, parts in entries:
            key = whole[0] if keyed else None
            identity = hashable(key)
            keys.setdefault(identity, key)
            points = found.setdefault(identity, {})
            reduced = self.reduce(parts)
            if reduced is not None:
                points[reduced[0]] = reduced[1]
        last = max((n for points in found.values() for n in points), default=0)
        return [(key, self._series(found[identity], last)) for identity, key in keys.items()]

    def _series(self, points: dict[int, int], last: int) -> Series:
        """The series of one key, from its first interval to the map's last."""
        if not points:
            return Series((), self.interval, self.absolute)
        numbers = range(max(min(points), last - self.count + 1), last + 1)
        return Series(
            tuple(Point(number * self.interval, points.get(number)) for number in numbers),
            self.interval,
            self.absolute,
        )

    def histogram(self, counts: dict[int, int]) -> Series:
        """What an empty map shows."""
        return Series((), self.interval, self.absolute)

    def __str__(self) -> str:
        return "tseries_t"


class Tseries(MapFunction):
    name = "tseries"
    signatures = (
        "tseries_t tseries(int64 n, int64 interval_ns, int64 num_intervals)",
        "tseries_t tseries(int64 n, int64 interval_ns, int64 num_intervals, const string agg)",
    )
    summary = "A value over time, one for each of the last intervals."
    arity = (3, 4)
    helpers = UPDATE_HELPERS | {Helper.ktime_get_boot_ns}

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        unstable_feature(sema, call.span, "tseries", "unstable_tseries")
        interval = sema.integer_literal(call.args[1], "the interval of tseries()")
        count = sema.integer_literal(call.args[2], "the number of intervals of tseries()")
        aggregation = ""
        if len(call.args) > 3:
            aggregation = sema.string_literal(call.args[3], "the aggregation of tseries()")
        self._check_values(interval, count, aggregation, call, sema)
        value = number_argument(self, sema, call.args[0])
        signed = bool(getattr(value.type, "signed", False))
        clock = self._clock(call, sema)
        type_ = TseriesType(interval, count, aggregation, signed, bool(clock))
        assigned(self, call, sema, type_)
        return made(self, call, type_, value, *clock)

    def _clock(self, call: CallSite, sema: Sema) -> list[tree.Expr]:
        """The map that says what time it is, for tests of scripts: ``BPFTRACE_DUMMY_TS_MAP``."""
        name = sema.config.dummy_ts_map
        return [sema.rvalue(ast.Map(call.span, name))] if name else []

    def _check_values(
        self, interval: int, count: int, aggregation: str, call: CallSite, sema: Sema
    ) -> None:
        problem, node = "", call.args[1]
        if interval < 1:
            problem = f"tseries interval_ns must be >= 1 ({interval} provided)"
        elif not 1 <= count <= MAX_INTERVALS:
            node = call.args[2]
            problem = f"tseries num_intervals must be 1..{MAX_INTERVALS} ({count} provided)"
        elif aggregation and aggregation not in AGGREGATIONS:
            node = call.args[3]
            problem = (
                f"tseries() expects one of the following aggregation functions: "
                f'{", ".join(AGGREGATIONS)} ("{aggregation}" provided)'
            )
        if problem:
            raise sema.fail("argument-value", node.span, problem)

    def emit_update(self, statement: tree.UpdateAggregate, gen: Emitter) -> None:
        type_ = statement.call.type
        assert isinstance(type_, TseriesType)
        ir = gen.ir
        amount = gen.value64(statement.call.args[0])
        clock = statement.call.args[1:]
        now = gen.value64(clock[0]) if clock else gen.helper(Helper.ktime_get_boot_ns)
        number = ir.op(f"udiv i64 {now}, {type_.interval}")
        slot = ir.resize(ir.op(f"urem i64 {number}, {type_.count}"), 64, 32, False)
        key = emit_extended_key(gen, statement, slot)
        update_or_insert(
            gen,
            statement.map,
            key,
            24,
            lambda at: self._record(gen, type_, at, number, amount, now),
        )

    def _record(
        self, gen: Emitter, type_: TseriesType, at: str, number: str, amount: str, now: str
    ) -> None:
        """Start over if the slot is an old interval's, else put the value to what is there."""
        ir = gen.ir
        value, extra = ir.offset(at, 8), ir.offset(at, 16)
        with gen.if_(ir.compare("ne", "i64", ir.load("i64", at), number)):
            ir.store("i64", number, at)
            ir.store("i64", "0", value)
            ir.store("i64", "0", extra)
        old, seen = ir.load("i64", value), ir.load("i64", extra)
        ir.store("i64", self._combined(gen, type_, old, seen, amount), value)
        mark = ir.op(f"add i64 {seen}, 1") if type_.aggregation else now
        ir.store("i64", mark, extra)

    def _combined(self, gen: Emitter, type_: TseriesType, old: str, seen: str, amount: str) -> str:
        if type_.aggregation in ("sum", "avg"):
            return gen.ir.op(f"add i64 {old}, {amount}")
        if not type_.aggregation:
            return amount
        sign = "s" if type_.signed else "u"
        word = f"{sign}{'gt' if type_.aggregation == 'max' else 'lt'}"
        wins = gen.ir.compare(word, "i64", amount, old)
        first = gen.ir.compare("eq", "i64", seen, "0")
        return gen.ir.select(gen.ir.op(f"or i1 {first}, {wins}"), "i64", amount, old)


FUNCTIONS: tuple[type[Function], ...] = (Tseries,)
