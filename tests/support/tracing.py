# SPDX-License-Identifier: Apache-2.0
"""Traces for tests: one that runs beside the test, and one that is a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import kcap
from kcap.functions import events
from kcap.output.text import TextRenderer
from support import PATIENCE

#: The command line, as a process of this Python.
KCAP = (sys.executable, "-m", "kcap")


class Running:
    """A trace whose events a thread collects while the test makes traffic.

    :param text: the script.
    :param packets: have packets among the events, too.
    """

    def __init__(
        self, text: str, *, options: kcap.Options | None = None, packets: bool = False
    ) -> None:
        self.trace = kcap.trace(text, options=options, packets=packets)
        self.events: list[object] = []
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Running:
        try:
            self.trace.attach()
        except BaseException:
            self.trace.close()
            raise
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _follow(self) -> None:
        try:
            for event in self.trace:
                self.events.append(event)
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        """End the trace, take its last events, close it; raise what the thread met."""
        if self._thread.is_alive():
            self.trace.stop()
        self._thread.join(PATIENCE)
        self.trace.close()
        if self.failure is not None:
            raise self.failure

    def wait(self, seconds: float = PATIENCE) -> None:
        """Wait until the script has ended by itself."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the script did not end"

    @property
    def text(self) -> str:
        """Return what the command line would have written to standard output."""
        renderer = TextRenderer(self.trace.runtime.environment)
        return "".join(renderer.output(event) for event in self.events)

    @property
    def messages(self) -> str:
        """Return what the command line would have written to standard error with ``-q``."""
        renderer = TextRenderer(self.trace.runtime.environment, quiet=True)
        return "".join(renderer.message(event) for event in self.events)

    @property
    def lost(self) -> dict[str, int]:
        """Return how much was lost, by probe or map."""
        found: dict[str, int] = {}
        for event in self.events:
            if isinstance(event, events.Lost):
                found[event.subject] = found.get(event.subject, 0) + event.count
        return found


class Process:
    """kcap's command line as a process of its own, with its output in files.

    :param arguments: what follows ``kcap``.
    :param directory: where it runs, and where its output goes.
    """

    def __init__(self, arguments: Sequence[str], directory: Path) -> None:
        self.out, self.err = directory / "stdout", directory / "stderr"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [*KCAP, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=directory
            )

    def wait_attached(self, seconds: float = PATIENCE) -> None:
        """Wait until it says that its probes are attached."""
        deadline = time.monotonic() + seconds
        while "Attached" not in self.stderr:
            assert self.process.poll() is None, f"it ended:\n{self.stdout}{self.stderr}"
            assert time.monotonic() < deadline, f"not attached:\n{self.stderr}"
            time.sleep(0.05)

    def end(self, number: signal.Signals | None = None, seconds: float = PATIENCE) -> int:
        """Send a signal if one is given, and wait for the exit status."""
        if number is not None:
            os.kill(self.process.pid, number)
        return self.process.wait(seconds)

    @property
    def stdout(self) -> str:
        """Return its standard output so far."""
        return self.out.read_text()

    @property
    def stderr(self) -> str:
        """Return its standard error so far."""
        return self.err.read_text()


def without_preempted(messages: str) -> list[str]:
    """The lines of a trace's messages but for those that are right on a busy machine: a program
    that is preempted (seen on 7.2) keeps its CPU's others out, and kcap says so."""
    end = "running on the same CPU already"
    return [line for line in messages.splitlines() if not line.endswith(end)]


def kcap_command(
    arguments: Sequence[str], directory: Path, *, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run kcap's command line to its end."""
    return subprocess.run(
        [*KCAP, *arguments], input=text, capture_output=True, text=True, cwd=directory, check=False
    )
