# SPDX-License-Identifier: Apache-2.0
"""Histograms as bars of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.functions.histogram import HistType, LinearHistType

if TYPE_CHECKING:
    from kcap.functions.histogram import Bucket, Histogram

BAR_WIDTH = 52
UNITS = ("", "K", "M", "G", "T", "P", "E")


def power_label(value: int, bits: int) -> str:
    """A limit of a logarithmic bucket: ``1K`` for 1024, with the largest unit in which every
    bucket of its power of two has a whole number."""
    power = max(value.bit_length() - 1, 0)
    unit = power // 10
    if unit and power - 10 * unit < bits:
        unit -= 1
    return f"{value >> (10 * unit)}{UNITS[unit]}"


def linear_label(value: int, step: int) -> str:
    """A limit of a linear bucket; units only where the step is in units too."""
    if value and step % 1024 == 0:
        if value % 1048576 == 0:
            return f"{value // 1048576}M"
        if value % 1024 == 0:
            return f"{value // 1024}K"
    return str(value)


def bucket_label(bucket: Bucket, type_: object) -> str:
    """What stands before a bar: ``[2, 4)``."""

    def label(value: int) -> str:
        if isinstance(type_, LinearHistType):
            return linear_label(value, type_.step)
        return power_label(value, type_.bits if isinstance(type_, HistType) else 0)

    if bucket.low is None:
        return f"(..., {label(bucket.high or 0)})"
    if bucket.high is None:
        return f"[{label(bucket.low)}, ...)"
    if isinstance(type_, HistType) and bucket.high == bucket.low + 1:
        return f"[{bucket.low}]"
    return f"[{label(bucket.low)}, {label(bucket.high)})"


def rows(histogram: Histogram, div: int = 0) -> list[str]:
    """One line a bucket, without line ends.

    :param div: divide counts by it; 0 for not.
    """
    counts = [bucket.count // (div or 1) for bucket in histogram.buckets]
    most = max(counts, default=0)
    lines = []
    for bucket, count in zip(histogram.buckets, counts, strict=True):
        bar = "@" * (count * BAR_WIDTH // most if most else 0)
        label = bucket_label(bucket, histogram.type)
        lines.append(f"{label:<16} {count:>7} |{bar:<{BAR_WIDTH}}|")
    return lines
