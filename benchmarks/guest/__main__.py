# SPDX-License-Identifier: Apache-2.0
"""kcap and its peers, in turn on the same work, in one guest: a table of ratios, and JSON.

Boots a guest (docs/guests.md) with bpftrace of Debian forky beside kcap, runs each piece of work
with each of them in turn (A B A B), and prints medians, the spread and ratios. The guest's clock
moves on by a nanosecond with each instruction (and with the time that it waits idle), so that
results depend neither on what else this machine does nor on the emulator's ways: "1 s" is 10⁹
instructions. ``--clock wall`` takes time as it passes, by KVM where that works::

    python -m benchmarks.guest [--kernel 6.12] [--rounds 5] [--groups start,event] [--json FILE]

``--peer NAME=COMMAND`` adds a tracer that takes scripts as ``-e SCRIPT``, from a directory given
by ``--share``. ``--inside`` measures on the machine that it is started on, as root: hardware of
your own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.guest.peers import BPFTRACE_ROOT

ROOT = Path(__file__).resolve().parents[2]
IN_GUEST = "/mnt/benchmarks"
GROUPS = ("start", "event", "reader", "scale")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--clock", choices=("counted", "wall"), default="counted", help="see above")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--case", default="", help="only cases that this matches (re)")
    parser.add_argument("--most-fentry", type=int, default=1000, help="functions, for scale")
    parser.add_argument("--json", type=Path, help="default: build/bench-KERNEL.json")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--share", action="append", default=[], metavar="DIR")
    parser.add_argument("--inside", action="store_true", help="measure on this machine")
    return parser.parse_args()


def outside(arguments: argparse.Namespace) -> int:
    """Boot a guest and measure there."""
    from benchmarks.guest import peers
    from kcap.vm.guest import Guest
    from kcap.vm.sources import Share, share

    target = arguments.json or ROOT / f"build/bench-{arguments.kernel}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    shares = [
        Share(ROOT / "benchmarks", f"{IN_GUEST}/benchmarks", bring_back=False),
        Share(peers.bpftrace(progress), BPFTRACE_ROOT, bring_back=False),
        *(share(each) for each in arguments.share),
    ]
    words = ["python3", "-m", "benchmarks.guest", "--inside", "--json=/root/results.json"]
    words += [f"--rounds={arguments.rounds}", f"--groups={arguments.groups}"]
    words += [f"--case={arguments.case}", f"--most-fentry={arguments.most_fentry}"]
    words += [f"--peer={peer}" for peer in arguments.peer]
    with Guest(
        arguments.kernel,
        shares=shares,
        processors=arguments.cpus,
        counted=arguments.clock == "counted",
        progress=progress,
    ) as guest:
        result = guest.run(
            words,
            cwd=IN_GUEST,
            on_stdout=lambda data: write(1, data),
            on_stderr=lambda data: write(2, data),
        )
        if result.status == 0:
            guest.get("/root/results.json", target)
            progress(f"results: {target}")
    return result.status


def inside(arguments: argparse.Namespace) -> int:
    """Measure on this machine."""
    from benchmarks.guest import events, reading, rows, scale, start, tracers

    ways = [tracers.kcap(), tracers.kcap("kcap --no-cache", "--no-cache")]
    if os.path.isdir(f"{BPFTRACE_ROOT}/usr"):
        ways.append(tracers.bpftrace())
    for peer in arguments.peer:
        name, _, command = peer.partition("=")
        ways.append(tracers.Tracer(name, tuple(shlex.split(command))))
    reference = ways[2].name if len(ways) > 2 else ways[0].name
    cached = [way for way in ways if "no-cache" not in way.name]
    rounds, few = arguments.rounds, min(arguments.rounds, 2)
    most = {"kprobe": 1000, "fentry": arguments.most_fentry}
    made = {
        "start": lambda: start.rows(ways, rounds),
        "event": lambda: events.rows(cached, rounds),
        "reader": lambda: reading.rows(cached, rounds),
        "scale": lambda: scale.rows(cached, few, most),
    }
    facts = {
        "kernel": os.uname().release,
        "CPUs": os.cpu_count(),
        "Python": sys.version.split()[0],
        "versions": {way.name: tracers.version(way) for way in ways},
    }
    print("; ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    rows.wanted = re.compile(arguments.case).search
    found: list[rows.Row] = []

    def all_rows() -> Iterator[rows.Row]:
        for group in arguments.groups.split(","):
            for row in made[group]():
                found.append(row)
                yield row

    for line in rows.lines(all_rows(), [way.name for way in ways], reference):
        print(line, flush=True)
    if arguments.json:
        results = {**facts, "rows": [row._asdict() for row in found]}
        arguments.json.write_text(json.dumps(results, indent=1))
    return 0


def progress(text: str) -> None:
    """Show a step that takes time."""
    print(f"benchmarks: {text}", file=sys.stderr, flush=True)


def write(descriptor: int, data: bytes) -> None:
    """Pass on what the guest writes."""
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    arguments = parse()
    sys.exit(inside(arguments) if arguments.inside else outside(arguments))
