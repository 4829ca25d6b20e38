# SPDX-License-Identifier: Apache-2.0
"""Run the corpus of scripts with kcap and with bpftrace, in one guest, and show where they differ.

    cd tests
    python -m conformance.differential [--kernel 6.12] [--name REGEX] [--results FILE] [--record]

Compared are standard output, standard error and exit status, to the byte; kcap is called
``bpftrace`` for it. Where bpftrace refuses a script, kcap has to refuse it, too; another text in
its message is listed as *wording*. What bpftrace printed is taken from the corpus
(``conformance.corpus``) where it is recorded; ``--fresh`` runs bpftrace, and ``--record`` writes
down what it printed. bpftrace takes seconds to start in an emulated guest: with ``--results``,
each result is kept in a file as it comes, and taken from there the next time.
"""

from __future__ import annotations

import argparse
import difflib
import json
import queue
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conformance.corpus import Case, Result, Subject, output_lines, subjects
from kcap.vm.guest import Guest
from kcap.vm.sources import Share

_TESTS = Path(__file__).resolve().parents[1]


#: A warning about the script with the line that it is about: bpftrace has them on standard output.
_WARNING = re.compile(
    r"^\S+:\d+(?::\d+)?-\d+: WARNING: (?!errorf|warnf)(.*)\n.*\n *~+\n(?:HINT: .*\n)*",
    re.MULTILINE,
)
VERDICTS = ("equal", "order", "warnings", "wording", "documented", "different")


class Comparison(NamedTuple):
    """What became of one case.

    :ivar verdict: ``equal``; ``order``: the same lines in another order (of a map's entries);
        ``warnings``: other warnings about the script; ``wording``: both refuse it, in other words;
        ``documented``: the case says why; ``different``.
    """

    case: Case
    verdict: str
    expected: Result
    found: Result


def compare(case: Case, expected: Result, found: Result) -> Comparison:
    """Compare what bpftrace and kcap did."""
    theirs, ours = case.normalised(expected), case.normalised(found)
    return Comparison(case, _verdict(case, theirs, ours), theirs, ours)


def _verdict(case: Case, theirs: Result, ours: Result) -> str:
    if case.reason:
        return "documented"
    if refused(theirs) and refused(ours):
        return "equal" if theirs == ours else "wording"
    without = [_without_warnings(result) for result in (theirs, ours)]
    if without[0] == without[1]:
        return "equal" if warnings(theirs) == warnings(ours) else "warnings"
    lines = [[sorted(text.splitlines()) for text in result[:3]] for result in without]
    return "order" if lines[0] == lines[1] and theirs.status == ours.status else "different"


def warnings(result: Result) -> set[str]:
    """The warnings about the script."""
    return set(_WARNING.findall(result.stdout + result.stderr))


def _without_warnings(result: Result) -> Result:
    stdout, stderr = (_WARNING.sub("", text) for text in result[:2])
    return result._replace(stdout=stdout, stderr=stderr)


def refused(result: Result) -> bool:
    """Whether a tracer refused the script: an error, and nothing ran."""
    stdout = _without_warnings(result).stdout
    return result.status == 1 and "ERROR: " in result.stderr and not stdout.strip()


def difference(comparison: Comparison) -> list[str]:
    """The difference as lines of a diff: bpftrace's output is the old one."""
    old, new = comparison.expected, comparison.found
    if comparison.verdict != "warnings":
        old, new = _without_warnings(old), _without_warnings(new)
    return list(difflib.unified_diff([*output_lines(old)], [*output_lines(new)], lineterm="", n=1))[
        2:
    ]


