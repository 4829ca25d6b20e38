# SPDX-License-Identifier: Apache-2.0
"""The capture benchmark's tables of losses: loads grow until each way has lost packets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.capture import __main__ as benchmark
from benchmarks.capture import ways
from benchmarks.capture.meter import Used
from benchmarks.capture.traffic import Sent
from benchmarks.capture.ways import Result, Way

#: What each way can take of a burst; all that is more is lost.
ROOM = {"tcpdump": 700, "tcpdump -B 4096": 1400, "kcap": 10_000}


def test_a_way_that_has_lost_packets_is_not_tried_with_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[tuple[str, int]] = []

    def measure(
        way: Way, directory: str, count: int, size: int, pause_ns: int, nice: int
    ) -> Result:
        assert (directory, size, pause_ns, nice) == ("/d", 1500, 0, 10)
        tried.append((way.name, count))
        sent = Sent(count, count / 1e5, 0.0)
        return Result(sent, max(0, count - ROOM[way.name]), Used(0.0, 0.0, 0, 0))

    monkeypatch.setattr(ways, "measure", measure)
    monkeypatch.setattr(benchmark, "BURSTS", {0: (1,), 1000: (600, 800, 1800)})
    found = [Way("tcpdump", (), ""), Way("kcap", (), "")]
    lines = list(benchmark.bursts(found, [1500], "/d", 10))
    assert [count for name, count in tried if name == "tcpdump"] == [600, 800]
    assert [count for name, count in tried if name == "kcap"] == [600, 800, 1800]
    assert lines[3:6] == [
        "| 600 | 100000 to 100000 | 0 | 0 | 0 |",
        "| 800 | 100000 to 100000 | 100 | 0 | 0 |",
        "| 1800 | 100000 to 100000 | - | 400 | 0 |",
    ]
    assert lines[-3:] == [
        "tcpdump: first lost at 800 packets, 100000 a second",
        "tcpdump -B 4096: first lost at 1800 packets, 100000 a second",
        "kcap: first lost at none of these",
    ]
