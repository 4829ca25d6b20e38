# SPDX-License-Identifier: Apache-2.0
"""Histograms: ``hist()`` with logarithmic buckets, ``lhist()`` with equal ones.

The BPF map's key is the script's key with the bucket behind it, its value a count a CPU: a bucket
that nothing falls into costs nothing, and one update is one look-up and one addition.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from kcap.codegen.function import Function, MapFunction
from kcap.functions.aggregates import (
    UPDATE_HELPERS,
    add_to,
    assigned,
    number_argument,
    update_or_insert,
)
from kcap.functions.base import made
from kcap.records import dataclass
from kcap.sema import tree
from kcap.sema.types import UINT32, Aggregate, Buffer_, MapLayout, Tuple, Type

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.sema.function import CallSite, Sema

MAX_BITS = 5
MAX_LINEAR_BUCKETS = 1000


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of a histogram.

    :param low: the smallest value that falls into it, None: no limit.
    :param high: the smallest value above it, None: no limit.
    :param count: how many values fell into it.
    """

    low: int | None
    high: int | None
    count: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram: the buckets from the first to the last that holds something.

    :param buckets: empty if nothing was counted.
    :param type: how values fell into buckets.
    """

    buckets: tuple[Bucket, ...]
    type: HistogramType

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(bucket.count for bucket in self.buckets)


class HistogramType(Aggregate):
    """Base of the two kinds; ``decode`` gives one bucket's count on one CPU."""

    __slots__ = ()

    @property
    def size(self) -> int:
        return 8

    @property
    def bucket_count(self) -> int:
        """How many buckets there are."""
        raise NotImplementedError

    def limits(self, index: int) -> tuple[int | None, int | None]:
        """``low`` and ``high`` of a bucket."""
        raise NotImplementedError

    def decode(self, data: Buffer_, offset: int = 0) -> int:
        return int.from_bytes(data[offset : offset + 8], "little")

    def reduce(self, parts: list[Any]) -> int:
        return sum(parts)

    def map_layout(self, key: Type | None) -> MapLayout:
        if key is None:
            return MapLayout(UINT32, self, self.bucket_count)
        return MapLayout(Tuple((key, UINT32)), self)

    def collect(
        self, entries: Iterable[tuple[Any, list[Any]]], keyed: bool
    ) -> list[tuple[Any, Any]]:
        keys: dict[Any, Any] = {}
        counts: dict[Any, dict[int, int]] = {}
        for whole, parts in entries:
            key, index = whole if keyed else (None, whole)
            identity = hashable(key)
            keys.setdefault(identity, key)
            counts.setdefault(identity, {})[index] = self.reduce(parts)
        return [(key, self.histogram(counts[identity])) for identity, key in keys.items()]

    def histogram(self, counts: dict[int, int]) -> Histogram:
        """The histogram of counts by bucket."""
        used = [index for index, count in counts.items() if count]
        if not used:
            return Histogram((), self)
        span = range(min(used), max(used) + 1)
        buckets = tuple(Bucket(*self.limits(index), counts.get(index, 0)) for index in span)
        return Histogram(buckets, self)


def hashable(key: Any) -> Any:
    """A decoded key as a dictionary takes it: lists and dicts become tuples."""
    if isinstance(key, dict):
        return tuple(hashable(value) for value in key.values())
    if isinstance(key, list | tuple):
        return tuple(hashable(value) for value in key)
    return key


@dataclass(frozen=True, slots=True)
class HistType(HistogramType):
    """``hist()``: bucket 0 for negative numbers, then 2**bits buckets for each power of two.

    :param bits: 0 to 5.
    """

    bits: int = 0

    @property
    def bucket_count(self) -> int:
        return 1 + ((63 - self.bits + 1) << self.bits)

    def low(self, index: int) -> int:
        """The smallest value of bucket ``index`` (from 1)."""
        at, width = index - 1, 1 << self.bits
        if at < width:
            return at
        power = (at >> self.bits) - 1
        return (width + (at & (width - 1))) << power

    def limits(self, index: int) -> tuple[int | None, int | None]:
        if index == 0:
            return None, 0
        return self.low(index), self.low(index + 1)

    def index(self, value: int) -> int:
        """The bucket of a value: what :func:`emit_log2_bucket` computes."""
        if value < 0:
            return 0
        if value < 1 << self.bits:
            return 1 + value
        power = value.bit_length() - 1 - self.bits
        return 1 + (power << self.bits) + (value >> power)

    def __str__(self) -> str:
        return "hist_t"


