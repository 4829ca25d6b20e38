# SPDX-License-Identifier: Apache-2.0
"""kcap and its peers, in turn on the same work, in one guest: a table of ratios, and JSON.

Boots a guest (docs/guests.md) with bpftrace of Debian forky beside kcap, runs each piece of work
with each of them, round after round (A B A B), and prints medians, the spread and ratios. The
guest's clock moves on by a nanosecond with each instruction (and with the time that it waits
idle), so that results depend neither on what else this machine does nor on the emulator's ways:
"1 s" is 10⁹ instructions. ``--clock wall`` takes time as it passes, by KVM where that works::

    python -m benchmarks.guest [--kernel 6.12] [--rounds 1] [--minutes 30] [--groups start,event]

The run ends after so many rounds, or after ``--minutes``, wherever it is then. The results go to
``benchmarks/results/KERNEL.json`` (``--json``) after every case; ``tools/update_docs.py`` makes the
tables of docs/performance.md from the files that are there.

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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.guest import rows, tables
from benchmarks.guest.peers import BPFTRACE_ROOT

if TYPE_CHECKING:
    from benchmarks.guest.rows import Case
    from benchmarks.guest.tracers import Tracer

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"
IN_GUEST = "/mnt/benchmarks"
#: In this order, so that what matters most is there if the time is up. Cold starts empty the page
#: cache.
GROUPS = (
    "start", "event", "reader", "scale", "packets", "code", "cold start", "more scale",
)  # fmt: skip


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--clock", choices=("counted", "wall"), default="counted", help="see above")
    parser.add_argument("--rounds", type=int, default=1, help="at most; 3 for --clock wall")
    parser.add_argument("--minutes", type=float, default=30, help="see above")
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--case", default="", help="only cases that this matches (re)")
    parser.add_argument(
        "--most-fentry", type=int, default=1000, help="functions by fentry, for scale"
    )
    parser.add_argument("--json", type=Path, help="default: see above")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--share", action="append", default=[], metavar="DIR")
    parser.add_argument("--inside", action="store_true", help="measure on this machine")
    parser.add_argument("--turn", type=int, help="only this round (with --inside)")
    return parser.parse_args()


def outside(arguments: argparse.Namespace) -> int:
    """Boot a guest and measure there."""
    from benchmarks.guest import peers
    from kcap.vm.guest import Guest
    from kcap.vm.sources import Share, share

    shares = [
        Share(ROOT / "benchmarks", f"{IN_GUEST}/benchmarks", bring_back=False),
        Share(peers.bpftrace(progress), BPFTRACE_ROOT, bring_back=False),
        *(share(each) for each in arguments.share),
    ]
    words = ["python3", "-m", "benchmarks.guest", "--inside"]
    words += [f"--groups={arguments.groups}", f"--case={arguments.case}"]
    words += [f"--most-fentry={arguments.most_fentry}"]
    words += [f"--peer={peer}" for peer in arguments.peer]
    record = Record(arguments)
    with Guest(
        arguments.kernel,
        shares=shares,
        processors=arguments.cpus,
        counted=arguments.clock == "counted",
        progress=progress,
    ) as guest:
        for turn in range(arguments.rounds):
            lines = Lines(record.take)
            command = guest.start(
                [*words, f"--turn={turn}"],
                cwd=IN_GUEST,
                on_stdout=lines.feed,
                on_stderr=lambda data: write(2, data),
            )
            try:
                command.wait(record.seconds_left())
            except TimeoutError:
                progress(f"the time is up in round {turn + 1}")
                break
    return record.show()


class Record:
    """The results so far: in a file, after each case."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._target = arguments.json or RESULTS / f"{arguments.kernel}.json"
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._facts: dict[str, Any] = {"clock": arguments.clock}
        self._results = rows.Results()
        self._started = time.monotonic()

    def take(self, data: dict[str, Any]) -> None:
        """Take what :func:`measured` tells of the machine or of a case."""
        self._facts.update(data.get("facts", {}))
        self._results.merge(data)
        whole = {"facts": self._facts, **self._results.data()}
        self._target.write_text(json.dumps(whole, indent=1) + "\n")
        for case in rows.Results(data).cases:
            progress(f"{time.monotonic() - self._started:.0f} s: {case}")

    def seconds_left(self) -> float:
        """Until ``--minutes`` are over."""
        minutes: float = self._arguments.minutes
        return max(0.0, self._started + 60 * minutes - time.monotonic())

    def show(self) -> int:
        """Print the tables; the exit status."""
        told = {name: value for name, value in self._facts.items() if name != "cases"}
        print("; ".join(f"{name} {value}" for name, value in told.items()))
        for line in rows.lines(self._results):
            print(line)
        return 0


