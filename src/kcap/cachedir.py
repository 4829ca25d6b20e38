# SPDX-License-Identifier: Apache-2.0
"""Small files that save time at the next start: where they are, reading and writing them.

A cache is never needed: whatever is wrong with it (no home, a read-only disk, a directory that
others may write to) means that there is none. ``kcap.vm.cache`` is at the same place.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

try:  # hashlib loads OpenSSL, which takes longer than all that is hashed here
    from _blake2 import blake2b
except ImportError:  # a Python that has it elsewhere
    from hashlib import blake2b

_MAGIC = b"kcapobj\1"
_DIGEST = 32  # bytes of BLAKE2b


def directory(name: str) -> str | None:
    """A private directory of the cache, made if missing.

    :param name: its name below the cache.
    :return: None if there can't be one, or if anybody else could write into it: root reads what
        lies there.
    """
    try:
        os.close(_open_directory(name))
    except OSError:  # see above: no cache then
        return None
    return f"{root()}/{name}"


def root(environ: Mapping[str, str] | None = None) -> str:
    """The path of the cache, which need not be there.

    ``KCAP_CACHE`` names it outright; otherwise it is ``kcap`` below ``XDG_CACHE_HOME``, or below
    ``~/.cache`` (XDG Base Directory Specification 0.8; a relative XDG_CACHE_HOME is ignored, as
    it asks).

    :param environ: the environment to look into; by default the process's own.
    """
    environ = os.environ if environ is None else environ
    named = environ.get("KCAP_CACHE", "")
    if named:
        return os.path.abspath(named)
    base = environ.get("XDG_CACHE_HOME", "")
    home = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    return f"{home}/kcap"


def _open_directory(name: str) -> int:
    """Open a directory of the cache, made if missing: what is opened in it by this descriptor was
    put there by nobody else, whatever becomes of the path meanwhile.

    :raises OSError: there can't be one, or others may write to it.
    """
    top = root()
    os.close(_open_private(top))
    return _open_private(f"{top}/{name}")


def _open_private(path: str) -> int:
    os.makedirs(path, mode=0o700, exist_ok=True)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(directory)
    if status.st_uid == os.geteuid() and not status.st_mode & 0o022:
        return directory
    os.close(directory)
    raise PermissionError(f"others may write to {path}")


def read(name: str, file: str) -> bytes | None:
    """A file of the cache, or None.

    :param name: the directory's name.
    :param file: the file's name.
    """
    try:
        directory = _open_directory(name)
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
        finally:
            os.close(directory)
        with open(fd, "rb", buffering=0) as opened:
            return opened.read()
    except OSError:  # not there yet, or not readable: no cache then
        return None


def write(name: str, file: str, data: bytes) -> bool:
    """Put a file into the cache, whole or not at all.

    :return: whether it is there now.
    """
    try:
        directory = _open_directory(name)
    except OSError:  # see above: no cache then
        return False
    try:
        return _put(directory, file, data)
    finally:
        os.close(directory)


def _put(directory: int, file: str, data: bytes) -> bool:
    # The directory is ours alone, so that the name need not be a secret.
    temporary = f".{file}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open(temporary, flags, 0o600, dir_fd=directory), "wb", buffering=0) as opened:
            complete = opened.write(data) == len(data)
        if complete:
            os.replace(temporary, file, src_dir_fd=directory, dst_dir_fd=directory)
            return True
    except OSError:  # a full disk, for one
        pass
    with suppress(OSError):
        os.unlink(temporary, dir_fd=directory)
    return False


def digest(data: bytes) -> bytes:
    """The digest by which files are named and checked."""
    return blake2b(data, digest_size=_DIGEST).digest()


def sealed(data: bytes) -> bytes:
    """Data with what tells whether it was changed in the cache."""
    return _MAGIC + digest(data) + data


def unsealed(stored: bytes | None) -> bytes | None:
    """What was :func:`sealed`, or None if that is not what was stored."""
    if stored is None or not stored.startswith(_MAGIC):
        return None
    data = stored[len(_MAGIC) + _DIGEST :]
    whole = digest(data) == stored[len(_MAGIC) : len(_MAGIC) + _DIGEST]
    return data if whole else None


def limit(name: str, size: int) -> None:
    """Remove the oldest files of a directory until the rest takes no more than ``size`` bytes."""
    try:
        directory = _open_directory(name)
    except OSError:  # no cache, no files
        return
    try:
        total = 0
        for file, _, length in sorted(_files(directory), key=lambda each: each[1], reverse=True):
            total += length
            if total > size:
                with suppress(OSError):  # another kcap has removed it
                    os.unlink(file, dir_fd=directory)
    finally:
        os.close(directory)


def _files(directory: int) -> list[tuple[str, int, int]]:
    """(name, time of change in ns, bytes) of what is in an open directory."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(OSError):  # another kcap has removed it
                status = entry.stat(follow_symlinks=False)
                found.append((entry.name, status.st_mtime_ns, status.st_size))
    return found