@dataclass(frozen=True, slots=True)
class LinearHistType(HistogramType):
    """``lhist()``: buckets of ``step`` from ``minimum`` to ``maximum``, and one on either side."""

    minimum: int
    maximum: int
    step: int

    @property
    def bucket_count(self) -> int:
        return (self.maximum - self.minimum + self.step - 1) // self.step + 2

    def limits(self, index: int) -> tuple[int | None, int | None]:
        if index == 0:
            return None, self.minimum
        low = self.minimum + (index - 1) * self.step
        return (self.maximum, None) if low >= self.maximum else (low, low + self.step)

    def index(self, value: int) -> int:
        """The bucket of a value: what :func:`emit_linear_bucket` computes."""
        if value < self.minimum:
            return 0
        if value >= self.maximum:
            return 1 + (self.maximum - self.minimum + self.step - 1) // self.step
        return 1 + (value - self.minimum) // self.step

    def __str__(self) -> str:
        return "lhist_t"


# --- emission -------------------------------------------------------------------------------


def emit_floor_log2(gen: Emitter, value: str) -> str:
    """The number of the highest bit of a positive i64, without branches: all bits below it are
    set, and bits counted."""
    ir = gen.ir
    for shift in (1, 2, 4, 8, 16, 32):
        value = ir.op(f"or i64 {value}, {ir.op(f'lshr i64 {value}, {shift}')}")
    half = ir.op(f"and i64 {ir.op(f'lshr i64 {value}, 1')}, {0x5555_5555_5555_5555}")
    pairs = ir.op(f"sub i64 {value}, {half}")
    low = ir.op(f"and i64 {pairs}, {0x3333_3333_3333_3333}")
    high = ir.op(f"and i64 {ir.op(f'lshr i64 {pairs}, 2')}, {0x3333_3333_3333_3333}")
    nibbles = ir.op(f"add i64 {low}, {high}")
    folded = ir.op(f"add i64 {nibbles}, {ir.op(f'lshr i64 {nibbles}, 4')}")
    bytes_ = ir.op(f"and i64 {folded}, {0x0F0F_0F0F_0F0F_0F0F}")
    count = ir.op(f"lshr i64 {ir.op(f'mul i64 {bytes_}, {0x0101_0101_0101_0101}')}, 56")
    return ir.op(f"sub i64 {count}, 1")


def emit_log2_bucket(gen: Emitter, value: str, bits: int) -> str:
    """The bucket of an i64, as an i64 operand; see :meth:`HistType.index`."""
    ir = gen.ir
    power = ir.op(f"sub i64 {emit_floor_log2(gen, value)}, {bits}")
    shift = ir.op(f"and i64 {power}, 63")
    base = ir.op(f"shl i64 {shift}, {bits}") if bits else shift
    part = ir.op(f"lshr i64 {value}, {shift}")
    large = ir.op(f"add i64 {ir.op(f'add i64 {base}, {part}')}, 1")
    small = ir.op(f"add i64 {value}, 1")
    is_small = ir.compare("ult", "i64", value, str(1 << bits))
    index = ir.select(is_small, "i64", small, large)
    return ir.select(ir.compare("slt", "i64", value, "0"), "i64", "0", index)


def emit_linear_bucket(gen: Emitter, value: str, type_: LinearHistType) -> str:
    """The bucket of an i64, as an i64 operand; see :meth:`LinearHistType.index`."""
    ir = gen.ir
    from_low = ir.op(f"sub i64 {value}, {type_.minimum}")
    inside = ir.op(f"add i64 {ir.op(f'udiv i64 {from_low}, {type_.step}')}, 1")
    above = ir.compare("sge", "i64", value, str(type_.maximum))
    last = str(type_.index(type_.maximum))
    index = ir.select(above, "i64", last, inside)
    return ir.select(ir.compare("slt", "i64", value, str(type_.minimum)), "i64", "0", index)