class Lines:
    """Takes bytes as they come; hands on each line of JSON, and shows what else is said."""

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take some bytes."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            if line.startswith(b"{"):
                self._take(json.loads(line))
            else:
                progress(line.decode(errors="replace"))


def inside(arguments: argparse.Namespace) -> int:
    """Measure on this machine: all rounds, or one for a process outside, which is told in lines of
    JSON."""
    if arguments.turn is not None:
        for data in measured(arguments, arguments.turn):
            print(json.dumps(data), flush=True)
        return 0
    record = Record(arguments)
    for turn in range(arguments.rounds):
        for data in measured(arguments, turn):
            record.take(data)
            if not record.seconds_left():
                return record.show()
    return record.show()


def measured(arguments: argparse.Namespace, turn: int) -> Iterator[dict[str, Any]]:
    """A round: the facts about this machine, then what each case came to."""
    from benchmarks.guest import tracers

    ways = all_tracers(arguments)
    cases = list(wanted_cases(arguments, ways))
    facts = {
        "kernel": os.uname().release,
        "CPUs": os.cpu_count(),
        "Python": sys.version.split()[0],
        "versions": {way.name: tracers.version(way) for way in ways if way.name != tables.FRESH},
        "cases": list(dict.fromkeys(case.title for case in cases)),
    }
    yield {"facts": facts, **rows.Results().data()}
    prime(ways)
    for case in cases:
        yield rows.take_turn(case, turn).data()


def all_tracers(arguments: argparse.Namespace) -> list[Tracer]:
    """kcap in its ways, bpftrace where there is one, and those of the command line; the last is
    the one that the others are compared with."""
    from benchmarks.guest import tracers

    ways = [tracers.kcap(), tracers.kcap(tables.FRESH, "--no-cache")]
    for peer in arguments.peer:
        name, _, command = peer.partition("=")
        ways.append(tracers.Tracer(name, tuple(shlex.split(command))))
    if os.path.isdir(f"{BPFTRACE_ROOT}/usr"):
        ways.append(tracers.bpftrace())
    return ways


def prime(ways: list[Tracer]) -> None:
    """Start each once, which brings it into the page cache."""
    from benchmarks.guest import start

    for way in ways:
        if way.name != tables.FRESH:  # its files are kcap's
            start.whole(way, start.WHOLE["begin"])


def wanted_cases(arguments: argparse.Namespace, ways: list[Tracer]) -> Iterator[Case]:
    """The cases that the command line asks for."""
    from benchmarks.guest import code, events, packets, reading, scale, start

    wanted = arguments.groups.split(",")
    cached = [way for way in ways if way.name != tables.FRESH]
    made: dict[str, Callable[[], Iterator[Case]]] = {
        start.GROUP: lambda: start.warm_cases(ways),
        events.GROUP: lambda: events.cases(cached),
        code.GROUP: lambda: code.cases(cached),
        reading.GROUP: lambda: reading.cases(cached),
        packets.GROUP: packets.cases,
        scale.GROUP: lambda: scale.cases(cached),
        start.COLD: lambda: start.cold_cases(ways, warm_up=start.GROUP not in wanted),
        "more scale": lambda: scale.more_cases(cached, arguments.most_fentry),
    }
    for group in wanted:
        yield from (case for case in made[group]() if re.search(arguments.case, case.name))


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
