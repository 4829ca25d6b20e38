# SPDX-License-Identifier: Apache-2.0
"""A process that ends capture files with a whole packet when kcap itself no longer can.

A SIGKILL in the middle of a write leaves a part of the last record, and readers call such a file
damaged. So a forked child, which does nothing else, waits for kcap's end on a pipe: if the end
comes without a word, it cuts each file back to its last whole record. Of files that take turns it
is given each as its turn comes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from mmap import mmap
from typing import NamedTuple

from kcap.packet.files import OutputFile
from kcap.packet.rotation import RotatingFile

_GOODBYE = b"!"
#: Nothing has been changed in a file yet: it is somebody's old one.
_UNTOUCHED = (1 << 64) - 1


class Kept(NamedTuple):
    """A file, and what tells the length of its first record from the record's first 16 bytes."""

    file: OutputFile
    length: Callable[[bytes], int]


class Keeper:
    """Watches over capture files until :meth:`close`.

    To be made before anything is opened that must not outlive kcap: the child lets go of all that
    is open but the files.

    :param files: what to watch; each notes how much of it is whole.
    :raises OSError: there can be no process.
    """

    def __init__(self, files: Sequence[Kept]) -> None:
        self._whole = mmap(-1, 8 * len(files))
        sizes = memoryview(self._whole).cast("Q")
        for number in range(len(files)):
            sizes[number] = _UNTOUCHED
        rotating = [number for number, kept in enumerate(files) if _rotates(kept.file)]
        waiting, self._pipe = _socketpair() if rotating else os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _watch(waiting, files, sizes)
        os.close(waiting)
        for number, (file, _) in enumerate(files):
            file.whole = sizes[number : number + 1]
        for number in rotating:
            self._hand_over(files[number].file, number)

    def _hand_over(self, file: OutputFile, number: int) -> None:
        """Let a file that rotates give the child each that it goes on with."""
        import socket

        def give(fd: int) -> None:
            # Not the descriptor itself: the child would hold the file's lock, too.
            with suppress(OSError), socket.socket(fileno=os.dup(self._pipe)) as channel:
                another = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    socket.send_fds(channel, [bytes([number])], [another])
                finally:
                    os.close(another)

        assert isinstance(file, RotatingFile)
        file.on_turn = give

    def close(self) -> None:
        """Let the child go: the files are whole. May be called twice."""
        if self._pid <= 0:
            return
        pid, self._pid = self._pid, 0
        with suppress(BrokenPipeError):  # somebody killed it
            os.write(self._pipe, _GOODBYE)
        os.close(self._pipe)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _rotates(file: OutputFile) -> bool:
    return isinstance(file, RotatingFile)


def _socketpair() -> tuple[int, int]:
    """A pipe that descriptors can be sent through."""
    import socket

    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def _watch(waiting: int, files: Sequence[Kept], sizes: memoryview) -> None:
    """Runs in the child; never returns."""
    try:
        os.setsid()  # Ctrl-C is not meant for it
        fds = [file.fd for file, _ in files]
        _close_others({waiting, *fds})
        rotating = any(_rotates(file) for file, _ in files)
        if not (_wait_for_turns(waiting, fds) if rotating else os.read(waiting, 1)):
            for fd, whole, (_, length) in zip(fds, sizes, files, strict=True):
                if whole not in (_UNTOUCHED, 0):
                    repair(fd, whole, length)
    finally:
        os._exit(0)


def _wait_for_turns(waiting: int, fds: list[int]) -> bool:
    """Keep up with the files that are being written; whether there is a word at the end."""
    import socket

    with socket.socket(fileno=waiting) as channel:
        while True:
            data, given, _, _ = socket.recv_fds(channel, 1, 1)
            if not given:
                return bool(data)
            os.close(fds[data[0]])
            fds[data[0]] = given[0]


def _close_others(kept: set[int]) -> None:
    first = 0
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def repair(fd: int, whole: int, length: Callable[[bytes], int]) -> None:
    """Cut a file back to its last whole record.

    :param fd: the file, open for writing.
    :param whole: how many bytes from its start are known to be whole records.
    :param length: a record's length, from its first 16 bytes.
    """
    size = os.fstat(fd).st_size
    if size == whole:
        return
    # The descriptor is for writing only.
    readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    while whole < size:
        head = os.pread(readable, 16, whole)
        if len(head) < 16 or whole + length(head) > size:
            break
        whole += length(head)
    os.close(readable)
    os.ftruncate(fd, whole)