class HistogramFunction(MapFunction):
    """A map function that counts values by bucket."""

    helpers = UPDATE_HELPERS

    def bucket(self, type_: Type, value: str, gen: Emitter) -> str:
        """Emit the bucket of an i64."""
        raise NotImplementedError

    def emit_update(self, statement: tree.UpdateAggregate, gen: Emitter) -> None:
        type_ = statement.call.type
        index = self.bucket(type_, gen.value64(statement.call.args[0]), gen)
        key = emit_extended_key(gen, statement, gen.ir.resize(index, 64, 32, False))
        update_or_insert(gen, statement.map, key, 8, lambda value: add_to(gen, value, "1"))


def emit_extended_key(gen: Emitter, statement: tree.UpdateAggregate, index: str) -> str:
    """A pointer to the script's key with the bucket (an i32) behind it."""
    aggregate = statement.call.type
    assert isinstance(aggregate, Aggregate)
    layout = aggregate.map_layout(statement.map.key)
    dest = gen.alloc(layout.key_size)
    at = 0
    if statement.key is not None:
        assert isinstance(layout.key, Tuple)
        at = layout.key.offsets[1]
        if layout.key_size != at + 4 or at != statement.key.type.size:
            gen.zero(dest, layout.key_size)
        gen.store(statement.key, dest, canonical=True)
    gen.ir.store("i32", index, gen.ir.offset(dest, at))
    return dest


class Hist(HistogramFunction):
    name = "hist"
    signatures = ("hist_t hist(int64 n[, int k])",)
    summary = "Logarithmic histogram of n with 2^k buckets for each power of two."
    arity = (1, 2)
    limit: ClassVar[int] = MAX_BITS

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        bits = 0
        if len(call.args) > 1:
            bits = sema.integer_literal(call.args[1], "the second argument of hist()")
            if not 0 <= bits <= self.limit:
                raise sema.fail(
                    "argument-value",
                    call.args[1].span,
                    f"hist: bits {bits} must be 0..{self.limit}",
                )
        type_ = HistType(bits)
        value = number_argument(self, sema, call.args[0])
        assigned(self, call, sema, type_)
        return made(self, call, type_, value)

    def bucket(self, type_: Type, value: str, gen: Emitter) -> str:
        assert isinstance(type_, HistType)
        return emit_log2_bucket(gen, value, type_.bits)


class Lhist(HistogramFunction):
    name = "lhist"
    signatures = ("lhist_t lhist(int64 n, int64 min, int64 max, int64 step)",)
    summary = "Linear histogram of n."
    arity = (4, 4)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        names = ("min", "max", "step")
        low, high, step = (
            sema.integer_literal(node, f"the {name} of lhist()")
            for node, name in zip(call.args[1:], names, strict=True)
        )
        self._check_range(low, high, step, call, sema)
        type_ = LinearHistType(low, high - (high - low) % step, step)  # whole buckets only
        value = number_argument(self, sema, call.args[0])
        assigned(self, call, sema, type_)
        return made(self, call, type_, value)

    def _check_range(self, low: int, high: int, step: int, call: CallSite, sema: Sema) -> None:
        problem, node = "", call.args[3]
        if step <= 0:
            problem = f"lhist() step must be >= 1 ({step} provided)"
        elif low >= high:
            problem = f"lhist() min must be less than max (provided min {low} and max {high})"
            node = call.args[1]
        elif (high - low) // step > MAX_LINEAR_BUCKETS:
            problem = (
                f"lhist() too many buckets, must be <= {MAX_LINEAR_BUCKETS} "
                f"(would need {(high - low) // step})"
            )
        elif high - low < step:
            problem = f"lhist() step is too large for the given range ({step} for {high - low})"
        if problem:
            raise sema.fail("argument-value", node.span, problem)

    def bucket(self, type_: Type, value: str, gen: Emitter) -> str:
        assert isinstance(type_, LinearHistType)
        return emit_linear_bucket(gen, value, type_)


FUNCTIONS: tuple[type[Function], ...] = (Hist, Lhist)
