# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' rows: ways take turns, one that fails is left out and said to be, ratios."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.guest import rows
from benchmarks.guest.rows import Case, Results, Row
from benchmarks.guest.tracers import FailedError, Tracer

OURS = Tracer("kcap", ("kcap",), learns=True)
PEER = Tracer("peer", ("peer",))
SECONDS = ("whole", "s")


def measured(case: Case, turns: int) -> Results:
    """A case's results of some rounds, put together as those of several processes."""
    results = Results()
    for turn in range(turns):
        results.merge(rows.take_turn(case, turn).data())
    return results


def test_ways_take_turns_and_only_what_learns_is_warmed_up() -> None:
    ran: list[str] = []

    def work(tracer: Tracer, times: float) -> rows.Figures:
        ran.append(tracer.name)
        return {SECONDS: len(ran) * times}

    case = Case("start", "case", [OURS, PEER], work, (10.0,), warm_up=True)
    results = measured(case, 2)
    assert ran == ["kcap", "kcap", "peer", "kcap", "peer"]
    (row,) = results.rows
    assert row.values == {"kcap": [20.0, 40.0], "peer": [30.0, 50.0]}
    assert rows.ratio(row, "kcap") == 0.75


def test_a_case_takes_part_in_no_more_rounds_than_it_may() -> None:
    case = Case("scale", "case", [OURS, PEER], lambda _: {SECONDS: 1.0}, rounds=1)
    assert measured(case, 3).rows[0].values == {"kcap": [1.0], "peer": [1.0]}


def test_a_way_that_fails_is_left_out_and_its_reason_shown() -> None:
    def work(tracer: Tracer) -> rows.Figures:
        if tracer is PEER:
            raise FailedError("no libpcap")
        return {SECONDS: 1.0}

    results = measured(Case("start", "case", [OURS, PEER], work), 3)
    assert rows.ratio(results.rows[0], "kcap") is None
    shown = list(rows.lines(results))
    assert shown[2] == "| case, whole | 1 s |  |"
    assert shown[3:] == ["", "- peer has no start: case: no libpcap"]


def test_a_way_that_fails_while_it_warms_up_is_not_tried_again() -> None:
    tried: list[str] = []

    def work(tracer: Tracer) -> rows.Figures:
        tried.append(tracer.name)
        if tracer is OURS:
            raise FailedError("no rights")
        return {SECONDS: 1.0}

    results = measured(Case("start", "case", [OURS, PEER], work, warm_up=True), 1)
    assert tried == ["kcap", "peer"]
    assert results.missing == {"start: case": {"kcap": "no rights"}}
    assert results.rows[0].values == {"peer": [1.0]}


def test_rounds_of_several_processes_come_together() -> None:
    case = Case("event", "case", [OURS, PEER], lambda tracer: {SECONDS: 1.0 + tracer.learns})
    results = measured(case, 2)
    assert results.rows[0].values == {"kcap": [2.0, 2.0], "peer": [1.0, 1.0]}
    assert Results(results.data()).rows == results.rows


def test_a_cell_has_the_median_and_the_spread() -> None:
    row = Row("event", "case", "time", "ns", "peer", {"kcap": [3.0, 1.0, 2.0], "peer": [4.0]})
    shown = list(rows.lines(Results({"rows": [row._asdict()], "missing": {}})))
    assert shown == [
        "| event | kcap | ÷ peer | peer |",
        "|---|---|---|---|",
        "| case, time | 2 (1 to 3) ns | **0.50** | 4 ns |",
        "",
    ]


def test_the_spread_of_a_ratio_is_the_round_that_is_furthest_from_the_median() -> None:
    row = Row("event", "case", "time", "ns", "peer", {"kcap": [2.0, 1.0], "peer": [4.0, 2.0]})
    assert rows.spread(row, "kcap") == 0.0
    row = Row("event", "case", "time", "ns", "peer", {"kcap": [1.0, 1.0, 1.1], "peer": [2.0] * 3})
    assert round(rows.spread(row, "kcap"), 3) == 0.1
