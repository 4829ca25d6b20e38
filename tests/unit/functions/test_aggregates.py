# SPDX-License-Identifier: Apache-2.0
"""What the parts of all CPUs amount to."""

import struct

from kcap.functions.aggregates import (
    AvgType,
    CountType,
    ExtremeType,
    Stats,
    StatsType,
    SumType,
    divide,
)
from kcap.sema.types import INT64, UINT32, UINT64


def test_counts_and_sums_add_up() -> None:
    assert CountType().reduce([1, 2, 3]) == 6
    assert SumType(True).reduce([-5, 3]) == -2
    assert SumType(False).reduce([2**64 - 1, 2]) == 1


def test_sums_decode_by_their_sign() -> None:
    raw = struct.pack("<q", -2)
    assert SumType(True).decode(raw) == -2
    assert SumType(False).decode(raw) == 2**64 - 2


def test_extremes_ignore_cpus_without_a_value() -> None:
    assert ExtremeType(False).reduce([None, 3, -1]) == -1
    assert ExtremeType(True).reduce([None, 3, -1]) == 3
    assert ExtremeType(True).reduce([None, None]) == 0
    assert ExtremeType(True).decode(struct.pack("<qQ", 7, 0)) is None
    assert ExtremeType(True).decode(struct.pack("<qQ", -7, 1)) == -7


def test_averages_are_cut_towards_zero() -> None:
    assert AvgType().reduce([(7, 2), (0, 0)]) == 3
    assert AvgType().reduce([(-7, 2)]) == -3
    assert AvgType().reduce([(0, 0)]) == 0
    assert divide(-1, 2) == 0


def test_stats_have_count_average_and_total() -> None:
    assert StatsType().reduce([(6, 3), (4, 1)]) == Stats(4, 2, 10)


def test_what_can_be_read_in_an_expression() -> None:
    assert CountType().castable == INT64
    assert SumType(False).castable == UINT64
    assert StatsType().castable is None


def test_a_map_without_keys_has_one_key() -> None:
    layout = CountType().map_layout(None)
    assert (layout.key, layout.set_at, layout.entries) == (UINT32, 8, 1)
    assert CountType().collect([(0, [1, 2])], False) == [(None, 3)]
