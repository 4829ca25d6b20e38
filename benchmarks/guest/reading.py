# SPDX-License-Identifier: Apache-2.0
"""The reader: what an event that is printed costs the tracer, and how many it loses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from benchmarks.guest.events import dd
from benchmarks.guest.rows import Figures, Row, in_turn
from benchmarks.guest.tracers import Run, Tracer, cpu_of

GROUP = "reader"
EVENTS = 20_000
SCRIPTS = {
    "`%d`": 'fentry:vfs_read /comm == "dd"/ { printf("%d\\n", pid); }',
    "`%d %s %lld %x`": (
        'fentry:vfs_read /comm == "dd"/ '
        '{ printf("%d %-16s %lld %x\\n", pid, comm, nsecs, args.count); }'
    ),
}


def printing(tracer: Tracer, script: str, *options: str) -> Figures:
    """Let the workload make events; the tracer's CPU time for each that it printed."""
    with Run(tracer, script, *options) as run:
        run.attached()
        time.sleep(0.5)
        run.read()
        before = run.cpu()
        started = time.monotonic()
        cpu_of(dd(EVENTS))
        last = time.monotonic()
        while time.monotonic() - last < 1.0:
            if run.read():
                last = time.monotonic()
            time.sleep(0.05)
        spent = run.cpu() - before
        run.stop()
        printed = run.text().count(b"\n")
        return {
            ("CPU an event", "ns"): 1e9 * spent / max(printed, 1),
            ("printed", "of 20k"): min(printed, EVENTS),
            ("until the last", "s"): last - started,
        }


def rows(tracers: Sequence[Tracer], rounds: int) -> Iterator[Row]:
    """Text and JSON."""
    for name, script in SCRIPTS.items():
        for form in ("text", "json"):
            work = printing, script, "-f", form
            yield from in_turn(GROUP, f"{name}, {form}", tracers, rounds, *work, warm_up=False)
