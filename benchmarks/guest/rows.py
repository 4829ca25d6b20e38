# SPDX-License-Identifier: Apache-2.0
"""Rows of results: values a tracer, their medians and spread, and ratios to a peer, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from benchmarks.guest.tracers import FailedError, Tracer

#: What a tracer did in one round, by measure: ('attached', 's') → seconds.
Figures = Mapping[tuple[str, str], float]


class Case(NamedTuple):
    """A piece of work that tracers do in turn.

    :ivar group: what its rows stand with: ``start``, ``event``, ``reader``, ``packets``, ``scale``.
    :ivar name: which work.
    :ivar tracers: who does it; the last is the peer that the others are compared with.
    :ivar work: does it once, given a tracer and ``arguments``.
    :ivar warm_up: let those that learn do it once before the first round, unmeasured.
    :ivar rounds: how many rounds it takes part in at most: few where it takes long.
    """

    group: str
    name: str
    tracers: Sequence[Tracer]
    work: Callable[..., Figures]
    arguments: tuple[object, ...] = ()
    warm_up: bool = False
    rounds: int = 1000

    @property
    def title(self) -> str:
        """Its group and name."""
        return _title(self.group, self.name)


class Row(NamedTuple):
    """One thing measured, of each tracer.

    :ivar group: the case's.
    :ivar case: its name.
    :ivar measure: what was measured of it.
    :ivar unit: ``s``, ``ns``, ``KiB``, ``insns``.
    :ivar peer: the tracer that the others are compared with.
    :ivar values: a value a round, by the tracer's name.
    """

    group: str
    case: str
    measure: str
    unit: str
    peer: str
    values: dict[str, list[float]]


class Results:
    """What was measured so far.

    :param data: what :meth:`data` gave, of this or of another process.
    :ivar missing: why a tracer has no figures: ``GROUP: CASE``, its name and the reason.
    """

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        self._rows: dict[tuple[str, ...], Row] = {}
        self.missing: dict[str, dict[str, str]] = {}
        if data is not None:
            self.merge(data)

    @property
    def rows(self) -> list[Row]:
        """All rows, in the order in which they came."""
        return list(self._rows.values())

    @property
    def cases(self) -> list[str]:
        """The titles of the cases of which something is known, in the order in which they came."""
        return list(dict.fromkeys([_title(row.group, row.case) for row in self.rows]))

    def add(self, case: Case, tracer: str, figures: Figures) -> None:
        """Take the figures of a round."""
        peer = case.tracers[-1].name
        for (measure, unit), value in figures.items():
            self._values(case.group, case.name, measure, unit, peer, tracer).append(value)

    def fail(self, case: Case, tracer: str, reason: str) -> None:
        """Note why a tracer can't do a case."""
        self.missing.setdefault(case.title, {})[tracer] = reason

    def failed(self, case: Case, tracer: str) -> bool:
        """Whether a tracer could not do a case."""
        return tracer in self.missing.get(case.title, ())

    def merge(self, data: Mapping[str, Any]) -> None:
        """Take what another process measured in rounds of its own."""
        for row in data["rows"]:
            group, case, measure, unit, peer = (row[name] for name in Row._fields[:-1])
            for tracer, values in row["values"].items():
                self._values(group, case, measure, unit, peer, tracer).extend(values)
        for case, reasons in data["missing"].items():
            self.missing.setdefault(case, {}).update(reasons)

    def data(self) -> dict[str, Any]:
        """All of it, for a JSON file."""
        return {"rows": [row._asdict() for row in self.rows], "missing": self.missing}

    def _values(
        self, group: str, case: str, measure: str, unit: str, peer: str, tracer: str
    ) -> list[float]:
        row = Row(group, case, measure, unit, peer, {})
        return self._rows.setdefault(row[:3], row).values.setdefault(tracer, [])


def _title(group: str, case: str) -> str:
    return f"{group}: {case}"


def take_turn(case: Case, turn: int) -> Results:
    """Let each tracer do a case once, one after another: A B, and A B again in the next round.

    :param turn: the round's number; in round 0, those that learn may do their work before.
    :returns: the figures, none if the case has no part in this round.
    """
    results = Results()
    if turn >= case.rounds:
        return results
    warm_up = [each for each in case.tracers if each.learns and case.warm_up and not turn]
    for number, tracer in enumerate((*warm_up, *case.tracers)):
        if results.failed(case, tracer.name):
            continue
        try:
            figures = case.work(tracer, *case.arguments)
        except FailedError as error:
            results.fail(case, tracer.name, str(error))
        else:
            if number >= len(warm_up):
                results.add(case, tracer.name, figures)
    return results


def ratio(row: Row, tracer: str) -> float | None:
    """The tracer's median in parts of the peer's; None where there is no telling."""
    ours, theirs = row.values.get(tracer), row.values.get(row.peer)
    if not ours or not theirs or not median(theirs):
        return None
    return median(ours) / median(theirs)


def spread(row: Row, tracer: str) -> float:
    """How far the ratio of a round was from the median's at most, in parts of that."""
    middle = ratio(row, tracer)
    if not middle:
        return 0.0
    pairs = zip(row.values[tracer], row.values[row.peer], strict=False)
    return max((abs(ours / theirs / middle - 1) for ours, theirs in pairs if theirs), default=0.0)


def lines(results: Results) -> Iterator[str]:
    """A Markdown table for each group: medians (least to most), ratios to the peer; then why what
    is missing is missing."""
    for group in dict.fromkeys(row.group for row in results.rows):
        rows = [row for row in results.rows if row.group == group]
        tracers = list(dict.fromkeys(name for row in rows for name in row.values))
        peer = rows[0].peer
        heads = [name if name == peer else f"{name} | ÷ {peer}" for name in tracers]
        yield f"| {group} | {' | '.join(heads)} |"
        yield "|---|" + "---|" * (2 * len(tracers) - (peer in tracers))
        for row in rows:
            yield f"| {row.case}, {row.measure} | {' | '.join(_cells(row, tracers))} |"
        yield ""
    for case, reasons in results.missing.items():
        for name, reason in reasons.items():
            yield f"- {name} has no {case}: {reason}"


def _cells(row: Row, tracers: Sequence[str]) -> Iterator[str]:
    for name in tracers:
        yield _cell(row, name)
        if name != row.peer:
            found = ratio(row, name)
            yield "" if found is None else f"**{found:.2f}**"


def _cell(row: Row, tracer: str) -> str:
    values = row.values.get(tracer)
    if not values:
        return ""
    shown = [number(value) for value in (median(values), min(values), max(values))]
    between = f" ({shown[1]} to {shown[2]})" if shown[1] != shown[2] else ""
    return f"{shown[0]}{between} {row.unit}"


def number(value: float) -> str:
    """Three significant digits, or a whole number."""
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3g}"
