# SPDX-License-Identifier: Apache-2.0
"""Small files that save time at the next start: where they are, reading and writing them.

A cache is never needed: whatever is wrong with it (no home, a read-only disk, a directory that
others may write to) means that there is none. It lies at the same place as that of
``kcap.vm.cache``: ``$KCAP_CACHE``, else ``kcap`` below ``$XDG_CACHE_HOME`` or ``~/.cache``.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

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
    root = os.environ.get("KCAP_CACHE", "")
    if not os.path.isabs(root):
        base = os.environ.get("XDG_CACHE_HOME", "")
        home = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
        root = f"{home}/kcap"
    path = f"{root}/{name}"
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        safe = all(_is_private(p) for p in (root, path))
    except OSError:  # see above: no cache then
        return None
    return path if safe else None


def _is_private(path: str) -> bool:
    status = os.lstat(path)
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & 0o022
    )


def read(name: str, file: str) -> bytes | None:
    """A file of the cache, or None.

    :param name: the directory's name.
    :param file: the file's name.
    """
    path = directory(name)
    if path is None:
        return None
    try:
        fd = os.open(f"{path}/{file}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # not there yet
        return None
    with open(fd, "rb", buffering=0) as opened:
        return opened.read()


def write(name: str, file: str, data: bytes) -> bool:
    """Put a file into the cache, whole or not at all.

    :return: whether it is there now.
    """
    path = directory(name)
    if path is None:
        return False
    # The directory is ours alone, so that the name need not be a secret.
    temporary = f"{path}/.{file}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open(temporary, flags, 0o600), "wb", buffering=0) as opened:
            complete = opened.write(data) == len(data)
        if complete:
            os.replace(temporary, f"{path}/{file}")
            return True
    except OSError:  # a full disk, for one
        pass
    with suppress(OSError):
        os.unlink(temporary)
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
    files = sorted(_files(name), key=lambda each: each[1], reverse=True)
    total = 0
    for path, _, length in files:
        total += length
        if total > size:
            with suppress(OSError):
                os.unlink(path)


def _files(name: str) -> list[tuple[str, int, int]]:
    """(path, time of change in ns, bytes) of what is there."""
    path = directory(name)
    found: list[tuple[str, int, int]] = []
    if path is None:
        return found
    with os.scandir(path) as entries:
        for entry in entries:
            with suppress(OSError):  # another kcap has removed it
                status = entry.stat(follow_symlinks=False)
                found.append((entry.path, status.st_mtime_ns, status.st_size))
    return found
