# SPDX-License-Identifier: Apache-2.0
"""Bucketing of histograms, and how the BPF map's entries become histograms."""

from hypothesis import given
from hypothesis import strategies as st

from kcap.functions.histogram import Bucket, Histogram, HistType, LinearHistType
from kcap.sema.types import INT64, UINT32, String, Tuple


@given(st.integers(0, 2**63 - 1), st.integers(0, 5))
def test_a_value_lies_within_the_limits_of_its_bucket(value: int, bits: int) -> None:
    type_ = HistType(bits)
    low, high = type_.limits(type_.index(value))
    assert low is not None
    assert high is not None
    assert low <= value < high


@given(st.integers(0, 5))
def test_buckets_follow_each_other_without_gaps(bits: int) -> None:
    type_ = HistType(bits)
    for index in range(1, type_.bucket_count - 1):
        assert type_.limits(index)[1] == type_.limits(index + 1)[0]
    assert type_.index(2**63 - 1) == type_.bucket_count - 1


def test_negative_values_have_a_bucket_of_their_own() -> None:
    assert HistType().index(-1) == 0
    assert HistType().limits(0) == (None, 0)


def test_more_bits_make_finer_buckets() -> None:
    type_ = HistType(3)
    assert [type_.limits(type_.index(n)) for n in (0, 15, 16, 17, 960)] == [
        (0, 1), (15, 16), (16, 18), (16, 18), (960, 1024),
    ]  # fmt: skip


@given(st.integers(-(10**6), 10**6), st.integers(-100, 100), st.integers(1, 500), st.integers(1, 9))
def test_linear_buckets_hold_their_values(value: int, minimum: int, width: int, step: int) -> None:
    type_ = LinearHistType(minimum, minimum + width, step)
    index = type_.index(value)
    low, high = type_.limits(index)
    assert 0 <= index < type_.bucket_count
    assert low is None or low <= value
    assert high is None or value < high


def test_the_map_key_is_extended_by_the_bucket() -> None:
    layout = HistType().map_layout(String(16))
    assert layout.key == Tuple((String(16), UINT32))
    assert (layout.key_size, layout.set_at, layout.entries) == (20, 8, 0)
    assert HistType().map_layout(None).entries == 65


def test_entries_are_collected_by_key_and_cpus_are_added() -> None:
    entries = [(("a", 3), [1, 2]), (("b", 1), [1, 0]), (("a", 5), [0, 1])]
    assert dict(HistType().collect(entries, True)) == {
        "a": Histogram((Bucket(2, 4, 3), Bucket(4, 8, 0), Bucket(8, 16, 1)), HistType()),
        "b": Histogram((Bucket(0, 1, 1),), HistType()),
    }


def test_keys_that_decode_to_lists_are_told_apart() -> None:
    entries = [(([1, 2], 1), [1]), (([1, 3], 1), [1])]
    assert [key for key, _ in HistType().collect(entries, True)] == [[1, 2], [1, 3]]


def test_a_histogram_of_zeros_is_empty() -> None:
    assert HistType().collect([(3, [0, 0])], False) == [(None, Histogram((), HistType()))]


def test_integer_keys() -> None:
    layout = LinearHistType(0, 10, 2).map_layout(INT64)
    assert isinstance(layout.key, Tuple)
    assert layout.key.offsets == (0, 8)
    assert layout.key_size == 16
