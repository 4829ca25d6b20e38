# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' rows: ways take turns, one that fails is left out and said to be, ratios."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.guest import rows
from benchmarks.guest.tracers import FailedError, Tracer

OURS = Tracer("kcap", ("kcap",), learns=True)
PEER = Tracer("peer", ("peer",))
SECONDS = ("whole", "s")


def test_ways_take_turns_and_only_what_learns_is_warmed_up() -> None:
    ran: list[str] = []

    def work(tracer: Tracer, times: float) -> rows.Figures:
        ran.append(tracer.name)
        return {SECONDS: len(ran) * times}

    (row,) = rows.in_turn("start", "case", [OURS, PEER], 2, work, 10.0)
    assert ran == ["kcap", "kcap", "peer", "kcap", "peer"]
    assert row.values == {"kcap": [20.0, 40.0], "peer": [30.0, 50.0]}
    assert rows.ratio(row, "kcap", "peer") == 0.75


def test_a_way_that_fails_is_tried_once_and_its_reason_shown() -> None:
    tried: list[str] = []

    def work(tracer: Tracer) -> rows.Figures:
        tried.append(tracer.name)
        if tracer is PEER:
            raise FailedError("no libpcap")
        return {SECONDS: 1.0}

    found = list(rows.in_turn("start", "case", [OURS, PEER], 3, work))
    assert tried.count("peer") == 1
    assert rows.ratio(found[0], "kcap", "peer") is None
    shown = list(rows.lines(found, ["kcap", "peer"], "peer"))
    assert shown[2] == "| start: case, whole | 1 s |  | - |"
    assert shown[3:] == ["", "- peer has no start: case: no libpcap"]


def test_a_cell_has_the_median_and_the_spread() -> None:
    row = rows.Row("event", "case", "time", "ns", {"kcap": [3.0, 1.0, 2.0], "peer": [4.0]}, {})
    shown = list(rows.lines([row], ["kcap", "peer"], "peer"))
    assert shown[2] == "| event: case, time | 2 (1 to 3) ns | **0.50** | 4 ns |"
