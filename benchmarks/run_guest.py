# SPDX-License-Identifier: Apache-2.0
"""How long starts take on a real kernel, kcap and others in turn on the same work (A B A B).

Boots a guest (see docs/guests.md) and runs every way once to warm up, then ``--rounds`` times in
turn; prints medians, the spread and the ratio to the first way. Absolute times of an emulated guest
mean nothing: only ratios do. A peer is a name and what starts it in the guest, where the script
follows as ``-e SCRIPT``::

    python benchmarks/run_guest.py [--kernel 7.2] [--rounds 5] [--share DIR] [--peer NAME=COMMAND]

``--inside`` runs on the machine that it is started on, as root: there, or on hardware of your own.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parents[1]
KCAP = f"{sys.executable} -m kcap"

#: What is started: each ends by itself.
SCRIPTS = {
    "begin": "begin { exit() }",
    "printf": 'begin { printf("%d\\n", pid); exit() }',
    "fentry": "fentry:vfs_read { @ = count(); } interval:ms:1 { exit() }",
    "kprobe": "kprobe:vfs_read { @ = count(); } interval:ms:1 { exit() }",
    "tracepoint": "tracepoint:sched:sched_switch { @ = count(); } interval:ms:1 { exit() }",
}


def start(words: list[str], script: str) -> float:
    """Seconds from the start of a command to its end.

    :raises subprocess.CalledProcessError: it fails.
    """
    before = time.monotonic()
    subprocess.run([*words, "-e", script], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - before


def inside(peers: dict[str, str], rounds: int, names: list[str]) -> Iterator[dict[str, Any]]:
    """Measure on this machine; a row for each script and way."""
    for name in names:
        script = SCRIPTS[name]
        times: dict[str, list[float]] = {peer: [] for peer in peers}
        for turn in range(rounds + 1):
            for peer, command in peers.items():
                spent = start(shlex.split(command), script)
                if turn:
                    times[peer].append(spent)
        first = median(next(iter(times.values())))
        for peer, found in times.items():
            middle = median(found)
            yield {
                "script": name,
                "peer": peer,
                "median": middle,
                "least": min(found),
                "most": max(found),
                "ratio": middle / first,
            }


def table(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print the rows as they come; all of them."""
    print(f"kernel {os.uname().release}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}")
    print(f"{'script':12}{'way':18}{'median s':>9}{'least':>8}{'most':>8}{'ratio':>7}", flush=True)
    shown = []
    for row in rows:
        line = "{script:12}{peer:18}{median:9.3f}{least:8.3f}{most:8.3f}{ratio:7.2f}"
        print(line.format(**row), flush=True)
        shown.append(row)
    return shown


def main() -> int:
    """Boot a guest and measure there, or here with ``--inside``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--share", action="append", default=[], metavar="DIR")
    parser.add_argument("--only", action="append", choices=list(SCRIPTS), help="this script")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, too")
    parser.add_argument("--inside", action="store_true")
    arguments = parser.parse_args()
    if not arguments.inside:
        shares = [f"--share={each}" for each in (str(ROOT), *arguments.share)]
        words = [
            *shlex.split(KCAP),
            "vm",
            "run",
            "--quiet",
            f"--kernel={arguments.kernel}",
            *shares,
        ]
        words += ["--", sys.executable, __file__, "--inside", f"--rounds={arguments.rounds}"]
        words += [f"--peer={peer}" for peer in arguments.peer] + ["--json"] * arguments.json
        words += [f"--only={name}" for name in arguments.only or ()]
        return subprocess.run(words, check=False).returncode
    peers = {"kcap, cached": KCAP, "kcap --no-cache": f"{KCAP} --no-cache"}
    peers |= dict(peer.split("=", 1) for peer in arguments.peer)
    rows = table(inside(peers, arguments.rounds, arguments.only or list(SCRIPTS)))
    if arguments.json:
        print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
