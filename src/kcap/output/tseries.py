# SPDX-License-Identifier: Apache-2.0
"""Time series as a chart of text, and as JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kcap.codegen.environment import Environment
    from kcap.functions.tseries import Point, Series

WIDTH = 53


def series_rows(series: Series, environment: Environment) -> list[str]:
    """The lines of the chart, without line ends."""
    values = [point.value for point in series.points if point.value is not None]
    low, high = bounds(values)
    digits, unit = _fraction(series.interval)
    margin = len("hh:mm:ss. ") + digits
    pad = " " * margin
    scale = f"{pad}{low}{high:>{WIDTH - len(str(low))}}"
    rule = "_" * (WIDTH - 2)
    lines = [scale, f"{f'hh:mm:ss.{unit}':<{margin}}|{rule}|"]
    for point in series.points:
        stamp = clock(_start(point, series, environment), digits)
        shown = "-" if point.value is None else str(point.value)
        lines.append(f"{stamp} {_row(point.value, low, high)} {shown}")
    return [*lines, f"{pad}v{rule}v", scale]


def bounds(values: list[int]) -> tuple[int, int]:
    """The ends of the scale: apart even if all values are the same."""
    if not values:
        return 0, 1
    low, high = min(values), max(values)
    if low != high:
        return low, high
    return (0, 1) if low == 0 else (low - 1, high + 1)


def _row(value: int | None, low: int, high: int) -> str:
    cells = ["|", *" " * (WIDTH - 2), "|"]
    if low < 0 < high:
        cells[-low * (WIDTH - 1) // (high - low)] = "."
    if value is not None:
        cells[(value - low) * (WIDTH - 1) // (high - low)] = "*"
    return "".join(cells)


def _fraction(interval: int) -> tuple[int, str]:
    """How many digits of a second times have, and what those are called: as many as tell intervals
    apart; nanoseconds, too, where they last a second or more."""
    for end, digits, unit in ((1_000, 9, "ns"), (1_000_000, 6, "us"), (1_000_000_000, 3, "ms")):
        if interval < end:
            return digits, unit
    return 9, "ns"


def _start(point: Point, series: Series, environment: Environment) -> int:
    """When an interval began, in nanoseconds since 1970: a whole number of intervals."""
    shift = 0 if series.absolute else environment.boot_to_wall()
    return (point.start + shift) // series.interval * series.interval


def clock(nanoseconds: int, digits: int) -> str:
    """Local time of day with so many digits of a fraction."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{f'{rest:09d}'[:digits]}"


def json_series(series: Series, environment: Environment) -> str:
    """The intervals that have a value, as a JSON array."""
    points = []
    for point in series.points:
        if point.value is None:
            continue
        seconds, rest = divmod(_start(point, series, environment), 1_000_000_000)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
        points.append(f'{{"interval_start":"{stamp}.{rest:09d}","value":{point.value}}}')
    return f"[{','.join(points)}]"
