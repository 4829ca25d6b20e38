# SPDX-License-Identifier: Apache-2.0
"""The reader: what an event that is printed costs the tracer, and how many it loses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from benchmarks.guest.events import dd
from benchmarks.guest.rows import Case, Figures
from benchmarks.guest.tracers import Run, Tracer, cpu_of

GROUP = "reader"
EVENTS = 20_000
#: More than fit into the ring between two looks at it.
BURST = 200_000
SCRIPTS = {
    "`%d`": 'fentry:vfs_read /comm == "dd"/ { printf("%d\\n", pid); }',
    "`%d %s %lld %x`": (
        'fentry:vfs_read /comm == "dd"/ '
        '{ printf("%d %-16s %lld %x\\n", pid, comm, nsecs, args.count); }'
    ),
}


def printing(tracer: Tracer, script: str, form: str) -> Figures:
    """Let the workload make events; the tracer's CPU time for each that it printed."""
    spent, printed, seconds = _printed(tracer, script, form, EVENTS)
    return {
        ("CPU an event", "ns"): 1e9 * spent / max(printed, 1),
        ("lost", "events"): EVENTS - printed,
        ("until the last", "s"): seconds,
    }


def keeping_up(tracer: Tracer, script: str, form: str) -> Figures:
    """Let the workload make events as fast as it can: how many a second come through."""
    _, printed, seconds = _printed(tracer, script, form, BURST)
    return {("printed", "events/s"): printed / seconds, ("lost", "events"): BURST - printed}


def _printed(tracer: Tracer, script: str, form: str, events: int) -> tuple[float, int, float]:
    """The tracer's CPU seconds, how many events it printed, and how long that took."""
    with Run(tracer, script, "-f", form) as run:
        run.attached()
        time.sleep(0.5)
        run.read()
        before = run.cpu()
        started = time.monotonic()
        cpu_of(dd(events))
        last = time.monotonic()
        while time.monotonic() - last < 1.0:
            if run.read():
                last = time.monotonic()
            time.sleep(0.05)
        spent = run.cpu() - before
        run.stop()
        printed = min(run.text().count(b"\n"), events)
        return spent, printed, last - started


def cases(tracers: Sequence[Tracer]) -> Iterator[Case]:
    """Text and JSON, and one more than the ring can hold."""
    for name, script in SCRIPTS.items():
        for form in ("text", "json"):
            yield Case(GROUP, f"{name}, {form}", tracers, printing, (script, form))
    name = next(iter(SCRIPTS))
    yield Case(GROUP, f"{name}, keeping up", tracers, keeping_up, (SCRIPTS[name], "text"), rounds=2)
