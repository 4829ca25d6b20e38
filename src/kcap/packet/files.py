# SPDX-License-Identifier: Apache-2.0
"""Creating capture files safely as root, and writing whole records to them.

Rules, and why:

- The last component of a path is never a symbolic link, wherever it stands: O_NOFOLLOW. Somebody
  who means the target can name the target.
- Directories on the way are followed through symbolic links (``/var/run``), except a link in a
  directory that everybody can write to, unless it is ours or that directory's owner's: the rule of
  fs.protected_symlinks, applied even where that sysctl is off or the sticky bit is missing.
- A new file has mode 0600: packets are private. An existing file keeps its mode.
- An existing file is replaced only if it is regular, and, in a directory that everybody can write
  to, ours and with one name: a file that somebody else put there would hand them the packets.
- Nothing of an existing file is touched before :meth:`OutputFile.begin`, and a file that was
  created and never begun is removed by :meth:`OutputFile.close`: a start that fails leaves nothing.
- flock() keeps two programs from writing to one file at once.

A record is written whole or not at all: after a short write (a full disk, a limit, a signal) the
file is cut back to its last whole record. A SIGKILL in the middle of the kernel's copying leaves a
part of one, which ``Keeper`` cuts off; a crash of the machine may, too: readers take everything
before it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from kcap.closing import Closing
from kcap.errors import FileError

_STANDARD_OUTPUT: Final = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_MAX_LINKS: Final = 40  # as in fs/namei.c (MAXSYMLINKS)
_IOV_MAX: Final = 1024  # UIO_MAXIOV, include/uapi/linux/uio.h
_PATH_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_UNNAMED_FLAGS: Final = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
#: Records shorter than this on average are joined: copying them in Python is then cheaper than the
#: kernel's walk through an iovec each (42 against 66 ns a record of 80 bytes, even at about 2000).
_JOIN_BELOW: Final = 2048
_CREATE_HINTS: Final[dict[int | None, str]] = {
    errno.ENOENT: "create the directory first",
    errno.ENOTDIR: "a part of the path is a file: choose another name",
    errno.EACCES: "choose a directory that you can write to",
    errno.EROFS: "the file system is mounted read-only: write elsewhere",
    errno.EISDIR: "add a file name",
}

Buffer = bytes | bytearray | memoryview
Split = Callable[[memoryview], Iterable[memoryview]]


class OutputFile(Closing):
    """A file open for writing, of which nothing is changed until :meth:`begin`.

    :param path: where; relative to the working directory.
    :param start: whole records that it begins with. One that is created has them before it has
        its name, wherever the file system can do that: a SIGKILL leaves no empty file.
    :raises FileError: when it cannot or must not be written, with the reason and what to do.
    """

    def __init__(self, path: str, start: Sequence[Buffer] = ()) -> None:
        self.path = path
        #: Bytes of whole records in the file; and where to note them for a ``Keeper``.
        self.size = 0
        self.whole: memoryview | None = None
        #: Whole records in the file.
        self.records = 0
        self._begun = False
        self._start = start
        self._directory, self._name = _open_parent(path)
        first = b"".join(start)
        try:
            self.fd, self._created = _open_file(path, self._directory, self._name, first)
        except BaseException:
            os.close(self._directory)
            raise
        try:
            _lock(path, self.fd)
            status = os.fstat(self.fd)
        except BaseException:
            self.close()
            raise
        #: (st_dev, st_ino): two spellings of one file have one identity.
        self.identity = (status.st_dev, status.st_ino)

    def begin(self) -> None:
        """Empty the file but for what it begins with; from here on it stays, whatever happens."""
        self._begun = True
        start, size = self._start, sum(map(len, self._start))
        if size and self._created and os.lseek(self.fd, 0, os.SEEK_CUR) == size:
            self._grow(size, len(start))
            return
        try:
            os.ftruncate(self.fd, 0)
        except OSError as error:
            raise _write_error(self.path, error) from error
        self._grow(0, 0)
        self.write(start)

    def write(self, records: Sequence[Buffer]) -> None:
        """Append records, each buffer a whole one.

        :raises FileError: when the file cannot take all; it then ends with the last whole record.
        """
        for start in range(0, len(records), _IOV_MAX):
            self._write_batch(records[start : start + _IOV_MAX])

    def write_joined(self, data: memoryview, count: int, split: Split) -> None:
        """Append records that stand one behind the other.

        :param count: how many they are.
        :param split: parts them; called only when the file cannot take all.
        :raises FileError: when it cannot; it then ends with the last whole record.
        """
        written = 0
        try:
            while written < len(data):
                written += os.write(self.fd, data[written:] if written else data)
        except BaseException as error:
            self._cut_back(list(split(data)), written)
            if isinstance(error, OSError):
                raise _write_error(self.path, error) from error
            raise
        self._grow(len(data), count)

    def overwrite(self, data: bytes, offset: int) -> None:
        """Change bytes that were written before (a header's field)."""
        try:
            written = os.pwrite(self.fd, data, offset)
        except OSError as error:
            raise _write_error(self.path, error) from error
        if written != len(data):
            raise FileError(f"cannot rewrite the header of '{self.path}'", self.path)

    def close(self) -> None:
        """Close it; one that was created and never begun is removed. May be called twice."""
        if self.fd < 0:
            return
        if self._created and not self._begun:
            self._remove()
        _unlock(self.fd)
        os.close(self.fd)
        os.close(self._directory)
        self.fd = -1

    def _write_batch(self, records: Sequence[Buffer]) -> None:
        total = sum(map(len, records))
        written = 0
        try:
            if total < _JOIN_BELOW * len(records):
                written = os.write(self.fd, b"".join(records))
            else:
                written = os.writev(self.fd, records)
            while written < total:
                written += os.write(self.fd, _byte_rest(records, written))
        except BaseException as error:
            self._cut_back(records, written)
            if isinstance(error, OSError):
                raise _write_error(self.path, error) from error
            raise
        self._grow(total, len(records))

    def _grow(self, size: int, records: int) -> None:
        """So much more is in the file."""
        self.size += size
        self.records += records
        if self.whole is not None:
            self.whole[0] = self.size

    def _cut_back(self, records: Sequence[Buffer], written: int) -> None:
        """Leave only whole records in the file, ``written`` bytes of this batch being there."""
        for record in records:
            if written < len(record):
                break
            written -= len(record)
            self._grow(len(record), 1)
        os.ftruncate(self.fd, self.size)
        os.lseek(self.fd, self.size, os.SEEK_SET)

    def _remove(self) -> None:
        """Unlink the name if it still is the file that was created here."""
        try:
            there = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        if os.path.samestat(there, os.fstat(self.fd)):
            os.unlink(self._name, dir_fd=self._directory)


class RecordWriter:
    """Collects records and writes them together; the base of the two formats' writers.

    :param file: where they go.
    """

    def __init__(self, file: OutputFile) -> None:
        self.file = file
        #: Whole records waiting to be written; the fast path appends slices of samples here.
        self.pending: list[Buffer] = []
        #: Records that the file could not take.
        self.unwritten = 0

    def flush(self) -> None:
        """Write what is pending.

        :raises FileError: when the file cannot take it.
        """
        records, self.pending = self.pending, []
        if not records:
            return
        before = self.file.records
        try:
            self.file.write(records)
        except BaseException:
            self.unwritten += len(records) - (self.file.records - before)
            raise

    def split(self, data: memoryview) -> Iterable[memoryview]:
        """The records that stand one behind the other in ``data``."""
        raise NotImplementedError

    def write_joined(self, data: memoryview, count: int) -> None:
        """Write records that stand one behind the other; nothing may be pending.

        :raises FileError: when the file cannot take them.
        """
        before = self.file.records
        try:
            self.file.write_joined(data, count, self.split)
        except BaseException:
            self.unwritten += count - (self.file.records - before)
            raise


def _byte_rest(records: Sequence[Buffer], written: int) -> memoryview:
    """The unwritten rest of the record in which a short write stopped."""
    for record in records:
        if written < len(record):
            return memoryview(record)[written:]
        written -= len(record)
    raise AssertionError("nothing is left to write")


def _write_error(path: str, error: OSError) -> FileError:
    hints = {
        errno.ENOSPC: "free some space, capture fewer bytes of each packet, or write elsewhere",
        errno.EDQUOT: "the disk quota is used up: free some space or write elsewhere",
        errno.EFBIG: "a limit on the size of files (ulimit -f) or the file system stops it",
    }
    return FileError(
        f"cannot write to '{path}': {error.strerror}; the packets before are complete in it",
        path,
        hint=hints.get(error.errno or 0),
    )


def _open_parent(path: str) -> tuple[int, str]:
    """Open the directory that ``path``'s last component is in, checking every link on the way."""
    if not path or "\0" in path:
        raise FileError(f"cannot create a file: {path!r} is no file name", path)
    *parents, name = path.split("/")
    if name in ("", ".", ".."):
        raise FileError(
            f"cannot create '{path}': it names a directory",
            path,
            hint="add a file name, for example 'packets.pcap'",
        )
    try:
        directory = os.open("/" if path.startswith("/") else ".", _PATH_FLAGS | os.O_DIRECTORY)
        return _walk(path, directory, parents), name
    except OSError as error:
        raise FileError(
            f"cannot create '{path}': {error.strerror}",
            path,
            hint=_CREATE_HINTS.get(error.errno),
        ) from error


def _walk(path: str, directory: int, names: list[str]) -> int:
    """Go down ``names`` from ``directory``, which is closed; the last directory, open (O_PATH)."""
    links = 0
    rest = names[::-1]
    try:
        while rest:
            name = rest.pop()
            if name in ("", "."):
                continue
            found = os.open(name, _PATH_FLAGS, dir_fd=directory)
            status = os.fstat(found)
            if stat.S_ISLNK(status.st_mode):
                try:
                    target = _trusted_target(path, directory, found, status)
                finally:
                    os.close(found)
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                rest.extend(target.split("/")[::-1])
                if not target.startswith("/"):
                    continue
                found = os.open("/", _PATH_FLAGS | os.O_DIRECTORY)
            elif not stat.S_ISDIR(status.st_mode):
                os.close(found)
                raise OSError(errno.ENOTDIR, f"{os.strerror(errno.ENOTDIR)}: '{name}'")
            os.close(directory)
            directory = found
    except BaseException:
        os.close(directory)
        raise
    return directory


def _trusted_target(path: str, directory: int, link: int, status: os.stat_result) -> str:
    """Where a link in the middle of a path leads, if it may be followed."""
    parent = os.fstat(directory)
    open_to_all = bool(parent.st_mode & stat.S_IWOTH)
    if open_to_all and status.st_uid not in (os.geteuid(), parent.st_uid):
        raise FileError(
            f"cannot create '{path}': it leads through a symbolic link that user "
            f"{status.st_uid} made in a directory that everybody can write to",
            path,
            hint="name the real directory instead",
        )
    return os.readlink("", dir_fd=link)


def _open_file(path: str, directory: int, name: str, first: bytes) -> tuple[int, bool]:
    """Open ``name`` for writing: its descriptor, and whether it was created just now.

    :param first: what one that is created begins with, if the file system can do that.
    """
    for _ in range(3):
        try:
            fd = _create_filled(path, directory, name, first) if first else None
            if fd is None:
                flags = _FILE_FLAGS | os.O_CREAT | os.O_EXCL
                fd = os.open(name, flags, 0o600, dir_fd=directory)
            return fd, True
        except FileExistsError:
            pass
        except OSError as error:
            raise _create_error(path, error) from error
        try:
            return _open_existing(path, directory, name), False
        except FileNotFoundError:
            continue  # It went away in between: create it after all.
        except OSError as error:
            raise _create_error(path, error) from error
    raise FileError(f"cannot create '{path}': it keeps coming and going", path)


def _create_filled(path: str, directory: int, name: str, first: bytes) -> int | None:
    """Create a file that has a content before it has a name: open(2), O_TMPFILE.

    :returns: its descriptor; None where that can't be done.
    :raises FileExistsError: the name is taken.
    :raises FileError: there is no room for the content.
    """
    try:
        fd = os.open(".", _UNNAMED_FLAGS, 0o600, dir_fd=directory)
    except OSError:  # the file system knows no such files; or creating one at all will say why not
        return None
    try:
        os.write(fd, first)
    except OSError as error:
        os.close(fd)
        raise _write_error(path, error) from error
    try:
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)
    except FileExistsError:
        os.close(fd)
        raise
    except OSError:  # no /proc
        os.close(fd)
        return None
    return fd


