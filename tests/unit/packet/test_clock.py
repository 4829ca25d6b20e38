# SPDX-License-Identifier: Apache-2.0
"""The realtime offset: exact enough, steady, and following steps of the clock."""

from __future__ import annotations

import itertools
import time

import pytest

from kcap.packet import clock
from kcap.packet.clock import RealtimeOffset, measure_offset


def test_offset_turns_monotonic_time_into_realtime() -> None:
    offset, error = measure_offset()
    before = time.time_ns()
    converted = time.monotonic_ns() + offset
    after = time.time_ns()
    assert before - error - 1 <= converted <= after + error + 1


def test_measurement_takes_the_shortest_bracket() -> None:
    monotonic = iter([0, 1000, 2000, 2010, 3000, 3500])
    realtime = iter([5_000_700, 5_002_006, 5_003_100])
    offset, error = measure_offset(
        monotonic=lambda: next(monotonic), realtime=lambda: next(realtime), rounds=3
    )
    assert (offset, error) == (5_000_001, 5)


class TestRealtimeOffset:
    @pytest.fixture
    def measured(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        current = [1_000_000_000]
        monkeypatch.setattr(clock, "measure_offset", lambda rounds=16: (current[0], 30))
        return current

    def test_is_stored_once_and_then_not_for_jitter(self, measured: list[int]) -> None:
        stored: list[int] = []
        offset = RealtimeOffset(stored.append)
        for jitter in itertools.islice(itertools.cycle([40, -60, 15_000]), 10):
            measured[0] = 1_000_000_000 + jitter
            assert not offset.refresh()
        assert stored == [1_000_000_000]

    def test_follows_a_step_of_the_clock(self, measured: list[int]) -> None:
        stored: list[int] = []
        offset = RealtimeOffset(stored.append)
        measured[0] -= 50_000
        assert offset.refresh()
        assert stored == [1_000_000_000, 999_950_000]
