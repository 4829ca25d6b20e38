# SPDX-License-Identifier: Apache-2.0
"""Reading the scripts that command lines name."""

from __future__ import annotations

import os
import sys

from kcap.errors import FileError, UsageError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_script(path: str) -> tuple[str, str]:
    """A script's name for messages, and its text, with its line ends as one character each.

    :param path: the file, or ``-`` for standard input.
    :raises FileError: it can't be read, or is no text.
    """
    name, data = read_bytes(path)
    text = decode(name, data.removeprefix(_BYTE_ORDER_MARK))
    return name, text.replace("\r\n", "\n").replace("\r", "\n")


def read_bytes(path: str) -> tuple[str, bytes]:
    """A script's name for messages, and the bytes of its file.

    :param path: the file, or ``-`` for standard input.
    :raises FileError: it can't be read.
    """
    if path == "-":
        return "stdin", sys.stdin.buffer.read()
    try:
        with open(path, "rb") as file:
            return path, file.read()
    except OSError as error:
        raise FileError(f"failed to open file '{path}': {error.strerror}", path) from error


def decode(name: str, data: bytes) -> str:
    """The text of a script; bytes that are no UTF-8 survive in it.

    :param name: what messages call it.
    :raises FileError: it is no text.
    """
    if data.startswith(b"\x7fELF"):
        raise FileError(
            f"'{name}' is a program or a library, not a script",
            name,
            hint=f"to trace its functions, name it in a probe: uprobe:{name}:FUNCTION",
        )
    if (at := data.find(0)) >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise FileError(f"'{name}' is no text: there is a NUL byte in line {line}", name)
    return data.decode("utf-8", "surrogateescape")


def refuse_script(path: str, script: str) -> None:
    """Don't let a script be overwritten by what it is read for.

    :param path: the file that is to be written.
    :param script: the script's path.
    :raises UsageError: they are the same file.
    """
    if os.path.exists(path) and os.path.exists(script) and os.path.samefile(path, script):
        raise UsageError(f"'{path}' is the script itself: it would be overwritten")