def _open_existing(path: str, directory: int, name: str) -> int:
    # Look before opening: opening a device or a FIFO may do something.
    _check_replaceable(path, directory, os.stat(name, dir_fd=directory, follow_symlinks=False))
    fd = os.open(name, _FILE_FLAGS, dir_fd=directory)
    try:
        _check_replaceable(path, directory, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_replaceable(path: str, directory: int, status: os.stat_result) -> None:
    """Refuse anything but a regular file that nobody else can have planted."""
    if stat.S_ISLNK(status.st_mode):
        raise FileError(
            f"cannot create '{path}': it is a symbolic link",
            path,
            hint="standard output is -w -"
            if path in _STANDARD_OUTPUT
            else "name the file that it points to, or remove the link",
        )
    if not stat.S_ISREG(status.st_mode):
        raise FileError(
            f"cannot create '{path}': it exists and is no regular file",
            path,
            hint="add a file name, for example 'packets.pcap'"
            if stat.S_ISDIR(status.st_mode)
            else f"choose another name; pipes and devices: kcap capture … -w - > {path}",
        )
    if not os.fstat(directory).st_mode & stat.S_IWOTH:
        return
    if status.st_uid != os.geteuid() or status.st_nlink > 1:
        raise FileError(
            f"cannot replace '{path}': everybody can write to its directory, and the file "
            + ("has several names" if status.st_uid == os.geteuid() else "belongs to someone else"),
            path,
            hint="remove it first, or write to a directory of your own",
        )


def _create_error(path: str, error: OSError) -> FileError:
    return FileError(
        f"cannot create '{path}': {error.strerror}", path, hint=_CREATE_HINTS.get(error.errno)
    )


def _lock(path: str, fd: int) -> None:
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FileError(
            f"cannot write to '{path}': another program is writing to it",
            path,
            hint="choose another name, or end the other program",
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise _create_error(path, error) from error


def _unlock(fd: int) -> None:
    """Give a file's lock back, although a forked process may still have the same descriptor."""
    import fcntl

    with suppress(OSError):  # there are no locks there
        fcntl.flock(fd, fcntl.LOCK_UN)
