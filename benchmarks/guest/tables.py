# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/performance.md, from the results of the last runs (``benchmarks/results``).

A cell has a figure for each kernel, in the order of :data:`KERNELS`: kcap's median in parts of the
peer's, bold where it is what was aimed at. ``tools/update_docs.py`` writes the tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.guest import events, rows

RESULTS = Path(__file__).resolve().parents[1] / "results"
KERNELS = ("6.12", "7.2")
FRESH = "kcap --no-cache"
NOTHING = "-"


class Column(NamedTuple):
    """A column of ratios.

    :ivar head: what it is called.
    :ivar measure: what of each case it shows.
    :ivar aim: at most so much of the peer's; None where nothing was aimed at.
    :ivar tracer: whose.
    """

    head: str
    measure: str
    aim: float | None = None
    tracer: str = "kcap"


class Table(NamedTuple):
    """A table.

    :ivar group: whose cases are its lines.
    :ivar head: what the lines are.
    :ivar columns: the ratios.
    :ivar peers: measures of which the peer's own figures are shown.
    """

    group: str
    head: str
    columns: tuple[Column, ...]
    peers: tuple[str, ...]


_STARTS = (
    Column("attached, from cache", "to attached", 0.5),
    Column("to exit, from cache", "to exit", 0.5),
    Column("attached, `--no-cache`", "to attached", 1, FRESH),
    Column("to exit, `--no-cache`", "to exit", 1, FRESH),
)
TABLES = {
    "starts": Table(
        "start",
        "start",
        (*_STARTS, Column("memory", "memory", 1)),
        ("to attached", "to exit", "memory"),
    ),
    "cold starts": Table(
        "cold start",
        "start, page cache cold",
        (
            Column("CPU, from cache", "CPU", 0.5),
            Column("read from disk, from cache", "read", 0.5),
            Column("CPU, `--no-cache`", "CPU", 1, FRESH),
            Column("read from disk, `--no-cache`", "read", 1, FRESH),
        ),
        ("CPU", "read"),
    ),
    "events": Table(
        "event",
        "an event (`vfs_read` by dd)",
        (
            Column("BPF run time", "BPF time", 1),
            Column("slowdown of dd", "slowdown"),
            Column("instructions as loaded", "xlated", 1),
        ),
        ("BPF time", "slowdown", "xlated"),
    ),
    "code": Table(
        "code",
        "a program",
        (Column("instructions as loaded", "xlated", 1),),
        ("xlated",),
    ),
    "reader": Table(
        "reader",
        "reader",
        (
            Column("CPU an event", "CPU an event", 1),
            Column("until the last is printed", "until the last"),
            Column("events a second", "printed"),
        ),
        ("CPU an event", "until the last", "printed"),
    ),
    "packets": Table(
        "packets",
        "a packet to a file",
        (
            Column("pcap", "CPU a packet", 0.5, "kcap, pcap"),
            Column("pcapng", "CPU a packet", 0.5, "kcap, pcapng"),
            Column("pcap, at a kprobe", "CPU a packet", 0.5, "kcap, kprobe"),
            Column("pcap, in user space", "in user space", 1.0, "kcap, pcap"),
            Column("pcapng, in user space", "in user space", 1.0, "kcap, pcapng"),
        ),
        ("CPU a packet", "in user space"),
    ),
    "scale": Table(
        "scale",
        "scale",
        (
            Column("attach", "attach"),
            Column("detach", "detach"),
            Column("both", "both", 0.5),
            Column("whole run", "whole run"),
            Column("list", "list"),
            Column("memory", "memory", 1),
        ),
        ("both", "attach", "whole run", "list", "memory"),
    ),
}


class Run(NamedTuple):
    """The results of a run on one kernel."""

    kernel: str
    facts: Mapping[str, Any]
    results: rows.Results


@cache
def runs() -> tuple[Run, ...]:
    """The runs whose results are there."""
    found = []
    for kernel in KERNELS:
        file = RESULTS / f"{kernel}.json"
        if file.exists():
            data = json.loads(file.read_text(encoding="utf-8"))
            found.append(Run(kernel, data["facts"], rows.Results(data)))
    return tuple(found)


def table(name: str) -> Iterator[str]:
    """A table's lines."""
    form = TABLES[name]
    if not _cases(form.group):
        yield "Not measured in these runs."
        return
    columns = [column for column in form.columns if any(_ratios(form.group, column))]
    heads = [_head(column) for column in columns]
    measures = [measure for measure in form.peers if _peer_figures(form.group, measure)]
    peer = _peer(form.group)
    heads += [f"{peer}, {measure}" for measure in measures]
    yield f"| {' | '.join([form.head, *heads])} |"
    yield "|---" * (1 + len(heads)) + "|"
    for case in _cases(form.group):
        cells = [case.replace("|", "\\|")]
        cells += [_ratio_cell(form.group, case, column) for column in columns]
        cells += [_cell(form.group, case, measure, peer) for measure in measures]
        yield f"| {' | '.join(cells)} |"


