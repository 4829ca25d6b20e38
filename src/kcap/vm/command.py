# SPDX-License-Identifier: Apache-2.0
"""A command that runs in a guest, seen from outside."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from kcap.vm import agent
from kcap.vm.errors import VmError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Result(NamedTuple):
    """How a command ended.

    :ivar status: the exit status, or minus the number of the signal that ended it.
    :ivar stdout: what it wrote, unless it was handed on meanwhile.
    :ivar stderr: the same for standard error.
    :ivar seconds: how long it took, from the request to the answer.
    """

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float


class Command:
    """A request to the agent and what has come back so far.

    :param send: sends a frame: kind, number, payload.
    :param number: the request's number.
    :param handlers: for each kind of frame, who takes the content; None keeps it here.
    """

    def __init__(
        self,
        send: Callable[[int, int, bytes], None],
        number: int,
        handlers: Mapping[int, Callable[[bytes], None] | None],
    ) -> None:
        self._send = send
        self._number = number
        self._handlers = handlers
        self._kept: dict[int, bytearray] = {agent.STDOUT: bytearray(), agent.STDERR: bytearray()}
        self._done = threading.Event()
        self._started = time.monotonic()
        self._ended = 0.0
        self._status = 0
        self._end = b""
        self._error: BaseException | None = None

    def send(self, kind: int, payload: bytes) -> None:
        """Send a frame about this command."""
        self._send(kind, self._number, payload)

    def write(self, data: bytes) -> None:
        """Write to the command's standard input."""
        size = 1 << 16
        for start in range(0, len(data), size):
            self.send(agent.STDIN, data[start : start + size])

    def close_stdin(self) -> None:
        """Let the command see the end of its standard input."""
        self.send(agent.STDIN, b"")

    def signal(self, number: int) -> None:
        """Send a signal to the command and its children."""
        if not self._done.is_set():
            self.send(agent.SIGNAL, b"%d" % number)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._done.is_set()

    def wait(self, timeout: float | None = None) -> Result:
        """Wait for the end.

        :param timeout: seconds after which the command is killed.
        :raises TimeoutError: when it took longer than that.
        :raises GuestDied: when the guest went away.
        """
        if not self._done.wait(timeout):
            self.signal(9)
            self._done.wait(30)
            raise TimeoutError(f"the command did not end within {timeout} s")
        if self._error is not None:
            raise self._error
        kept = {kind: bytes(data) for kind, data in self._kept.items()}
        seconds = self._ended - self._started
        return Result(self._status, kept[agent.STDOUT], kept[agent.STDERR], seconds)

    def output(self) -> tuple[bytes, bytes]:
        """Return what has come on standard output and error so far."""
        return bytes(self._kept[agent.STDOUT]), bytes(self._kept[agent.STDERR])

    def wait_for_end(self, problem: str) -> bytes:
        """Wait until the agent has done what was asked; return the answer's last words.

        :param problem: begins the message of the error.
        :raises VmError: when the agent could not do it.
        """
        self._done.wait()
        if isinstance(self._error, VmError):
            raise self._error
        if self._error is not None:
            raise VmError(f"{problem}: {self._error}") from self._error
        return self._end

    def take(self, kind: int, payload: bytes) -> None:
        """Take a frame that the agent sent."""
        if kind == agent.EXIT:
            self._status = int(payload)
            self._finish()
        elif kind == agent.END:
            self._end = payload
            self._finish()
        elif kind == agent.FAILED:
            self.fail(OSError(payload.decode(errors="replace")))
        else:
            handler = self._handlers.get(kind)
            if handler is not None:
                handler(payload)
            elif kind in self._kept:
                self._kept[kind] += payload

    def fail(self, error: BaseException) -> None:
        """Let whoever waits see ``error``."""
        self._error = error
        self._finish()

    def _finish(self) -> None:
        self._ended = time.monotonic()
        self._done.set()
