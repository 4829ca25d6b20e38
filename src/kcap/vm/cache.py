# SPDX-License-Identifier: Apache-2.0
"""The private directory where kernels and images are kept, and safe ways to write there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kcap import cachedir
from kcap.vm.errors import VmError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def private_directory(path: Path) -> Path:
    """Create ``path`` (mode 0700) where it is missing and return it.

    :raises VmError: when it is a symbolic link, belongs to someone else, or others may write to
        it: root boots what lies there, so nobody else may put things in.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise VmError(
            f"cannot create {path}: {error.strerror}",
            hint="set KCAP_CACHE to a directory that you can write to",
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise VmError(f"{path} is not a directory", hint="move it away, or set KCAP_CACHE")
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise VmError(
            f"{path} belongs to another user or others may write to it",
            hint=f"chown it to yourself and chmod go-w {path}, or set KCAP_CACHE elsewhere",
        )
    return path


def subdirectory(*names: str) -> Path:
    """Return the directory ``names`` below the cache, created private at every step."""
    path = private_directory(Path(cachedir.root()))
    for name in names:
        path = private_directory(path / name)
    return path


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old content or all of the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of ``directory``: one process at a time builds what is kept there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(directory / ".lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """Make a directory in the cache for as long as the block runs.

    What processes that were killed left behind is removed first: a directory is in use as long as
    its lock is held, and the kernel lets go of a dead process's locks.
    """
    top = subdirectory("runs")
    with locked(top):
        for old in top.iterdir():
            if old.is_dir() and not _in_use(old):
                shutil.rmtree(old, ignore_errors=True)
        directory = Path(tempfile.mkdtemp(dir=top))
        lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _in_use(directory: Path) -> bool:
    try:
        lock = os.open(directory / ".lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def key_of(parts: Iterable[str]) -> str:
    """Return a short name for the inputs ``parts`` (order counts): 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
