# SPDX-License-Identifier: Apache-2.0
"""Run bpftrace's runtime tests with kcap in a guest.

    cd tests && python -m conformance [--kernel 6.12] [--suites a,b] [--name REGEX]
        [--expected TSV] DIR

DIR is the ``tests`` folder of a bpftrace checkout; where tests need bpftrace's test programs, they
have to be built in ``DIR/testprogs`` already. With a table of what bpftrace itself passes, tests
that only kcap fails are listed at the end, and the exit status says whether there are any.

    cd tests && python -m conformance --scripts [--kernel 6.12] [--name REGEX] DIR

With ``--scripts``, DIR is a folder of scripts (bpftrace's ``tools``): each is loaded and attached,
and those that ``scripts_in_guest.SHAPES`` knows run beside some work and have to print their shape.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from conformance import tools
from kcap.vm.guest import Guest
from kcap.vm.sources import Share

#: What ``REQUIRES_FEATURE`` asks for and kcap has on the kernels that the guests run.
FEATURES = (
    *("loop", "probe_read_kernel", "btf", "fentry", "dpath", "signal", "iter", "libpath_resolv"),
    *("dwarf", "kprobe_multi", "uprobe_multi", "skboutput", "get_tai_ns", "get_func_ip"),
    *("jiffies64", "lookup_percpu_elem", "kprobe_session", "dwunwind", "blazesym"),
)
_TESTS = Path(__file__).resolve().parents[1]
_LAUNCHER = b"""\
#!/usr/bin/env python3
import sys
from kcap.cli.main import main
sys.exit(main())
"""


def main() -> int:
    """Parse the command line, run, print the table; the exit status."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--scripts", action="store_true", help="DIR holds scripts, not suites")
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--suites", default="")
    parser.add_argument("--name", default="", help="only tests whose full name matches")
    parser.add_argument("--expected", type=Path, help="a table: test, tab, pass|fail|skip")
    parser.add_argument("--json", type=Path, help="write every result there, a line each")
    arguments = parser.parse_args()
    results = _run(arguments)
    if arguments.json:
        arguments.json.write_text("".join(f"{json.dumps(row)}\n" for row in results))
    return _report(results, arguments.expected)


def _run(arguments: argparse.Namespace) -> list[dict[str, object]]:
    results: list[dict[str, object]] = []
    pending = b""

    def take(data: bytes) -> None:
        nonlocal pending
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            row = json.loads(line)
            results.append(row)
            print(
                f"{row['status']:4} {row['seconds']:6} s  {row['test']}  {row['why']}", flush=True
            )

    def complain(data: bytes) -> None:
        sys.stderr.buffer.write(data)

    programs = tools.share(print)
    shares = [
        Share(arguments.directory.resolve(), "/root/tests", False),
        Share(_TESTS, "/root/runner", False),
        programs,
    ]
    with Guest(arguments.kernel, shares=shares, progress=print) as guest:
        guest.put(_LAUNCHER, "/usr/local/bin/bpftrace", mode=0o755)
        for name, text in tools.launchers(programs.directory).items():
            guest.put(text, f"/usr/local/bin/{name}", mode=0o755)
        guest.run(["sh", "-c", tools.link_headers()])
        module, words = "in_guest", [",".join(FEATURES), arguments.suites, arguments.name]
        if arguments.scripts:
            module, words = "scripts_in_guest", [arguments.name]
        guest.start(
            ["python3", "-m", f"conformance.{module}", "/root/tests", *words],
            cwd="/root/runner",
            on_stdout=take,
            on_stderr=complain,
        ).wait()
    return results


def _report(results: list[dict[str, object]], expected: Path | None) -> int:
    counts = dict.fromkeys(("pass", "fail", "skip"), 0)
    for row in results:
        counts[str(row["status"])] += 1
    print(f"\n{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped")
    if expected is None:
        return 1 if counts["fail"] else 0
    table = dict(
        line.split("\t")[:2]
        for line in expected.read_text().splitlines()
        if line and not line.startswith("#")
    )
    behind = [
        row for row in results if row["status"] != "pass" and table.get(str(row["test"])) == "pass"
    ]
    print(f"{len(behind)} that bpftrace passes and kcap does not:")
    for row in behind:
        print(f"  {row['status']} {row['test']}: {str(row['why'])[:200]}")
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(main())
