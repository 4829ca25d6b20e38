# SPDX-License-Identifier: Apache-2.0
"""The guest's side of ``conformance.differential``: runs scripts with kcap or with bpftrace.

kcap is forked from this process, which has it loaded; bpftrace is started as a program. Both run in
the guest's own root file system: bpftrace by its own dynamic linker with its own libraries, so that
what it starts and looks at is what kcap starts and looks at.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from conformance.corpus import Case, Result
from conformance.in_guest import NOTIFY, run_here, warm_up

#: Where scripts run, in directories that are empty before each of them.
PLACE = Path("/tmp/differential")
BPFTRACE_ROOT = Path("/mnt/bpftrace")
#: Seconds after which a tracer that has not ended is asked to (SIGINT), and then made to.
LIMIT, GRACE = 400.0, 30.0

Start = Callable[[list[str], dict[str, str]], None]


def run_case(case: Case, start: Start, limit: float = LIMIT) -> Result:
    """Run a case with one of the tracers.

    :param start: becomes the tracer, in a child process: gets its arguments and environment.
    :param limit: seconds after which it is ended.
    """
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    for command in case.before:
        subprocess.run(["sh", "-c", command], cwd=PLACE, check=True)
    variables, arguments, stdin = _command_line(case)
    pid = _fork(case, lambda: start(arguments, variables), stdin)
    try:
        status = _follow(case, pid, limit)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    stdout, stderr, file = map(_text, ("stdout", "stderr", case.file))
    return Result(stdout.replace(f"{NOTIFY}\n", ""), stderr, file, status)


def _command_line(case: Case) -> tuple[dict[str, str], list[str], str]:
    """The environment's variables, the arguments, and what stands on standard input."""
    words = shlex.split(case.words)
    variables = {"PATH": os.environ["PATH"], "HOME": "/root", "LC_ALL": "C.UTF-8"}
    while words and words[0].partition("=")[0].isidentifier() and "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    if case.work:
        variables[NOTIFY] = "1"
    arguments: list[str] = []
    for word in words:
        if word == "{}":
            arguments += ["-e", case.script]
        elif word == "{file}":
            (PLACE / "script.bt").write_text(f"{case.script}\n")
            arguments.append("script.bt")
        else:
            arguments.append(word)
    return variables, arguments, case.script if "-" in words else ""


def _fork(case: Case, become: Callable[[], None], stdin: str) -> int:
    (PLACE / "stdin").write_text(stdin)
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.chdir(PLACE)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        os.dup2(os.open("stdin", os.O_RDONLY), 0)
        os.dup2(os.open("stdout", flags), 1)
        os.dup2(os.open("stderr", flags), 2)
        os.closerange(3, 64)
        become()
    except BaseException as error:
        os.write(2, f"runner: {error!r}\n".encode())
    finally:
        os._exit(125)


def _follow(case: Case, pid: int, limit: float) -> int | None:
    """Wait until the tracer ends, doing the case's work when its probes are attached."""
    work: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + limit
    for number in (0, signal.SIGINT, signal.SIGKILL):
        if number:
            os.killpg(pid, number)
            deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status) if not number else None
            if case.work and work is None and f"{NOTIFY}\n" in _text("stdout"):
                command = "\n".join(case.work)
                environment = {**os.environ, "PID": str(pid)}
                work = subprocess.Popen(
                    ["sh", "-c", command], cwd=PLACE, env=environment, stdout=subprocess.DEVNULL
                )
            time.sleep(0.02)
    return None


def _text(name: str) -> str:
    try:
        return (PLACE / name).read_bytes().decode("utf-8", "surrogateescape") if name else ""
    except FileNotFoundError:
        return ""


def become_kcap(arguments: list[str], variables: dict[str, str]) -> None:
    """Be kcap under bpftrace's name: its messages are bpftrace's then."""
    os.environ.clear()
    os.environ.update(variables)
    os._exit(run_here(arguments))


def become_bpftrace(arguments: list[str], variables: dict[str, str]) -> None:
    """Be bpftrace."""
    libraries = BPFTRACE_ROOT / "usr/lib/x86_64-linux-gnu"
    linker = PLACE.with_name("bpftrace")  # its name becomes the process's
    with contextlib.suppress(FileExistsError):
        linker.symlink_to(libraries / "ld-linux-x86-64.so.2")
    program = ["--library-path", str(libraries), str(BPFTRACE_ROOT / "usr/bin/bpftrace")]
    os.execve(linker, [str(linker), *program, *arguments], variables)


def run_all(runs: list[tuple[int, list[Any], str]], queue: int) -> None:
    """Run cases whose places in the list come from a pipe: a line of JSON for each run."""
    starts: dict[str, Start] = {"kcap": become_kcap, "bpftrace": become_bpftrace}
    while place := os.read(queue, 4):
        index, fields, tracer = runs[int.from_bytes(place)]
        started = time.monotonic()
        result = run_case(Case(*fields), starts[tracer])
        row = {"index": index, "tracer": tracer, "result": result}
        row["seconds"] = round(time.monotonic() - started, 2)
        with open("/tmp/differential.lock", "w") as lock:  # long lines must not mix
            fcntl.flock(lock, fcntl.LOCK_EX)
            print(json.dumps(row), flush=True)


def main(words: Sequence[str]) -> int:
    """Run the cases of a file, some at a time: ``differential_in_guest FILE JOBS``."""
    global PLACE
    runs, jobs = json.loads(Path(words[0]).read_text()), int(words[1])
    warm_up()
    queue, fill = os.pipe()
    os.write(fill, b"".join(place.to_bytes(4) for place in range(len(runs))))
    os.close(fill)
    children = []
    for job in range(jobs):
        child = os.fork()
        if not child:
            PLACE = Path(f"{PLACE}{job}")
            run_all(runs, queue)
            os._exit(0)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
