# SPDX-License-Identifier: Apache-2.0
"""The command of ``-c``: forked before the probes are attached, executed after."""

from __future__ import annotations

import os
import signal
import struct

from kcap.errors import UsageError


class Child:
    """A process that waits to become a command.

    :param command: the command with its arguments, parted by blanks; quotes mean nothing.
    :raises UsageError: the command is empty.
    :ivar pid: known from the start, for ``cpid``.
    """

    def __init__(self, command: str) -> None:
        self._argv = command.split()
        if not self._argv:
            raise UsageError("-c: the command is empty")
        go_read, self._go = os.pipe()
        self._failed, failed_write = os.pipe()  # closed by a successful exec
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            _become(self._argv, go_read, failed_write)
        os.close(go_read)
        os.close(failed_write)
        self._fd = os.pidfd_open(self.pid)
        self._running = True
        self.status: int | None = None

    def fileno(self) -> int:
        """A descriptor that is readable when the process has ended."""
        return self._fd

    def start(self) -> None:
        """Let it execute the command.

        :raises UsageError: it cannot be executed.
        """
        os.write(self._go, b"!")
        os.close(self._go)
        self._go = -1
        with os.fdopen(self._failed, "rb") as stream:
            self._failed = -1
            answer = stream.read()
        if answer:
            (number,) = struct.unpack("<i", answer)
            raise UsageError(f"-c: cannot execute {self._argv[0]}: {os.strerror(number)}")

    def close(self) -> None:
        """End it if it still runs (SIGTERM), and reap it."""
        if not self._running:
            return
        self._running = False
        for fd in (self._go, self._failed):
            if fd >= 0:
                os.close(fd)
        if os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(self.pid, signal.SIGTERM)
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        os.close(self._fd)


def _become(argv: list[str], go: int, failed: int) -> None:
    """Runs in the child: wait for the word, then execute."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if os.read(go, 1) == b"!":
            os.execvp(argv[0], argv)
    except OSError as error:
        os.write(failed, struct.pack("<i", error.errno or 0))
    finally:
        os._exit(127)