def main() -> int:
    """Parse the command line, run, print the table; the exit status."""
    parser = argparse.ArgumentParser(prog="conformance.differential", description=__doc__)
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--name", default="", help="only cases whose full name matches")
    parser.add_argument("--fresh", action="store_true", help="run bpftrace where it is recorded")
    parser.add_argument("--record", action="store_true", help="write down what bpftrace prints")
    parser.add_argument("--no-kcap", action="store_true", help="run bpftrace only")
    parser.add_argument("--results", type=Path, help="keep bpftrace's results there")
    parser.add_argument("--jobs", type=int, default=1, help="how many scripts run at a time")
    arguments = parser.parse_args()
    corpus = subjects()
    chosen = [c for s in corpus for c in s.cases if re.search(arguments.name, c.full_name)]
    known = {} if arguments.fresh else {c: c.expected for c in chosen if c.expected is not None}
    known |= kept(arguments.results, chosen)
    runs = [
        (case, tracer)
        for case in chosen
        for tracer in ("bpftrace", "kcap")
        if (case not in known if tracer == "bpftrace" else not arguments.no_kcap)
    ]
    found: dict[Case, Result] = {}
    comparisons: list[Comparison] = []
    for case, tracer, result in run(arguments.kernel, runs, arguments.jobs):
        (found if tracer == "kcap" else known)[case] = result
        if tracer == "bpftrace":
            keep(arguments.results, case, result)
        if case in found and case in known:
            comparisons.append(compare(case, known[case], found[case]))
            show(comparisons[-1])
    comparisons.sort(key=lambda each: chosen.index(each.case))
    if arguments.record:
        for subject in corpus:
            record(subject, known)
    return report(comparisons)


def keep(path: Path | None, case: Case, result: Result) -> None:
    """Append a result of bpftrace's to a file."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps([case._replace(expected=None), result]) + "\n")


def kept(path: Path | None, cases: list[Case]) -> dict[Case, Result]:
    """The results that a file has for cases."""
    if path is None or not path.exists():
        return {}
    rows = (json.loads(line) for line in path.read_text().splitlines())
    results = {json.dumps(case): Result(*result) for case, result in rows}
    keys = {json.dumps(case._replace(expected=None)): case for case in cases}
    return {case: results[key] for key, case in keys.items() if key in results}


def run(kernel: str, runs: list[tuple[Case, str]], jobs: int) -> Iterator[tuple[Case, str, Result]]:
    """Run cases with tracers in a guest.

    :param jobs: how many at a time.
    """
    rows: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    shares = [Share(_TESTS, "/root/runner", False)]
    if any(tracer == "bpftrace" for _, tracer in runs):
        sys.path.append(str(_TESTS.parent))
        from benchmarks.guest import peers

        shares.append(Share(peers.bpftrace(say), peers.BPFTRACE_ROOT, False))
    work = [(i, case._replace(expected=None), name) for i, (case, name) in enumerate(runs)]
    with Guest(kernel, shares=shares, progress=say) as guest:
        guest.put(json.dumps(work).encode(), "/root/cases.json")
        command = guest.start(
            ["python3", "-m", "conformance.differential_in_guest", "/root/cases.json", str(jobs)],
            cwd="/root/runner",
            on_stdout=rows.put,
            on_stderr=lambda data: print(data.decode(errors="replace"), end="", file=sys.stderr),
        )
        pending, left = b"", len(runs)
        while left:
            *lines, pending = (pending + rows.get()).split(b"\n")
            for line in lines:
                row = json.loads(line)
                case, tracer = runs[row["index"]]
                say(f"{row['seconds']:6.2f} s  {tracer:8}  {case.full_name}")
                yield case, tracer, Result(*row["result"])
                left -= 1
        command.wait()


def record(subject: Subject, known: dict[Case, Result]) -> None:
    """Write what bpftrace printed into a file of the corpus."""
    cases = tuple(
        case._replace(expected=case.normalised(known[case])) if case in known else case
        for case in subject.cases
    )
    if cases != subject.cases:
        subject.path.write_text(subject._replace(cases=cases).text())


def show(comparison: Comparison) -> None:
    """Print a difference, if there is one."""
    if comparison.verdict != "equal":
        name = f"{comparison.verdict}: {comparison.case.full_name}"
        print(name, *difference(comparison), "", sep="\n", flush=True)


def report(comparisons: list[Comparison]) -> int:
    """Print a table; the exit status: 1 where kcap differs without a reason."""
    print(f"| subject | scripts | {' | '.join(VERDICTS)} |")
    print("|---" * (len(VERDICTS) + 2) + "|")
    for subject in [*dict.fromkeys(each.case.subject for each in comparisons), "together"]:
        rows = [each for each in comparisons if subject in (each.case.subject, "together")]
        counts = [sum(each.verdict == verdict for each in rows) for verdict in VERDICTS]
        print(f"| {subject} | {len(rows)} | {' | '.join(map(str, counts))} |")
    return 1 if any(each.verdict == "different" for each in comparisons) else 0


def say(text: str) -> None:
    """Show a step on standard error."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
