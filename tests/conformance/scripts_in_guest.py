# SPDX-License-Identifier: Apache-2.0
"""The guest's side of trying scripts: ``scripts_in_guest DIR REGEX``; a JSON line for each.

Every script is checked, compiled, loaded and attached with ``--dry-run``. Those whose output has a
known shape also run for a few seconds beside some work, and have to print that shape.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from conformance.in_guest import Process, run_here, warm_up
from support import silent

#: How long a script runs at least, and at most until it has printed what it should, in seconds.
ENOUGH, PATIENCE = 3.0, 12.0

_TIME = r"\d\d:\d\d:\d\d"
_ADDRESS = r"[0-9a-f.:]+"
_HISTOGRAM = r"^[\[(]\S+.*\s\d+ \|@*\s*\|$"
#: What the scripts print under the work below: patterns of lines.
SHAPES = {
    "opensnoop": (r"^PID    COMM +FD +ERR PATH$", r"^\d+ +\S.* +\d+ +0 /tmp/kcap-scripts/file$"),
    "execsnoop": (r"^TIME +PID +PPID +ARGS$", rf"^{_TIME}\.\d+ \d+ +\d+ +/bin/true one two$"),
    "biolatency": (r"^@usecs:", _HISTOGRAM),
    "runqlat": (r"^@usecs:", _HISTOGRAM),
    "tcpconnect": (
        r"^TIME +PID +COMM +SADDR +SPORT +DADDR +DPORT +$",
        rf"^{_TIME} \d+ +\S.* 127\.0\.0\.1 +\d+ +127\.0\.0\.1 +\d+ +$",
        rf"^{_TIME} \d+ +\S.* ::1 +\d+ +::1 +\d+ +$",
    ),
    "tcpaccept": (
        r"^TIME +PID +COMM +RADDR +RPORT +LADDR +LPORT +BL$",
        rf"^{_TIME} \d+ +\S.* 127\.0\.0\.1 +\d+ +127\.0\.0\.1 +\d+ +\d+/\d+$",
        rf"^{_TIME} \d+ +\S.* ::1 +\d+ +::1 +\d+ +\d+/\d+$",
    ),
    "tcpdrop": (
        r"^TIME +PID +COMM +SADDR:SPORT +DADDR:DPORT +STATE",
        rf"^{_TIME} \d+ +\S.* {_ADDRESS}:\d+ +10\.99\.0\.2:\d+ +SYN_SENT +$\n^$\n^ +\w+\+\d+$",
    ),
    "tcpretrans": (
        r"^TIME +PID +LADDR:LPORT +RADDR:RPORT +STATE$",
        rf"^{_TIME} \d+ +{_ADDRESS}:\d+ +10\.99\.0\.3:\d+ +SYN_SENT$",
    ),
    "syscount": (r"^Top 10 syscalls IDs:\n@syscall\[\d+\]: \d+", r"^@process\[.+\]: \d+$"),
    "vfsstat": (rf"^{_TIME}\n@\[vfs_\w+\]: \d+$", r"^@\[vfs_open\]: \d+$"),
}  # fmt: skip


class Work:
    """Files, programs and connections, for scripts to see."""

    def __init__(self) -> None:
        self._directory = Path("/tmp/kcap-scripts")
        self._directory.mkdir(exist_ok=True)
        self._lost: list[socket.socket] = []
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        silent.make("kcap-s")

    def do(self) -> None:
        """Some of everything."""
        with open(self._directory / "file", "wb", buffering=0) as file:
            file.write(os.urandom(8192))
            os.fsync(file.fileno())
        subprocess.run(["/bin/true", "one", "two"], check=True)
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            self._connect(family, address)
        if not self._lost:
            for address in (silent.UNREACHABLE, silent.SILENT):
                lost = socket.socket()
                lost.setblocking(False)
                lost.connect_ex((address, 81))
                self._lost.append(lost)

    def _connect(self, family: socket.AddressFamily, address: str) -> None:
        with socket.socket(family) as server, socket.socket(family) as client:
            server.bind((address, 0))
            server.listen(5)
            client.connect(server.getsockname())
            server.accept()[0].close()

    def done(self) -> None:
        """Give up the connections that nobody answers."""
        for each in self._lost:
            each.close()
        self._lost.clear()


def start(arguments: list[str]) -> Process:
    """kcap with these arguments, as a fork of this process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 125
        try:
            os.setsid()
            for target in (1, 2):
                os.dup2(write, target)
            os.close(read)
            status = run_here(arguments)
        finally:
            os._exit(status)
    os.close(write)
    return Process(pid, read)


def dry_run(path: Path) -> str:
    """Load and attach a script; '' or what is wrong."""
    process = start(["--dry-run", "--unsafe", str(path)])
    try:
        end = time.monotonic() + 120.0
        while not process.ended() and time.monotonic() < end:
            process.read(0.2)
        process.stop()
    finally:
        process.close()
    return "" if process.status == 0 else f"exit status {process.status}: {process.output}"


def shape(path: Path, work: Work) -> str:
    """Run a script until it has printed its shape; '' or what is wrong."""
    process = start([str(path)])
    wanted = SHAPES[path.stem]
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not process.ended():
            if "Attached " in process.output:
                work.do()
            if time.monotonic() > end - PATIENCE + ENOUGH and _printed(wanted, process.output):
                break
            while process.read(0.1):
                pass
        process.stop((signal.SIGINT, signal.SIGKILL))
    finally:
        work.done()
        process.close()
    missing = [each for each in wanted if not re.search(each, process.output, re.M)]
    if process.status != 0:
        return f"exit status {process.status}: {process.output}"
    return f"printed no {missing[0]}: {process.output[-3000:]}" if missing else ""


def _printed(wanted: tuple[str, ...], output: str) -> bool:
    return all(re.search(each, output, re.M) for each in wanted)


def main() -> int:
    """Try the scripts of a directory."""
    directory, wanted = Path(sys.argv[1]), re.compile(sys.argv[2])
    warm_up()
    work = Work()
    tries: list[tuple[Path, str, Callable[[Path], str]]] = [
        (path, "dry-run", dry_run) for path in sorted(directory.glob("*.bt"))
    ]
    tries += [(p, "shape", lambda p: shape(p, work)) for p, *_ in tries if p.stem in SHAPES]
    for path, what, attempt in tries:
        if not wanted.search(f"{what}.{path.stem}"):
            continue
        started = time.monotonic()
        why = attempt(path)
        row = {"test": f"{what}.{path.stem}", "status": "fail" if why else "pass", "why": why}
        row["seconds"] = f"{time.monotonic() - started:.1f}"
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