def probe_types() -> Iterator[str]:
    """What ``@ = count()`` costs who is traced, by the type of probe."""
    peer = _peer("event")
    yield f"| probe | slowdown | its BPF program | {peer}'s slowdown |"
    yield "|---|---|---|---|"
    for case in _cases("event"):
        if case.startswith(events.COUNTED):
            probe = events.SCRIPTS[case].split()[0]
            cells = [
                _cell("event", case, "slowdown", "kcap"),
                _cell("event", case, "BPF time", "kcap"),
                _cell("event", case, "slowdown", peer),
            ]
            yield f"| `{probe}` | {' | '.join(cells)} |"


def shortfalls() -> Iterator[str]:
    """A line for each figure that is not what was aimed at."""
    some = False
    for run in runs():
        left_out = _left_out(run)
        if left_out:
            some = True
            yield f"- not measured on {run.kernel}: {', '.join(left_out)}"
    for form in TABLES.values():
        for column in form.columns:
            for run, row, ratio in _ratios(form.group, column):
                if column.aim is not None and round(ratio, 2) > column.aim:
                    some = True
                    yield (
                        f"- {row.case}, {column.head}, on {run.kernel}: {ratio:.2f} "
                        f"instead of {column.aim:g}"
                    )
    if not some and runs():
        yield "None: every figure is what was aimed at."


def _left_out(run: Run) -> list[str]:
    """The groups and, of others, the cases that a run did not come to."""
    done = run.results.cases
    groups = {row.group for row in run.results.rows}
    absent = [form.group for form in TABLES.values() if form.group not in groups]
    cases = [case for case in run.facts.get("cases", ()) if case not in done]
    return absent + [case for case in cases if case.partition(":")[0] not in absent]


def facts() -> Iterator[str]:
    """What was measured with what, and how far rounds differed."""
    for run in runs():
        versions = run.facts["versions"]
        yield (
            f"- {run.kernel}: kernel {run.facts['kernel']}, {run.facts['CPUs']} CPU, Python "
            f"{run.facts['Python']}, {versions['kcap']}, {versions.get('bpftrace', 'no bpftrace')};"
            f" {_rounds(run)}"
        )


def _rounds(run: Run) -> str:
    told = [row for row in run.results.rows if rows.ratio(row, "kcap") is not None]
    count = max((len(row.values["kcap"]) for row in told), default=0)
    if count < 2:
        return "one round"
    spreads = [rows.spread(row, "kcap") for row in told if len(row.values["kcap"]) > 1]
    return (
        f"up to {count} rounds, whose ratios were {100 * median(spreads):.1f} % from their median, "
        f"at most {100 * max(spreads):.0f} %"
    )


def _head(column: Column) -> str:
    return column.head if column.aim is None else f"{column.head} (≤ {column.aim:g})"


def _rows(group: str) -> Iterator[tuple[Run, rows.Row]]:
    for run in runs():
        for row in run.results.rows:
            if row.group == group:
                yield run, row


def _cases(group: str) -> list[str]:
    return list(dict.fromkeys(row.case for _, row in _rows(group)))


def _peer(group: str) -> str:
    return next((row.peer for _, row in _rows(group)), "peer")


def _ratios(group: str, column: Column) -> Iterator[tuple[Run, rows.Row, float]]:
    for run, row in _rows(group):
        found = rows.ratio(row, column.tracer) if row.measure == column.measure else None
        if found is not None:
            yield run, row, found


def _ratio_cell(group: str, case: str, column: Column) -> str:
    """The ratio on each kernel; the figure itself where the peer has none."""
    return _joined(group, case, column.measure, lambda row: _ratio(row, column))


def _ratio(row: rows.Row, column: Column) -> str:
    found = rows.ratio(row, column.tracer)
    if found is None:
        return _figure(row, column.tracer)
    met = column.aim is not None and round(found, 2) <= column.aim
    return f"**{found:.2f}**" if met else f"{found:.2f}"


def _cell(group: str, case: str, measure: str, tracer: str) -> str:
    """A tracer's own figure on each kernel."""
    return _joined(group, case, measure, lambda row: _figure(row, tracer))


def _figure(row: rows.Row, tracer: str) -> str:
    values = row.values.get(tracer)
    return _shown(median(values), row.unit) if values else NOTHING


def _joined(group: str, case: str, measure: str, show: Callable[[rows.Row], str]) -> str:
    """What there is to show of each run, one behind the other; nothing if there is nothing."""
    found = []
    for run in runs():
        wanted = (group, case, measure)
        row = next((each for each in run.results.rows if each[:3] == wanted), None)
        found.append(NOTHING if row is None else show(row))
    return " / ".join(found) if set(found) != {NOTHING} else NOTHING


def _peer_figures(group: str, measure: str) -> bool:
    return any(row.measure == measure and row.peer in row.values for _, row in _rows(group))


def _shown(value: float, unit: str) -> str:
    """A figure with a unit that makes it short."""
    if unit == "KiB":
        return f"{value / 1024:.0f} MiB"
    if unit == "ns" and value >= 10_000:
        return f"{rows.number(value / 1000)} µs"
    return f"{rows.number(value)} {unit}"
