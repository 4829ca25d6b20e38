# SPDX-License-Identifier: Apache-2.0
"""What an event costs: time in the BPF program (bpf_stats), the slowdown of who is traced, and
how many instructions the kernel runs (xlated)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from benchmarks.guest import programs
from benchmarks.guest.rows import Case, Figures
from benchmarks.guest.tracers import FailedError, Run, Tracer, cpu_of

GROUP = "event"
#: dd reads a byte and writes a byte, this many times.
READS = 6_000
#: What the types of probes are compared by.
COUNTED = "`@ = count()`, "
SCRIPTS = {
    f"{COUNTED}fentry": "fentry:vfs_read { @ = count(); }",
    f"{COUNTED}kprobe": "kprobe:vfs_read { @ = count(); }",
    f"{COUNTED}tracepoint": "tracepoint:syscalls:sys_enter_read { @ = count(); }",
    f"{COUNTED}rawtracepoint": "rawtracepoint:sys_enter { @ = count(); }",
    "`@[comm] = count()`": "fentry:vfs_read { @[comm] = count(); }",
    "`@[pid] = sum(args.count)`": "fentry:vfs_read { @[pid] = sum(args.count); }",
    "`@ = hist(args.count)`": "fentry:vfs_read { @ = hist(args.count); }",
    "`@start[tid]` pairs": (
        "fentry:vfs_read { @start[tid] = nsecs; } "
        "fexit:vfs_read /@start[tid]/ { @ = hist(nsecs - @start[tid]); delete(@start, tid); }"
    ),
    "`printf`": 'fentry:vfs_read { printf("%d %s\\n", pid, comm); }',
    "`@[kstack] = count()`": "fentry:vfs_read { @[kstack] = count(); }",
    "predicate": 'fentry:vfs_read /comm == "nobody"/ { @[pid] = count(); }',
}


def dd(reads: int = READS) -> list[str]:
    """The workload: many short system calls and next to nothing else."""
    return ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={reads}", "status=none"]


def cost(tracer: Tracer, script: str) -> Figures:
    """Run the workload under a script, once for the statistics and once for its slowdown.

    The programs are found as those that came with the tracer.
    """
    before = set(programs.loaded())
    with Run(tracer, script) as run:
        run.attached()
        time.sleep(0.2)
        slowed = cpu_of(dd())
        run.read()
        with programs.statistics():
            cpu_of(dd())
        found = [each for number, each in programs.loaded().items() if number not in before]
        run.read()
        run.stop()
    plain = cpu_of(dd())
    busy = [each for each in found if each.runs >= READS]
    if not busy:
        raise FailedError("no program ran as often as the workload read")
    spent = sum(each.time for each in busy)
    return {
        ("BPF time", "ns"): spent / max(each.runs for each in busy),
        ("slowdown", "ns"): 1e9 * (slowed - plain) / READS,
        ("xlated", "insns"): sum(each.xlated for each in busy),
        ("native", "bytes"): sum(each.native for each in busy),
    }


def cases(tracers: Sequence[Tracer]) -> Iterator[Case]:
    """A case a script."""
    for name, script in SCRIPTS.items():
        yield Case(GROUP, name, tracers, cost, (script,))
