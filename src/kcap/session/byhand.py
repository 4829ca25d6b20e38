# SPDX-License-Identifier: Apache-2.0
"""Running ``test`` and ``bench`` probes by hand (BPF_PROG_TEST_RUN), one after another.

Raw tracepoint programs can't be run repeatedly with one call, nor does the kernel time them
(bpf_prog_test_run_raw_tp refuses ``repeat``): they are run one by one, and the time comes from the
statistics that the kernel keeps of programs, which leave out the system call.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kcap.functions import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kcap.kernel.programs import Program
    from kcap.session.programs import LoadedScript
    from kcap.session.runtime import Runtime

    Read = Callable[[], Iterable[object]]

#: A benchmark ends after so many seconds or runs, whichever comes first.
BENCH_SECONDS = 0.5
BENCH_RUNS = 100_000
#: The rings are emptied after so many runs.
_BATCH = 256


def run_tests(loaded: LoadedScript, read: Read, runtime: Runtime) -> Iterator[object]:
    """Run every ``test`` probe once; what a test printed comes with its result.

    A test fails when it returns something other than 0, reports an error (``errorf()``, a failing
    helper), or asks for an exit status other than 0. ``runtime.exit_status`` is 1 then.

    :param read: what is in the rings now.
    """
    failed: list[str] = []
    yield from read()  # what begin printed
    tests = list(_programs(loaded, "test"))
    yield events.SuiteStarted(len(tests))
    for name, program in tests:
        yield events.CaseStarted(name)
        runtime.exit_status = None
        began = time.monotonic_ns()
        returned = program.run()
        took = time.monotonic_ns() - began
        printed = list(read())
        reason = _failure(returned, printed, runtime.exit_status)
        if reason:
            failed.append(name)
        yield events.CaseResult(name, reason, took, printed)
    yield events.SuiteEnded(len(tests), failed)
    runtime.exit_status = 1 if failed else 0


def _failure(returned: int, printed: list[object], status: int | None) -> str:
    """Why a test failed; '' if it passed."""
    errors = sum(
        isinstance(event, events.HelperError)
        or (isinstance(event, events.Message) and event.severity == "error")
        for event in printed
    )
    if errors:
        return f"{errors} error{'s' if errors > 1 else ''}"
    if status:
        return f"exit({status})"
    return f"returned {returned}" if returned else ""


def run_benchmarks(loaded: LoadedScript, read: Read, runtime: Runtime) -> Iterator[object]:
    """Run every ``bench`` probe many times; yields what that took. What they print is dropped.

    :raises SyscallError: the kernel keeps no statistics (5.8, CAP_SYS_ADMIN).
    """
    from kcap.kernel.info import Statistics

    yield from read()  # what begin printed
    with Statistics():
        results = [_benchmark(name, program, read) for name, program in _programs(loaded, "bench")]
    runtime.exit_status = None
    yield events.Benchmarks(results)


def _benchmark(name: str, program: Program, read: Read) -> events.Benchmark:
    from kcap.kernel.info import program_runs

    before = program_runs(program.fileno())
    end = time.monotonic() + BENCH_SECONDS
    runs = 0
    while runs < BENCH_RUNS and time.monotonic() < end:
        for _ in range(_BATCH):
            program.run()
        runs += _BATCH
        for _ in read():
            pass
    after = program_runs(program.fileno())
    count = after.runs - before.runs
    return events.Benchmark(name, (after.nanoseconds - before.nanoseconds) // (count or 1), count)


def _programs(loaded: LoadedScript, provider: str) -> Iterator[tuple[str, Program]]:
    """(name as the script has it, program) of the probes of a kind, in the script's order."""
    for probe in loaded.probes:
        context = probe.compiled.context
        if context.provider == provider:
            for _, program in probe.programs:
                yield str(context.targets[0]), program
