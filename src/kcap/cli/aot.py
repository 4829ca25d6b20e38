# SPDX-License-Identifier: Apache-2.0
"""``--aot FILE``: a script as a program of its own, checked and compiled ahead of time.

The program is the script behind a ``#!`` line that names kcap. What it was compiled to is kept
where every compiled script is (:mod:`kcap.codegen.objects`), so that its first start is as quick as
the second of any other script.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from kcap.cli.reading import refuse_script
from kcap.errors import FileError

if TYPE_CHECKING:
    from kcap.session.preparation import Preparation


def write_program(path: str, text: str, name: str, preparation: Preparation) -> int:
    """Check and compile a script, and write it as an executable file; the exit status.

    :param path: the file to write.
    :param text: the script; a ``#!`` line of its own is replaced.
    :param name: the script's name for messages.
    :raises ScriptError: there is something wrong with the script.
    :raises UsageError: the file is the script.
    :raises FileError: it can't be written.
    """
    refuse_script(path, name)
    checked = preparation.check(text, name)
    checked.generate(objects=preparation.objects)
    if text.startswith("#!"):
        text = text.partition("\n")[2]
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        with open(
            os.open(path, flags, 0o777), "w", encoding="utf-8", errors="surrogateescape"
        ) as file:
            os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode | 0o111)
            file.write(f"{_interpreter()}\n{text}\n")
    except OSError as error:
        raise FileError(f"can't write {path}: {error.strerror}", path) from error
    return 0


def _interpreter() -> str:
    """The line that starts kcap: the command if there is one, else this Python's module."""
    command = shutil.which("kcap")
    return f"#!{command}" if command else f"#!/usr/bin/env -S {sys.executable} -m kcap"
