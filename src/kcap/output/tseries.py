# SPDX-License-Identifier: Apache-2.0
"""Time series as a chart of text, and as JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kcap.codegen.environment import Environment
    from kcap.functions.tseries import Series

WIDTH = 53
HEADING = "hh:mm:ss.ms"
MARGIN = 13


def series_rows(series: Series, environment: Environment) -> list[str]:
    """The lines of the chart, without line ends."""
    values = [point.value for point in series.points if point.value is not None]
    low, high = bounds(values)
    pad = " " * MARGIN
    scale = f"{pad}{low}{high:>{WIDTH - len(str(low))}}"
    rule = "_" * (WIDTH - 2)
    shift = 0 if series.absolute else environment.boot_to_wall()
    lines = [scale, f"{HEADING:<{MARGIN}}|{rule}|"]
    for point in series.points:
        stamp = clock(point.start + shift)
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


def clock(nanoseconds: int) -> str:
    """Local time of day with milliseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1_000_000:03d}"


def json_series(series: Series, environment: Environment) -> str:
    """The intervals that have a value, as a JSON array."""
    shift = 0 if series.absolute else environment.boot_to_wall()
    points = []
    for point in series.points:
        if point.value is None:
            continue
        seconds, rest = divmod(point.start + shift, 1_000_000_000)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
        points.append(f'{{"interval_start":"{stamp}.{rest:09d}","value":{point.value}}}')
    return f"[{','.join(points)}]"
