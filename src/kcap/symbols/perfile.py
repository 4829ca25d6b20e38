# SPDX-License-Identifier: Apache-2.0
"""Keeping what was read from files for as long as they are the same files.

A process that uses kcap as a library may live through upgrades of the programs that it traces: a
path is not a file. A file is another one when its device, inode, size or a time of change is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

from kcap.symbols.archive import split

Path = TypeVar("Path", str, tuple[str, ...])
P = ParamSpec("P")
R = TypeVar("R")


def kept_per_file(
    read: Callable[Concatenate[Path, P], R],
) -> Callable[Concatenate[Path, P], R]:
    """A function that calls ``read`` again only with other arguments, or after a file has changed.

    :param read: its first parameter is a path, or a tuple of paths, of what it reads; a file may be
        missing. All arguments have to be hashable. What it raises is not kept.
    """
    kept: dict[Any, tuple[Any, R]] = {}

    def found(path: Path, /, *args: P.args, **named: P.kwargs) -> R:
        key = (path, args, *named.items())
        # Looked at before reading: what is replaced meanwhile will be read once more.
        files = tuple(map(identity, (path,) if isinstance(path, str) else path))
        known = kept.get(key)
        if known is None or known[0] != files:
            kept[key] = known = files, read(path, *args, **named)
        return known[1]

    update_wrapper(found, read)
    return found


def identity(path: str) -> tuple[int, ...] | None:
    """What tells a file from others, also from one at the same path; None if there is none."""
    try:
        status = os.stat(split(path)[0])
    except OSError:
        return None
    # mtime may be kept by who writes (cp -p), ctime may not.
    changed = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *changed
