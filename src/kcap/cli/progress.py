# SPDX-License-Identifier: Apache-2.0
"""A line on the terminal that says how far loading, attaching or detaching has come."""

from __future__ import annotations

import sys
import time

PATIENCE = 1.0
"""Nothing is shown of steps that take less than so many seconds altogether."""
_INTERVAL = 0.1


class ProgressLine:
    """Shows steps on standard error if that is a terminal; call it with each step.

    :param shown: whether to show anything; by default if standard error is a terminal.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._what = ""
        self._seen = ""
        self._next = 0.0
        self._width = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take note of a step.

        :param what: ``loading``, ``attaching``, ``detaching``.
        :param done: how many are done; 0 tells before the first that this will take long.
        :param total: of how many.
        """
        if not self._shown:
            return
        now = time.monotonic()
        if what != self._what:
            self._what, self._next = what, now + PATIENCE
        if done >= total:
            if what == self._seen:
                self.clear()
            self._what = ""
        elif now >= self._next or not done:
            self._next, self._seen = now + _INTERVAL, what
            self._show(f"kcap: {what} {done} of {total} probes")

    def say(self, text: str) -> None:
        """Say at once what takes long; where there is no terminal as a line of its own."""
        if self._shown:
            self._show(f"kcap: {text}")
        else:
            self._write(f"{text}\n")

    def _show(self, line: str) -> None:
        self._write("\r" + line.ljust(self._width))
        self._width = len(line)

    def clear(self) -> None:
        """Take the line away."""
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        print(text, end="", file=sys.stderr, flush=True)
