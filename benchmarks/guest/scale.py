# SPDX-License-Identifier: Apache-2.0
"""Scale: hundreds of functions attached and detached, large maps, long scripts, memory."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence

from benchmarks.guest.rows import Case, Figures
from benchmarks.guest.tracers import Run, Tracer, output_of

GROUP = "scale"
ROUNDS = 2
KEYS = 100_000
#: Families of functions that an idle guest hardly calls, to make up sets of a size from.
_FAMILIES = (
    "udp", "tcp", "ipv6", "inet6", "ip6", "nf", "netlink", "genl", "rtnl", "neigh", "fib", "ext4",
    "jbd2", "xfrm", "snd", "pci", "acpi", "crypto", "scsi", "ata", "usb", "pcie", "tty", "uart",
    "blkcg", "blk", "elv", "ethtool", "devlink", "bpf", "perf", "trace", "tracing", "kvm", "drm",
)  # fmt: skip


@functools.cache
def functions(wanted: int) -> list[str]:
    """Wildcards that match about this many functions, by what the kernel says it can trace."""
    counts = dict.fromkeys(_FAMILIES, 0)
    with open("/sys/kernel/tracing/available_filter_functions", encoding="ascii") as file:
        for line in file:
            family = line.partition("_")[0]
            if family in counts and "[" not in line:
                counts[family] += 1
    chosen, total = [], 0
    for family, count in sorted(counts.items(), key=lambda item: -item[1]):
        if count and total + count <= wanted:
            chosen.append(f"{family}_*")
            total += count
    return chosen


def attaching(tracer: Tracer, kind: str, wanted: int) -> Figures:
    """Attach to many functions, and detach."""
    points = ",".join(f"{kind}:{wildcard}" for wildcard in functions(wanted))
    with Run(tracer, f"{points} {{ @ = count(); }}") as run:
        seconds = run.attached()
        peak = run.memory()
        ending = run.stop()
        return {
            ("attach", "s"): seconds,
            ("detach", "s"): ending,
            ("both", "s"): seconds + ending,
            ("memory", "KiB"): peak,
        }


def printing(tracer: Tracer) -> Figures:
    """Fill a map with many keys, and print it at the end."""
    script = (
        f"config = {{ max_map_keys = {KEYS + 10} }} "
        f"begin {{ for $i : 0..{KEYS} {{ @[$i] = $i; }} }} interval:ms:1 {{ exit() }}"
    )
    with Run(tracer, script) as run:
        run.wait()
        return {
            ("whole run", "s"): run.seconds,
            ("CPU", "s"): run.usage.cpu,
            ("memory", "KiB"): run.usage.peak,
            ("printed", "lines"): run.text().count(b"@["),
        }


def long_script() -> str:
    """2,000 lines: 20 probes of 98 statements each."""
    statements = [
        "  @count[comm, {n}] = count();",
        "  $x{n} = pid + {n};",
        "  if ($x{n} > {n}) {{ @over[$x{n}] = nsecs; }}",
        "  @sum[tid] = sum($x{n});",
    ]
    lines = []
    for probe in range(20):
        lines.append(f"interval:s:{1000 + probe} {{")
        lines += [statements[n % 4].format(n=n // 4) for n in range(98)]
        lines.append("}")
    return "\n".join(lines)


def starting(tracer: Tracer, script: str) -> Figures:
    """Attach a long script."""
    with Run(tracer, script) as run:
        seconds = run.attached()
        peak = run.memory()
        run.stop()
        return {
            ("attach", "s"): seconds,
            ("memory", "KiB"): peak,
            ("largest process", "KiB"): run.usage.peak,
        }


def listing(tracer: Tracer, *options: str) -> Figures:
    """List probes."""
    before = time.monotonic()
    text = output_of(tracer, *options)
    return {
        ("list", "s"): time.monotonic() - before,
        ("listed", "lines"): text.count("\n"),
    }


def cases(tracers: Sequence[Tracer]) -> Iterator[Case]:
    """What can be had in minutes."""
    yield _attaching("kprobe", 1000, tracers)
    yield _attaching("fentry", 100, tracers)
    yield Case(GROUP, f"map of {KEYS} keys", tracers, printing, rounds=ROUNDS)
    text = long_script()
    yield Case(GROUP, "2,000 lines", tracers, starting, (text,), rounds=ROUNDS)
    for words in (("-l", "kprobe:*"), ("-lv", "fentry:*")):
        yield Case(GROUP, " ".join(words), tracers, listing, words, rounds=ROUNDS)


def more_cases(tracers: Sequence[Tracer], most: int) -> Iterator[Case]:
    """The other numbers of functions.

    :param most: to so many functions at most by fentry.
    """
    yield _attaching("kprobe", 100, tracers)
    yield _attaching("kprobe", 500, tracers)
    for wanted in (500, 1000):
        if wanted <= most:
            yield _attaching("fentry", wanted, tracers)


def _attaching(kind: str, wanted: int, tracers: Sequence[Tracer]) -> Case:
    name = f"{wanted} functions, {kind}"
    return Case(GROUP, name, tracers, attaching, (kind, wanted), rounds=ROUNDS)
