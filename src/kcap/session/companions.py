# SPDX-License-Identifier: Apache-2.0
"""The files that a script needs beside itself: what it imports, the headers that it includes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from kcap.lang.diagnostic import ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_IMPORTED = (".bt", ".h")


def companions(text: str, name: str) -> dict[str, bytes]:
    """The files that a script imports or includes in quotes, and what these do in turn, by path.

    A file that can't be read is left out: where the script is checked, that is said in its place.

    :param text: the script.
    :param name: where it stands; what it names is looked for from there (from the working
        directory for a script that stands in no file).
    :return: absolute paths without ``..``, as the script leads to them: links are not followed.
    """
    directory = os.path.dirname(os.path.abspath(name)) if os.path.isfile(name) else os.getcwd()
    found: dict[str, bytes] = {}
    _collect(text.encode("utf-8", "surrogateescape"), directory, found, script=True)
    return found


def _collect(data: bytes, directory: str, found: dict[str, bytes], *, script: bool) -> None:
    names = [os.fsdecode(match) for match in _INCLUDE.findall(data)]
    if script:
        names += _imports(data)
    for name in names:
        for path in _files(os.path.normpath(os.path.join(directory, name))):
            if path in found:
                continue
            try:
                with open(path, "rb") as file:
                    found[path] = file.read()
            except OSError:
                continue
            _collect(found[path], os.path.dirname(path), found, script=path.endswith(".bt"))


def _imports(data: bytes) -> list[str]:
    try:
        program = parse(Source.from_bytes("script", data))
    except ScriptError:
        return []  # whoever checks the script says why
    return [statement.path.value for statement in program.imports if statement.path.value]


def _files(path: str) -> Iterator[str]:
    """The file, or those of a directory that can be imported."""
    if not os.path.isdir(path):
        yield path
        return
    for entry in sorted(os.listdir(path)):
        if entry.endswith(_IMPORTED):
            yield os.path.join(path, entry)
