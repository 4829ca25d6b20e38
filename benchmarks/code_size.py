# SPDX-License-Identifier: Apache-2.0
"""How many BPF instructions common one-liners come to, before the kernel rewrites them.

Runs anywhere, without root. With the path of a bpftrace its counts stand beside kcap's: that needs
root, since bpftrace compiles only what it could attach, and the functions and types of the running
kernel. Instructions of callbacks count, too::

    python benchmarks/code_size.py [--bpftrace /usr/bin/bpftrace] ['SCRIPT' ...]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from kcap.errors import KcapError
from kcap.session import script

#: Any machine's kernel can check these: no types, no functions.
SCRIPTS = (
    "begin { exit() }",
    "interval:s:1 { @ = count(); }",
    "interval:s:1 { @[comm] = count(); }",
    "interval:s:1 { @x[pid] += 1; }",
    "interval:s:1 { @x[pid] = @x[pid] + 1; }",
    "interval:s:1 { @x[pid]++; }",
    "interval:s:1 { @x = 1; }",
    "interval:s:1 { @start[tid] = nsecs; }",
    "interval:s:1 { @s[tid] = 1; } interval:s:1 /@s[tid]/ { @h = hist(@s[tid]); delete(@s, tid); }",
    "interval:s:1 { @ = sum(nsecs); }",
    "interval:s:1 { @[tid] = lhist(nsecs, 0, 1000, 10); }",
    'interval:s:1 { printf("%d %s\\n", pid, comm); }',
    'interval:s:1 { printf("%d\\n", pid); printf("%d\\n", tid); printf("%d\\n", uid); }',
    "interval:s:1 { @[kstack] = count(); }",
    "interval:s:1 { print((pid, comm)); }",
)
_LINE = re.compile(r"^\s*\d+: ", re.MULTILINE)


def kcap_count(text: str) -> int:
    """Instructions of all programs of a script.

    :raises KcapError: it can't be compiled.
    """
    compiled = script.compile(text).generate()
    return sum(len(program.spec.insns) // 8 for program in compiled.programs)


def bpftrace_count(path: str, text: str) -> int:
    """The same of bpftrace: the lines of its disassembly (``-d dis``).

    :raises OSError: it can't be started.
    """
    done = subprocess.run(
        [path, "-d", "dis", "-e", text], capture_output=True, text=True, check=False
    )
    return len(_LINE.findall(done.stdout))


def main() -> None:
    """Print a table for the scripts of the command line, or for the built-in ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--bpftrace", default="", help="a bpftrace to compare with")
    parser.add_argument("scripts", nargs="*", default=SCRIPTS)
    arguments = parser.parse_args()
    print(f"{'kcap':>6}" + (f"{'bpftrace':>10}{'ratio':>7}" if arguments.bpftrace else ""))
    for text in arguments.scripts:
        try:
            ours = kcap_count(text)
        except KcapError as error:
            print(f"{'-':>6}  {text}: {error}")
            continue
        beside = ""
        if arguments.bpftrace:
            theirs = bpftrace_count(arguments.bpftrace, text)
            beside = f"{theirs:10}{ours / theirs:7.2f}" if theirs else f"{'-':>10}{'-':>7}"
        print(f"{ours:6}{beside}  {text}")


if __name__ == "__main__":
    main()
