# SPDX-License-Identifier: Apache-2.0
"""A process that ends capture files with a whole packet when kcap itself no longer can.

A SIGKILL in the middle of a write leaves a part of the last record, and readers call such a file
damaged. So a forked child, which does nothing else, waits for kcap's end on a pipe: if the end
comes without a word, it cuts each file back to its last whole record.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from mmap import mmap
from typing import NamedTuple

from kcap.packet.files import OutputFile

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
        waiting, self._pipe = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _watch(waiting, files, sizes)
        os.close(waiting)
        for number, (file, _) in enumerate(files):
            file.whole = sizes[number : number + 1]

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


def _watch(waiting: int, files: Sequence[Kept], sizes: memoryview) -> None:
    """Runs in the child; never returns."""
    try:
        os.setsid()  # Ctrl-C is not meant for it
        _close_others({waiting, *(file.fd for file, _ in files)})
        if not os.read(waiting, 1):
            for number, (file, length) in enumerate(files):
                if sizes[number] not in (_UNTOUCHED, 0):
                    repair(file.fd, sizes[number], length)
    finally:
        os._exit(0)


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
