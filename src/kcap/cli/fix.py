# SPDX-License-Identifier: Apache-2.0
"""``kcap fix``: print the repaired form of a script, or write it."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from kcap.errors import FileError, UsageError
from kcap.lang.diagnostic import ScriptError
from kcap.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kcap.diagnose.repair import Repair
    from kcap.session.options import Options

USAGE = """\
usage: kcap fix [-i | --diff] [--modern] FILE [PARAMETER...]

Prints FILE ('-': standard input) with its errors repaired where an error comes with an edit: a
kprobe that calls what only fentry may call becomes fentry, with its arguments by name; misspelt
names, missing declarations and more. Which functions and arguments there are is asked of the
running kernel; the result is compiled. Exit status: 0, or 1 if errors are left (they are printed).

  -i, --in-place   write the file instead of printing it
  --diff           print what changes, as a unified diff
  --modern         also replace old spellings that are no errors (args->x, BEGIN, kfunc)
  -h, --help       print this

With --diagnostics json what was repaired is printed as notes, what is left as errors.
"""


@dataclass(slots=True)
class _Arguments:
    """What the command line asks."""

    file: str = ""
    in_place: bool = False
    diff: bool = False
    modern: bool = False
    help: bool = False
    parameters: tuple[str, ...] = ()


def _parse(argv: Sequence[str]) -> _Arguments:
    """The arguments of ``kcap fix``.

    :raises UsageError: an option is unknown, or the file is missing.
    """
    found = _Arguments()
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in ("-i", "--in-place"):
            found.in_place = True
        elif word == "--diff":
            found.diff = True
        elif word == "--modern":
            found.modern = True
        elif word in ("-h", "--help"):
            found.help = True
        elif word == "--" and words:
            found.file, found.parameters = words[0], tuple(words[1:])
            break
        elif word.startswith("-") and word != "-":
            raise UsageError(f"kcap fix has no option {word}", hint="see kcap fix --help")
        else:
            found.file, found.parameters = word, tuple(words)
            break
    if not found.file and not found.help:
        raise UsageError("kcap fix needs a file", hint="name one, or '-' for standard input")
    if found.in_place and found.diff:
        raise UsageError("-i and --diff exclude each other", hint="give one of them")
    if found.in_place and found.file == "-":
        raise UsageError("-i needs a file: standard input can't be written")
    return found


def main(argv: Sequence[str]) -> int:
    """Run ``kcap fix`` with the arguments after ``fix``; the exit status.

    :raises KcapError: the file can't be read or written.
    """
    arguments = _parse(argv)
    if arguments.help:
        print(USAGE, end="")
        return 0
    from kcap.cli.reading import decode, read_bytes
    from kcap.session.options import Options
    from kcap.session.repair import repair

    name, data = read_bytes(arguments.file)
    text = decode(name, data)
    options = Options(parameters=arguments.parameters)
    found = repair(name, text, options, modern=arguments.modern, compiled=True)
    _report(found)
    fixed = found.text.encode("utf-8", "surrogateescape")
    if arguments.in_place:
        if fixed != data:
            write_in_place(arguments.file, fixed)
    elif arguments.diff:
        _print(found.diff.encode("utf-8", "surrogateescape"))
    elif found.applied or not found.left:
        _print(fixed)
    return 1 if found.left else 0


def fixed_text(name: str, text: str, options: Options) -> str:
    """The repaired script, for ``kcap --fix``; says on standard error what was changed.

    :param options: what the script is run with.
    :raises ScriptError: errors are left that have no certain repair.
    """
    from kcap.session.repair import repair

    found = repair(name, text, options)
    if found.left:
        raise ScriptError(found.left)
    if found.applied:
        print(f"kcap: running {name} with these changes:", file=sys.stderr)
        print(found.diff, end="", file=sys.stderr)
    return found.text


def _report(found: Repair) -> None:
    from kcap.cli.errors import as_json, print_diagnostics
    from kcap.records import replace

    if as_json():
        print_diagnostics(replace(done, severity="note") for done in found.applied)
        print_diagnostics(found.left)
        return
    for done in found.applied:
        where = f"{done.span.location}: " if done.span is not None else ""
        print(f"kcap fix: {where}fixed: {done.title}", file=sys.stderr)
    print_diagnostics(found.left)
    if not found.applied and not found.left:
        print(f"kcap fix: {found.name}: nothing to fix", file=sys.stderr)


def _print(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_in_place(path: str, data: bytes) -> None:
    """Replace a file's contents at once: it has the old ones or the new ones, also after a crash.

    Mode and owner stay. What a symbolic link points to is replaced, not the link; a link in a
    world-writable directory that belongs to somebody else is refused, as the kernel does with
    fs.protected_symlinks.

    :raises FileError: it can't be written.
    """
    from kcap.session.replacing import replace_file

    _check_link(path)
    target = os.path.realpath(path)
    try:
        old = os.stat(target)
        if not stat.S_ISREG(old.st_mode):
            raise FileError(f"{path} is no regular file", path)
        replace_file(target, data, stat.S_IMODE(old.st_mode), (old.st_uid, old.st_gid))
    except OSError as error:
        raise FileError(f"can't write {path}: {error.strerror}", path) from error


def _check_link(path: str) -> None:
    """Refuse a symbolic link that another user may have put there.

    :raises FileError: it is one.
    """
    try:
        link = os.lstat(path)
        directory = os.stat(os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        raise FileError(f"can't write {path}: {error.strerror}", path) from error
    foreign = link.st_uid not in (os.geteuid(), directory.st_uid)
    if stat.S_ISLNK(link.st_mode) and directory.st_mode & stat.S_IWOTH and foreign:
        raise FileError(
            f"{path} is another user's symbolic link in a directory that everyone can write to",
            path,
            hint="name the file that it points to",
        )
