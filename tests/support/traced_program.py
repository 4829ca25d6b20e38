# SPDX-License-Identifier: Apache-2.0
"""A compiled program for user probes: built on the host, started in the guest."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kcap.closing import Closing

SOURCE = Path(__file__).with_name("traced.c")
#: Beside the tests in a guest.
PROGRAM = SOURCE.parents[2] / "built" / "kcap-traced"
#: The line of the program that probes are placed at.
LINE = next(n for n, text in enumerate(SOURCE.read_text().splitlines(), 1) if "AT_LINE" in text)


def build(root: Path) -> None:
    """Compile the program for a guest.

    :param root: what the guest gets in the place of the project's directory.
    """
    made = root / "built" / PROGRAM.name
    made.parent.mkdir()
    # An ENDBR of four bytes at every function's start, to place a probe behind.
    options = ["-g", "-O0", "-static", "-fcf-protection=branch"]
    subprocess.run(["gcc", *options, "-o", made, SOURCE.name], cwd=SOURCE.parent, check=True)


class TracedProgram(Closing):
    """The program, running: each :meth:`call` calls its functions once."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def call(self) -> None:
        """Have each function called once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b".")
        assert self._process.stdout.read(1) == b"."

    def close(self) -> None:
        """Let it end: nothing more is asked of it."""
        self._process.communicate()
