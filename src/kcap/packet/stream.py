# SPDX-License-Identifier: Apache-2.0
"""Captures that go to a pipe as they are made, or nowhere: in the place of a capture file."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Sequence

from kcap.errors import FileError
from kcap.packet.files import Buffer, OutputFile, Split


class StreamClosedError(FileError):
    """Nobody reads the stream any more: the capture has nothing left to do."""


class StreamFile(OutputFile):
    """An open descriptor that packets are written to: a pipe, standard output.

    Records go out with the next look at the rings. Nothing can be taken back: a reader that leaves
    in the middle of a record has a part of it.

    :param fd: the descriptor; it stays open.
    :param path: what messages call it; ``.pcapng`` at its end makes the stream a pcapng.
    """

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self.size = 0
        self.records = 0
        self.identity = (-1, fd)

    def begin(self) -> None:
        """Nothing is there to be emptied."""

    def write(self, records: Sequence[Buffer]) -> None:
        """Write records.

        :raises StreamClosedError: the reader has gone.
        :raises FileError: the stream cannot be written.
        """
        self.write_joined(memoryview(b"".join(records)), len(records))

    def write_joined(self, data: memoryview, count: int, split: Split | None = None) -> None:
        """Write records that stand one behind the other; as :meth:`write` otherwise."""
        total = len(data)
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise StreamClosedError(f"nobody reads {self.path} any more", self.path) from error
            raise FileError(f"cannot write to {self.path}: {error.strerror}", self.path) from error
        self.size += total
        self.records += count

    def check(self) -> None:
        """See whether anybody still reads it: without packets, nothing else would tell.

        :raises StreamClosedError: the reader has gone.
        """
        poll = select.poll()
        poll.register(self.fd, 0)
        if any(events & select.POLLERR for _, events in poll.poll(0)):
            raise StreamClosedError(f"nobody reads {self.path} any more", self.path)

    def overwrite(self, data: bytes, offset: int) -> None:
        """A stream has no way back.

        :raises FileError: always.
        """
        raise FileError(f"cannot go back in {self.path}", self.path)

    def close(self) -> None:
        """The descriptor is the caller's."""


class Discarded(StreamFile):
    """Takes packets that only a program wants, and forgets them.

    :param path: what messages call it.
    """

    def __init__(self, path: str) -> None:
        super().__init__(-1, path)

    def check(self) -> None:
        """Nobody ever reads it."""

    def write(self, records: Sequence[Buffer]) -> None:
        """Count them."""
        self.records += len(records)
