# SPDX-License-Identifier: Apache-2.0
"""Writing output in blocks.

``none`` writes at once, ``line`` as soon as there is a whole line, ``full`` when the buffer is
full. In the last two, :meth:`Writer.tick` sees to it that nothing waits longer than the tick of
the event loop (100 ms) for a reader: many lines that come together cost one write. A terminal is
shown what there is at every tick, lines without an end as well.
"""

from __future__ import annotations

import os
import time
from typing import Literal

from kcap.errors import FileError

Buffering = Literal["none", "line", "full"]

FULL_SIZE = 1 << 16
#: Seconds after which a line is written though the event loop is still busy.
LONGEST_WAIT = 0.1


class Writer:
    """Writes text to a file descriptor.

    :param fd: where to; stays open.
    :param buffering: see the module's text.
    :param name: what messages call the file.
    """

    def __init__(self, fd: int, buffering: Buffering = "line", name: str = "stdout") -> None:
        self.fd = fd
        self.buffering = buffering
        self.name = name
        self._terminal = os.isatty(fd)
        self._pending: list[str] = []
        self._size = 0
        self._flushed = time.monotonic()

    def write(self, text: str) -> None:
        """Take text to write.

        :raises FileError: if a write that is due fails.
        """
        if not text:
            return
        self._pending.append(text)
        self._size += len(text)
        if self.buffering == "none" or self._size >= FULL_SIZE:
            self.flush()
        elif time.monotonic() - self._flushed > LONGEST_WAIT:
            self.tick()  # many events come together, or one takes long, such as a system()

    def tick(self) -> None:
        """Write what is due: with ``line``, whole lines or, to a terminal, all; with ``full``, only
        a full buffer."""
        if self.buffering == "line" and (
            self._terminal or any("\n" in text for text in self._pending)
        ):
            self.flush()

    def flush(self) -> None:
        """Write everything.

        :raises FileError: if it can't be written.
        :raises BrokenPipeError: if nobody reads it any more (``| head``).
        """
        if not self._pending:
            return
        data = memoryview("".join(self._pending).encode("utf-8", "surrogateescape"))
        self._pending.clear()
        self._size = 0
        self._flushed = time.monotonic()
        while data:
            try:
                data = data[os.write(self.fd, data) :]
            except BlockingIOError:
                self._wait()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise FileError(
                    f"Cannot write to {self.name}: {error.strerror}", self.name
                ) from error

    def _wait(self) -> None:
        """Until a non-blocking descriptor (a pipe, a terminal) takes more."""
        import select

        select.select([], [self.fd], [])
