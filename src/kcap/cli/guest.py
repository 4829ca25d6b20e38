# SPDX-License-Identifier: Apache-2.0
"""``--vm``: running a script in a throw-away guest instead of on this machine."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kcap.cli.script import script_of

if TYPE_CHECKING:
    from kcap.cli.options import Arguments


def run_in_guest(arguments: Arguments, argv: Sequence[str]) -> int:
    """Boot a guest, run the same command line there, bring back the files that it wrote.

    The script sees an empty working directory; what it leaves there (captures, ``-o``) is put into
    this one when it has ended.

    :param arguments: the command line, taken apart.
    :param argv: the same as it was written.
    :returns: the exit status of the run in the guest.
    :raises VmError: the guest does not come up.
    """
    from kcap.cli import vm
    from kcap.vm import kernels

    kernel = kernels.check_series(arguments.kernel or kernels.DEFAULT)
    name, text = script_of(arguments)
    with tempfile.TemporaryDirectory(prefix="kcap-vm-") as directory:
        words = list(_guest_words(arguments, argv))
        if arguments.program is None:
            file = os.path.basename(name) if arguments.file != "-" else "stdin"
            Path(directory, file).write_text(text, encoding="utf-8", errors="surrogateescape")
            words[words.index(arguments.file)] = file
        quiet = ["-q"] if arguments.quiet else []
        here = os.getcwd()
        os.chdir(directory)
        try:
            status = vm.main(
                ["run", "--kernel", kernel, *quiet, "--share", directory, "--", "kcap", *words]
            )
        finally:
            os.chdir(here)
        if arguments.program is None:
            os.unlink(os.path.join(directory, file))
        _bring_back(directory)
    return status


def _guest_words(arguments: Arguments, argv: Sequence[str]) -> Iterator[str]:
    """The command line without what only this side is to see."""
    words = iter(argv)
    for word in words:
        if word == "--kernel":
            next(words, None)
        elif word != "--vm" and not word.startswith("--kernel="):
            yield word


def _bring_back(directory: str) -> None:
    """Put the files of a finished run into the working directory, which they may replace."""
    for entry in sorted(os.scandir(directory), key=lambda e: e.name):
        if entry.is_file(follow_symlinks=False):
            if os.path.islink(entry.name):
                print(f"WARNING: {entry.name} is a symbolic link: left alone", file=sys.stderr)
                continue
            shutil.move(entry.path, entry.name)
