# SPDX-License-Identifier: Apache-2.0
"""The tables of the page on performance say what the results of the runs say."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.guest import tables
from benchmarks.guest.rows import Row

FACTS = {
    "kernel": "6.12.1",
    "CPUs": 1,
    "Python": "3.11.7",
    "versions": {"kcap": "kcap v1", "bpftrace": "bpftrace v0.27.0"},
}


def row(case: str, measure: str, unit: str, ours: list[float], theirs: list[float]) -> Row:
    values = {"kcap": ours, **({"bpftrace": theirs} if theirs else {})}
    return Row("scale", case, measure, unit, "bpftrace", values)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory of results."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    tables.runs.cache_clear()
    yield tmp_path
    tables.runs.cache_clear()


def write(directory: Path, kernel: str, *rows: Row, cases: Sequence[str] = ()) -> None:
    facts = {**FACTS, "cases": cases}
    data = {"facts": facts, "rows": [each._asdict() for each in rows], "missing": {}}
    (directory / f"{kernel}.json").write_text(json.dumps(data))


def test_a_cell_has_the_median_ratio_on_each_kernel_bold_where_it_is_what_was_aimed_at(
    results: Path,
) -> None:
    write(results, "6.12", row("many", "both", "s", [1.0, 1.2, 5.0], [3.0, 3.0, 3.0]))
    write(results, "7.2", row("many", "both", "s", [2.0], [2.5]))
    assert list(tables.table("scale")) == [
        "| scale | both (≤ 0.5) | bpftrace, both |",
        "|---|---|---|",
        "| many | **0.40** / 0.80 | 3 s / 2.5 s |",
    ]
    assert list(tables.shortfalls())[2:] == ["- many, both, on 7.2: 0.80 instead of 0.5"]


def test_a_case_that_a_run_lacks_has_a_dash_for_it_and_a_group_is_named(results: Path) -> None:
    write(results, "6.12", row("many", "both", "s", [1.0], [4.0]))
    write(results, "7.2", row("few", "both", "s", [1.0], [2.0]))
    assert list(tables.table("scale"))[2:] == [
        "| many | **0.25** / - | 4 s / - |",
        "| few | - / **0.50** | - / 2 s |",
    ]
    assert list(tables.table("reader")) == ["Not measured in these runs."]
    assert (
        next(iter(tables.shortfalls()))
        == "- not measured on 6.12: start, cold start, event, code, reader, packets"
    )


def test_a_case_that_a_run_did_not_come_to_is_named(results: Path) -> None:
    wanted = ["scale: many", "scale: more", "reader: text"]
    write(results, "6.12", row("many", "both", "s", [1.0], [4.0]), cases=wanted)
    assert list(tables.shortfalls()) == [
        "- not measured on 6.12: start, cold start, event, code, reader, packets, scale: more"
    ]


def test_a_bar_in_a_case_does_not_end_its_cell(results: Path) -> None:
    write(results, "6.12", row("`/a || b/`", "both", "s", [1.0], [4.0]))
    assert list(tables.table("scale"))[2] == "| `/a \\|\\| b/` | **0.25** | 4 s |"


def test_what_the_peer_cannot_do_is_shown_as_it_is(results: Path) -> None:
    write(
        results,
        "6.12",
        row("map", "memory", "KiB", [30720.0], [61440.0]),
        row("alone", "memory", "KiB", [20480.0], []),
    )
    assert list(tables.table("scale"))[2:] == [
        "| map | **0.50** | 60 MiB |",
        "| alone | 20 MiB | - |",
    ]


def test_the_run_is_described_with_the_spread_of_its_rounds(results: Path) -> None:
    write(results, "6.12", row("many", "both", "s", [1.0, 1.0, 1.1], [2.0, 2.0, 2.0]))
    assert list(tables.facts()) == [
        "- 6.12: kernel 6.12.1, 1 CPU, Python 3.11.7, kcap v1, bpftrace v0.27.0; up to 3 rounds, "
        "whose ratios were 10.0 % from their median, at most 10 %"
    ]


def test_without_results_nothing_is_said_of_them(results: Path) -> None:
    assert list(tables.shortfalls()) == []
