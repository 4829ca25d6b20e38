# SPDX-License-Identifier: Apache-2.0
"""Starting tracers in the guest, waiting until they are attached, ending them, what they took."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, NamedTuple

from benchmarks.guest.peers import BPFTRACE_ROOT

#: kcap and bpftrace print this line once all probes are attached, if a variable says so.
NOTIFY = "__BPFTRACE_NOTIFY_PROBES_ATTACHED"
#: How long a tracer may take to attach or to end, in seconds.
PATIENCE = 400.0
#: Room for what a tracer prints while its workload runs, and nobody reads.
PIPE_BYTES = 8 << 20


class Tracer(NamedTuple):
    """A way to run scripts.

    :ivar name: what tables call it.
    :ivar command: the words that a script follows (``-e SCRIPT``).
    :ivar root: the root directory it runs in, or ''.
    :ivar learns: it keeps something from the first run of a script for those that follow.
    """

    name: str
    command: tuple[str, ...]
    root: str = ""
    learns: bool = False


class Usage(NamedTuple):
    """What a process took when it had ended.

    :ivar cpu: seconds of user and system time, its children included.
    :ivar peak: the largest of its processes, in KiB.
    :ivar read: KiB that were read from disks for it.
    """

    cpu: float
    peak: int
    read: float


class FailedError(Exception):
    """A tracer did not do what was asked; the message is the last line of what it said."""


def kcap(name: str = "kcap", *options: str) -> Tracer:
    """This kcap, as it is installed."""
    installed = shutil.which("kcap")
    command = (installed,) if installed else (sys.executable, "-m", "kcap")
    return Tracer(name, (*command, *options), learns=not options)


def bpftrace() -> Tracer:
    """The bpftrace of the disk that the guest was given; its root is made ready."""
    for name in ("sys", "proc", "dev", "tmp"):
        target = f"{BPFTRACE_ROOT}/{name}"
        if not os.path.ismount(target):
            subprocess.run(["mount", "--rbind", f"/{name}", target], check=True)
    return Tracer("bpftrace", ("/usr/bin/bpftrace",), BPFTRACE_ROOT)


def version(tracer: Tracer) -> str:
    """What it says of its version."""
    return output_of(tracer, "--version").strip()


def output_of(tracer: Tracer, *words: str) -> str:
    """What it prints, given some words."""
    done = subprocess.run(
        [*tracer.command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        preexec_fn=entering(tracer.root),
    )
    return done.stdout


class Run:
    """A tracer that runs a script; a context manager that ends it.

    :param script: the script's text.
    :param options: what stands before it on the command line.
    :ivar seconds: from the start of the command until it was attached, or had ended.
    """

    def __init__(self, tracer: Tracer, script: str, *options: str) -> None:
        self.output: IO[bytes] = tempfile.TemporaryFile(dir="/tmp")  # noqa: SIM115
        self._errors: IO[bytes] = tempfile.TemporaryFile(dir="/tmp")  # noqa: SIM115
        self.usage = Usage(0.0, 0, 0)
        self.status: int | None = None
        self.seconds = 0.0
        environment = {**os.environ, NOTIFY: "1", "BPFTRACE_MAX_PROBES": "4096"}
        environment["BPFTRACE_MAX_BPF_PROGS"] = "4096"
        reader, writer = os.pipe()
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        before = time.monotonic()
        # The pipe carries what comes until the probes are attached, the file all that follows.
        self._pipe = reader
        self._process = subprocess.Popen(
            [*tracer.command, *options, "-e", script],
            stdout=writer,
            stderr=self._errors,
            env=environment,
            preexec_fn=entering(tracer.root),
        )
        os.close(writer)
        self._started = before

    @property
    def pid(self) -> int:
        """The tracer's process id."""
        return self._process.pid

    def attached(self) -> float:
        """Wait for the line that says so; seconds since the start.

        :raises FailedError: it ended before.
        """
        seen = b""
        while NOTIFY.encode() not in seen:
            data = os.read(self._pipe, 65536)
            if not data:
                self.wait()
                raise FailedError(self.said())
            seen += data
        self.seconds = time.monotonic() - self._started
        self.output.write(seen.partition(f"{NOTIFY}\n".encode())[2])
        os.set_blocking(self._pipe, False)
        return self.seconds

    def read(self) -> bool:
        """Take what it has printed meanwhile; whether there was something."""
        took = False
        while True:
            try:
                data = os.read(self._pipe, 1 << 20)
            except BlockingIOError:
                return took
            if not data:
                return took
            self.output.write(data)
            took = True

    def stop(self) -> float:
        """Interrupt it; seconds until it has ended."""
        before = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        self.wait()
        return time.monotonic() - before

    def wait(self) -> float:
        """Wait until it ends by itself; seconds since the start."""
        os.set_blocking(self._pipe, True)
        while data := os.read(self._pipe, 1 << 20):
            self.output.write(data)
        _, status, used = os.wait4(self.pid, 0)
        self.seconds = time.monotonic() - self._started
        self._process.returncode = self.status = os.waitstatus_to_exitcode(status)
        self.usage = Usage(used.ru_utime + used.ru_stime, used.ru_maxrss, used.ru_inblock / 2)
        return self.seconds

    def cpu(self) -> float:
        """Seconds of CPU that its threads have taken so far."""
        return running_time(self.pid)

    def memory(self) -> int:
        """The largest resident size it has had, in KiB."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))

    def text(self) -> bytes:
        """All that it printed."""
        self.output.seek(0)
        return self.output.read()

    def said(self) -> str:
        """The last lines of its messages."""
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return " / ".join(line.strip() for line in lines[-3:]) or f"exit status {self.status}"

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            self._process.kill()
            self.wait()
        os.close(self._pipe)
        self.output.close()
        self._errors.close()


def entering(root: str) -> Callable[[], None]:
    """What a child does before it becomes a tracer that runs in a root directory, or in ''."""

    def enter() -> None:
        if root:
            os.chroot(root)
            os.chdir("/")

    return enter


def cpu_of(words: list[str]) -> float:
    """Run a command; seconds of CPU it took.

    :raises FailedError: it fails.
    """
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    seconds = running_time(process.pid)
    if process.wait():
        raise FailedError(f"{words[0]}: exit status {process.returncode}")
    return seconds


def running_time(pid: int) -> float:
    """Seconds that a process's threads have run; exact, where times(2) counts ticks."""
    nanoseconds = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
            nanoseconds += int(file.read().split()[0])
    return nanoseconds / 1e9
