# SPDX-License-Identifier: Apache-2.0
"""How long a start takes before anything is loaded into the kernel, with and without the cache.

Runs anywhere, without root: parse, check, generate, compile. Each way is run in turn, in processes
of their own (A B A B), and compared by its CPU time, the compiler's process included. Prints
medians in milliseconds, and each way's part of the first::

    python benchmarks/startup.py [--rounds 7] ['SCRIPT' ...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

SOURCE = Path(__file__).resolve().parents[1] / "src"
SCRIPTS = (
    "begin { exit() }",
    "interval:s:1 { @[comm] = count(); }",
    'interval:s:1 { printf("%d %s\\n", pid, comm); @a[tid] = nsecs; @h = hist(@a[tid]); }',
)

WAY = """
import os, sys, time
started, wall = time.process_time(), time.monotonic()
import kcap.cli.main, kcap.cli.script, kcap.output.text, kcap.output.writer, kcap.session.trace
from kcap.session.preparation import Preparation
from kcap.session.script import Options
phases = [("import", time.process_time() - started)]
def timed(name, work):
    before = time.process_time()
    result = work()
    phases.append((name, time.process_time() - before))
    return result
with Preparation(Options(cached=sys.argv[2] == "cached")) as preparation:
    checked = timed("check", lambda: preparation.check(sys.argv[1], "stdin"))
    timed("compile", lambda: checked.generate(objects=preparation.objects))
spent = os.times()
phases.append(("all", spent.user + spent.system + spent.children_user + spent.children_system))
phases.append(("wall", time.monotonic() - wall))
print(*(f"{name}={1000 * seconds:.3f}" for name, seconds in phases))
"""


def once(script: str, way: str, cache: str) -> dict[str, float]:
    """One start; milliseconds by phase."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "KCAP_CACHE": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    words = [sys.executable, "-c", WAY, script, way]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return {
        name: float(value)
        for name, _, value in (part.partition("=") for part in done.stdout.split())
    }


def compare(script: str, rounds: int) -> None:
    """Print a table for one script."""
    runs: dict[str, list[dict[str, float]]] = {"uncached": [], "cached": []}
    with tempfile.TemporaryDirectory() as cache:
        for way in runs:
            once(script, way, cache)  # bytecode, page cache, object
        for _ in range(rounds):
            for way, found in runs.items():
                found.append(once(script, way, cache))
    print(script)
    names = list(runs["uncached"][0])
    print(f"{'':12}" + "".join(f"{name:>10}" for name in names) + "   all, ratio")
    first = median(run["all"] for run in runs["uncached"])
    for way, found in runs.items():
        values = [median(run[name] for run in found) for name in names]
        ratio = median(run["all"] for run in found) / first
        print(f"{way:12}" + "".join(f"{value:10.1f}" for value in values) + f"   {ratio:.2f}")
    print()


def main() -> None:
    """Compare for each script of the command line, or for the built-in ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("scripts", nargs="*", default=SCRIPTS)
    arguments = parser.parse_args()
    for script in arguments.scripts:
        compare(script, arguments.rounds)


if __name__ == "__main__":
    main()
