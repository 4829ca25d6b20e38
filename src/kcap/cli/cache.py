# SPDX-License-Identifier: Apache-2.0
"""``kcap cache``: what is kept from one start to the next, and throwing it away."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kcap import cachedir
from kcap.codegen import objects
from kcap.errors import FileError, UsageError
from kcap.session import kept
from kcap.words import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """\
usage: kcap cache info
       kcap cache clear

What kcap keeps to start faster: compiled scripts (scripts), what LLVM made of them (objects), the
index of the kernel's types (btf), the list of traceable functions (functions), in $KCAP_CACHE or
~/.cache/kcap. Nothing of it is needed. Kernels and images of guests lie beside it and are left
alone.

  info        print what there is
  clear       remove it
  -h, --help  print this
"""

#: The directories that ``clear`` empties.
DIRECTORIES = (kept.DIRECTORY, objects.DIRECTORY, "btf", "functions")


def main(argv: Sequence[str]) -> int:
    """Run ``kcap cache`` with the arguments after ``cache``; the exit status.

    :raises UsageError: they can't be taken.
    :raises FileError: a file cannot be removed.
    """
    if any(word in ("-h", "--help") for word in argv):
        print(USAGE, end="")
        return 0
    actions = {"info": _info, "clear": _clear}
    action = actions.get(" ".join(argv))
    if action is None:
        raise UsageError("kcap cache takes 'info' or 'clear'", hint="see kcap cache --help")
    for name in DIRECTORIES:
        path = cachedir.directory(name)
        if path is None:
            print(f"{name}: no private directory can be made for it: nothing is kept")
        else:
            print(action(path))
    return 0


def _files(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return [each for each in entries if each.is_file(follow_symlinks=False)]


def _info(path: str) -> str:
    files = _files(path)
    size = sum(each.stat(follow_symlinks=False).st_size for each in files)
    return f"{path}: {plural(len(files), 'file')}, {plural(size, 'byte')}"


def _clear(path: str) -> str:
    files = _files(path)
    for each in files:
        try:
            os.unlink(each.path)
        except FileNotFoundError:  # another kcap was quicker
            continue
        except OSError as error:
            raise FileError(f"cannot remove {each.path}: {error.strerror}", each.path) from error
    return f"{path}: {plural(len(files), 'file')} removed"
