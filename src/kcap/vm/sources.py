# SPDX-License-Identifier: Apache-2.0
"""Directories of this machine that a guest gets to see, and bringing back what changed in them."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import NamedTuple

from kcap.vm.errors import VmError

_RESERVED = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/run")


class Share(NamedTuple):
    """A directory that the guest sees.

    :ivar directory: where it lies here.
    :ivar point: where it lies in the guest.
    :ivar bring_back: whether what the guest changes in it is brought back.
    """

    directory: Path
    point: str
    bring_back: bool = True


def share(directory: Path | str, point: str | None = None) -> Share:
    """Describe a directory to share.

    :param point: where the guest shall see it; by default the path it has here.
    :raises VmError: when it is not a directory, or would hide the guest's system.
    """
    path = Path(directory).resolve()
    if not path.is_dir():
        raise VmError(f"cannot share {directory}: it is not a directory")
    where = os.path.normpath(point or str(path))
    if not where.startswith("/") or "\n" in where or " " in where:
        raise VmError(f"cannot share {directory} as {where!r} in the guest")
    hides = where == "/" or any(where == top or where.startswith(f"{top}/") for top in _RESERVED)
    if hides:
        raise VmError(
            f"cannot share {directory}: {where} would hide the guest's own",
            hint=f"name another place for it: {directory}:/mnt/share",
        )
    return Share(path, where)


def names_below(directory: Path) -> list[str]:
    """Return the names of all below ``directory``, relative to it."""
    found = []
    for top, directories, files in os.walk(directory):
        relative = os.path.relpath(top, directory)
        prefix = "" if relative == "." else f"{relative}/"
        found += [prefix + name for name in (*directories, *files)]
    return found


def compile_package(package: Path) -> None:
    """Bring the bytecode beside kcap's own source up to date, where it may be written.

    Compiling takes an emulated guest seconds, so it is done here, where it is kept.
    """
    import compileall

    compileall.compile_dir(package, quiet=2, force=False)


class Receiver:
    """Puts what a guest sends back into a directory, and never outside it.

    A guest is not trusted with this machine's files: names are taken apart, symbolic links on the
    way are not followed, and special files are left out.

    :param directory: where things go.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.changed: list[str] = []
        self._file = -1
        self._entry: dict[str, object] = {}

    def entry(self, text: bytes) -> None:
        """Begin the next entry: JSON of name, mode, mtime, and target for a symbolic link."""
        self.finish_file()
        entry = json.loads(text)
        name, mode = str(entry["name"]), int(str(entry["mode"]))
        parent, leaf = self._parent(name)
        try:
            if stat.S_ISDIR(mode):
                self._directory(parent, leaf, mode)
                return
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                return
            self._remove(parent, leaf)
            if stat.S_ISLNK(mode):
                os.symlink(str(entry["target"]), leaf, dir_fd=parent)
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(leaf, flags, mode & 0o777, dir_fd=parent)
                self._entry = entry
            self.changed.append(name)
        finally:
            os.close(parent)

    def data(self, data: bytes) -> None:
        """Take content of the file that was begun last."""
        view = memoryview(data)
        while view and self._file >= 0:
            view = view[os.write(self._file, view) :]

    def finish_file(self) -> None:
        """Close the file that was begun last, with the time and mode it has in the guest."""
        if self._file >= 0:
            modified = float(str(self._entry["mtime"]))
            os.fchmod(self._file, int(str(self._entry["mode"])) & 0o777)
            os.utime(self._file, (modified, modified))
            os.close(self._file)
            self._file = -1

    def gone(self, name: str) -> None:
        """Remove what the guest removed; a directory stays if something came to it here."""
        try:
            parent, leaf = self._parent(name)
            try:
                self._remove(parent, leaf)
            finally:
                os.close(parent)
        except VmError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in (errno.ENOENT, errno.ENOTEMPTY):
                return
            raise
        self.changed.append(name)

    def _parent(self, name: str) -> tuple[int, str]:
        """Open the directory that ``name`` lies in, step by step; return it and the last part."""
        *parts, leaf = name.split("/")
        if any(part in ("", ".", "..") for part in (*parts, leaf)):
            raise VmError(f"the guest sent a file with the name {name!r}")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        current = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in parts:
            try:
                following = os.open(part, flags, dir_fd=current)
            except OSError as error:
                raise VmError(f"cannot bring back {name}: {error.strerror}") from error
            finally:
                os.close(current)
            current = following
        return current, leaf

    def _directory(self, parent: int, leaf: str, mode: int) -> None:
        try:
            status = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            os.mkdir(leaf, mode & 0o777, dir_fd=parent)
            return
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(leaf, dir_fd=parent)
            os.mkdir(leaf, mode & 0o777, dir_fd=parent)

    def _remove(self, parent: int, leaf: str) -> None:
        try:
            status = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            try:
                os.rmdir(leaf, dir_fd=parent)
            except OSError as error:
                raise VmError(f"cannot replace the directory {leaf}: {error.strerror}") from error
        else:
            os.unlink(leaf, dir_fd=parent)
