# SPDX-License-Identifier: Apache-2.0
"""What bpftrace 0.27 printed for the scripts of the corpus, and what kcap prints: the same.

Run on the BPF machine, so only scripts that need no kernel; the others run in guests, by
``python -m conformance.differential`` (docs/conformance.md). One process is forked for each.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from conformance import differential_in_guest
from conformance.corpus import Case, subjects
from conformance.differential import compare, difference
from support import emulated

SUBJECTS = ("functions", "language", "maps", "printf", "values")
#: Scripts that ask the kernel for something, or trace it.
NEED_A_KERNEL = frozenset(
    {
        "functions: begin's builtins to strncmp",
        "functions: join to macaddr of something else",
        "functions: probe of a tracepoint",
        "functions: probe of fentry and old names",
        "functions: probe of kprobes",
        "functions: unwatch to reading the wrong memory quietly",
        "language: nothing left to attach",
        "maps: a time series",
        "maps: a time series in JSON",
        "maps: increments to ksym as a key",
        "maps: kaddr's symbol to a bitwise mix of widths",
        "maps: time series by key",
        "values: a struct printed",
        "values: the kernel's banner",
    }
)
CASES = [
    case
    for subject in subjects()
    if subject.path.stem in SUBJECTS
    for case in subject.cases
    if case.expected is not None and not case.reason and case.full_name not in NEED_A_KERNEL
]


def become_kcap(arguments: list[str], variables: dict[str, str]) -> None:
    """Be kcap under bpftrace's name, without a kernel."""
    os.environ.clear()
    os.environ.update(variables)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", closefd=False) for fd in (1, 2))
    status = emulated.run(arguments, "bpftrace")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.full_name)
def test_kcap_prints_what_bpftrace_printed(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(differential_in_guest, "PLACE", tmp_path / "place")
    assert case.expected is not None
    compared = compare(case, case.expected, differential_in_guest.run_case(case, become_kcap))
    assert compared.verdict != "different", "\n".join(difference(compared))
