# SPDX-License-Identifier: Apache-2.0
"""Rows of results: values a tracer, their medians and spread, and ratios to a peer, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.guest.tracers import FailedError, Tracer

#: What a tracer did in one round, by measure: ('attached', 's') → seconds.
Figures = Mapping[tuple[str, str], float]


#: Whether a case is to be measured.
wanted: Callable[[str], object] = bool


class Row(NamedTuple):
    """One thing measured, of each tracer.

    :ivar group: what the row stands with: ``start``, ``event``, ``reader``, ``scale``.
    :ivar case: which work.
    :ivar measure: what was measured of it.
    :ivar unit: ``s``, ``ns``, ``KiB``, ``insns``.
    :ivar values: a value a round, by the tracer's name.
    :ivar missing: why a tracer has none, by its name.
    """

    group: str
    case: str
    measure: str
    unit: str
    values: dict[str, list[float]]
    missing: dict[str, str]


def in_turn(
    group: str,
    case: str,
    tracers: Sequence[Tracer],
    rounds: int,
    work: Callable[..., Figures],
    *arguments: object,
    warm_up: bool = True,
) -> Iterator[Row]:
    """Let each tracer do the same work in turn (A B A B); a row a measure.

    :param work: does it once, given a tracer and ``arguments``; a tracer whose work fails is left
        out of the rounds that follow.
    :param warm_up: let those that learn do it once before the rounds, unmeasured.
    """
    if not wanted(case):
        return
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    missing: dict[str, str] = {}
    for turn in range(-1 if warm_up else 0, rounds):
        for tracer in tracers:
            if tracer.name in missing or (turn < 0 and not tracer.learns):
                continue
            try:
                figures = work(tracer, *arguments)
            except FailedError as error:
                missing[tracer.name] = str(error)
                continue
            for key, value in figures.items():
                if turn >= 0:
                    values.setdefault(key, {}).setdefault(tracer.name, []).append(value)
    for (measure, unit), found in values.items():
        yield Row(group, case, measure, unit, found, missing)
    if not values:
        yield Row(group, case, "", "", {}, missing)


def ratio(row: Row, tracer: str, peer: str) -> float | None:
    """The tracer's median in parts of the peer's; None where there is no telling."""
    ours, theirs = row.values.get(tracer), row.values.get(peer)
    if not ours or not theirs or not median(theirs):
        return None
    return median(ours) / median(theirs)


def lines(rows: Iterable[Row], tracers: Sequence[str], peer: str) -> Iterator[str]:
    """A Markdown table as the rows come: medians (least to most), ratios to the peer; then
    why what is missing is missing.

    :param tracers: the columns; the peer among them is the one without a ratio.
    """
    heads = [name if name == peer else f"{name} | ÷ {peer}" for name in tracers]
    cells = sum(1 if name == peer else 2 for name in tracers)
    notes: dict[str, None] = {}
    yield f"| | {' | '.join(heads)} |"
    yield "|---|" + "---|" * cells
    for row in rows:
        shown = []
        for name in tracers:
            shown.append(_cell(row, name))
            if name != peer:
                found = ratio(row, name, peer)
                shown.append("" if found is None else f"**{found:.2f}**")
        label = ", ".join(part for part in (row.case, row.measure) if part)
        yield f"| {row.group}: {label} | {' | '.join(shown)} |".replace("||", "\\|\\|")
        for name, reason in row.missing.items():
            notes[f"- {name} has no {row.group}: {row.case}: {reason}"] = None
    if notes:
        yield ""
        yield from notes


def _cell(row: Row, tracer: str) -> str:
    values = row.values.get(tracer)
    if not values:
        return "-" if tracer in row.missing else ""
    shown = [number(value) for value in (median(values), min(values), max(values))]
    spread = f" ({shown[1]} to {shown[2]})" if shown[1] != shown[2] else ""
    return f"{shown[0]}{spread} {row.unit}"


def number(value: float) -> str:
    """Three significant digits, or a whole number."""
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3g}"
