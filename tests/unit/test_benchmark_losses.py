# SPDX-License-Identifier: Apache-2.0
"""The capture benchmark's losses: bursts grow until each way has lost packets, and the rate from
which on tcpdump loses some is found."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.capture import losses, ways
from benchmarks.capture.meter import Used
from benchmarks.capture.traffic import Load, Sent
from benchmarks.capture.ways import Captured, Result, Way

from kcap.cli.capture import summary_lines
from kcap.session.capture import PlaceStats

FOUND = [Way("tcpdump", (), "", ""), Way("kcap", (), "", "")]
#: Packets a second that the generator can send.
FASTEST = 100_000
Measured = list[tuple[str, Load]]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Way, Load], int]], Measured]:
    """Lets a function say what is lost instead of measuring; what it was asked, in order."""

    def install(lost: Callable[[Way, Load], int]) -> Measured:
        asked: Measured = []

        def measure(way: Way, directory: str, load: Load, nice: int) -> Result:
            assert (directory, nice) == ("/d", 10)
            asked.append((way.name, load))
            rate = min(1e9 / load.pause_ns, FASTEST) if load.pause_ns else FASTEST
            missing = lost(way, load)
            sent = Sent(load.packets, load.packets / rate, 0.0)
            return Result(sent, Captured(load.packets - missing, missing), Used(0.0, 0.0, 0, 0))

        monkeypatch.setattr(ways, "measure", measure)
        return asked

    return install


def test_a_way_that_has_lost_packets_of_a_burst_is_not_tried_with_more(
    measured: Callable[[Callable[[Way, Load], int]], Measured], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = {"tcpdump": 700, "tcpdump -B 4096": 1400, "kcap": 10_000}
    asked = measured(lambda way, load: max(0, load.packets - room[way.name]))
    monkeypatch.setattr(losses, "BURSTS", {0: (1,), 1000: (600, 800, 1800)})
    lines = list(losses.bursts(FOUND, [1500], "/d", 10))
    assert [load.packets for name, load in asked if name == "tcpdump"] == [600, 800]
    assert [load.packets for name, load in asked if name == "kcap"] == [600, 800, 1800]
    assert {load[1:] for _, load in asked} == {(1500, 0)}
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


@pytest.mark.parametrize("limit", [1_900, 7_000, 33_000])
def test_all_run_at_the_rate_at_which_tcpdump_begins_to_lose_packets_and_above(
    measured: Callable[[Callable[[Way, Load], int]], Measured], limit: int
) -> None:
    def lost(way: Way, load: Load) -> int:
        return 7 if way.name == "tcpdump" and 1e9 / load.pause_ns > limit else 0

    asked = measured(lost)
    lines = list(losses.at_tcpdumps_limit(FOUND, [64], "/d", 2.0, 10))
    found = re.search(r"begins to lose packets at (\d+)", "\n".join(lines))
    assert found is not None
    rate = int(found[1])
    assert limit < rate < limit * losses.CLOSE_ENOUGH + 1
    assert [name for name, _ in asked[-9:]] == ["tcpdump", "tcpdump -B 4096", "kcap"] * 3
    for factor, (_, load) in zip((1.0, 1.1, 1.5), asked[-9::3], strict=True):
        assert 1e9 / load.pause_ns == pytest.approx(rate * factor, rel=1e-3)
        assert load.packets == pytest.approx(2 * rate * factor, rel=1e-3)
    first, kcap = lines[-10], lines[-8]
    assert re.fullmatch(rf"\| 1 \| tcpdump \|.*\| 7 \| \*\*{700 / (2 * rate):.2f} %\*\* \|", first)
    assert re.fullmatch(r"\| 1 \| kcap \|.*\| 0 \| \*\*0.00 %\*\* \|", kcap)


def test_the_search_ends_where_the_generator_cannot_go_faster(
    measured: Callable[[Callable[[Way, Load], int]], Measured],
) -> None:
    measured(lambda way, load: 0)
    lines = list(losses.at_tcpdumps_limit(FOUND, [64], "/d", 2.0, 10))
    assert "tcpdump loses none: the generator sends 100000 packets/s" in lines


@pytest.mark.parametrize(
    ("way", "said", "reported"),
    [
        (
            ways.tcpdump("tcpdump"),
            "10 packets captured\n12 packets received by filter\n2 packets dropped by kernel\n",
            ["2"],
        ),
        (
            ways.kcap("kcap", "net:netif_receive_skb", "a.pcap"),
            "capturing at rawtracepoint:netif_receive_skb\n"
            + "\n".join(summary_lines([PlaceStats("netif_receive_skb", 12, 12, 9, 3)])),
            ["3"],
        ),
    ],
)
def test_what_a_program_says_it_has_lost_is_found(way: Way, said: str, reported: list[str]) -> None:
    assert re.findall(way.losses, said, re.MULTILINE) == reported
