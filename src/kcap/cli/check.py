# SPDX-License-Identifier: Apache-2.0
"""``kcap check``: does a script compile, load and attach, here or on other kernels?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kcap.errors import UsageError
from kcap.records import dataclass, field
from kcap.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kcap.session.rollout import Verdict

USAGE = """\
usage: kcap check [--kernel SERIES[,SERIES...]] [--json] [--unsafe] [-q] FILE [PARAMETER...]

Checks FILE ('-': standard input) without running it. On this machine that means parsing, types and
compiling, and needs no privilege. With --kernel each kernel boots in a QEMU guest, where the
script's programs are loaded and its probes attached as well: the answer to whether it will work
there, before a roll-out. Exit status: 0, or 1 if it fails anywhere.

      --kernel LIST  kernels to try, such as 5.10,6.12; 'all' for all that there are
      --json         print the verdicts as JSON
      --unsafe       allow unsafe functions such as system()
  -q, --quiet        show no progress
  -h, --help         print this
"""


@dataclass(slots=True)
class _Arguments:
    """What the command line asks."""

    kernels: list[str] = field(default_factory=list)
    json: bool = False
    unsafe: bool = False
    quiet: bool = False
    help: bool = False
    file: str = ""
    parameters: list[str] = field(default_factory=list)


def main(argv: Sequence[str]) -> int:
    """Run ``kcap check`` with the arguments after ``check``; the exit status.

    :raises KcapError: the file can't be read, or a kernel is not known.
    """
    arguments = _parse(argv)
    if arguments.help:
        print(USAGE, end="")
        return 0
    from kcap.cli.reading import read_script

    name, text = read_script(arguments.file)
    verdicts = _verdicts(name, text, arguments)
    return _print_json(verdicts) if arguments.json else _print(verdicts, name)


def _parse(argv: Sequence[str]) -> _Arguments:
    """The arguments of ``kcap check``.

    :raises UsageError: an option is unknown or lacks its value, or the file is missing.
    """
    found = _Arguments()
    words = list(argv)
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if flag == "--kernel":
            if not equals and not words:
                raise UsageError("--kernel needs a value", hint="such as 5.10,6.12, or all")
            found.kernels += kernel_list(value if equals else words.pop(0))
        elif word in ("--json", "--unsafe", "--quiet", "--help"):
            setattr(found, word[2:], True)
        elif word in ("-q", "-h"):
            setattr(found, {"-q": "quiet", "-h": "help"}[word], True)
        elif word == "--" and words:
            found.file, found.parameters = words[0], words[1:]
            break
        elif word.startswith("-") and word != "-":
            raise UsageError(f"kcap check has no option {word}", hint="see kcap check --help")
        else:
            found.file, found.parameters = word, words
            break
    if not found.file and not found.help:
        raise UsageError("kcap check needs a file", hint="name one, or '-' for standard input")
    return found


def kernel_list(text: str) -> list[str]:
    """The kernels that ``--kernel`` names: ``5.10,6.12``, or ``all``.

    :raises KcapError: one of them is not known.
    """
    from kcap.vm import kernels

    if text == "all":
        return list(kernels.SUITES)
    return [kernels.check_series(one) for one in text.split(",")]


def _verdicts(name: str, text: str, arguments: _Arguments) -> Iterable[Verdict]:
    from kcap.session import rollout

    if not arguments.kernels:
        from kcap.session.script import Options

        options = Options(parameters=arguments.parameters, unsafe=arguments.unsafe)
        return [rollout.check_here(text, name, options)]
    unsafe = ["--unsafe"] if arguments.unsafe else []
    words = [*unsafe, *arguments.parameters]
    from kcap.cli.errors import as_json

    progress = None if arguments.quiet or as_json() else _progress
    return rollout.check_on(text, arguments.kernels, name, words, progress)


def _progress(text: str) -> None:
    print(f"kcap check: {text}", file=sys.stderr, flush=True)


def _print_json(verdicts: Iterable[Verdict]) -> int:
    import json

    found = list(verdicts)
    print(json.dumps([verdict.as_data() for verdict in found], indent=2))
    return 0 if all(verdict.passed for verdict in found) else 1


def _print(verdicts: Iterable[Verdict], name: str) -> int:
    """The table on standard output, what is wrong on standard error."""
    from kcap.cli.errors import as_json, print_diagnostics

    found = list(verdicts)
    for line in table(found):
        print(line)
    sys.stdout.flush()
    for verdict in found:
        if verdict.diagnostics:
            where = verdict.kernel or verdict.release
            if not as_json():
                print(f"\n{name} on {where}:", file=sys.stderr)
            print_diagnostics(verdict.diagnostics)
    return 0 if all(verdict.passed for verdict in found) else 1


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each kernel: what it is, and the verdict.

    :param verdicts: in the order of the lines.
    """
    rows = [(v.kernel or "here", v.release or "-", _result(v)) for v in verdicts]
    rows.insert(0, ("kernel", "release", "result"))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"{k.ljust(widths[0])}  {r.ljust(widths[1])}  {result}" for k, r, result in rows]


def _result(verdict: Verdict) -> str:
    if verdict.passed:
        count = len(verdict.diagnostics)
        return f"passed, {plural(count, 'warning')}" if count else "passed"
    from kcap.lang.render import visible

    first, *others = verdict.errors
    more = f" (and {len(others)} more)" if others else ""
    return f"failed: {first.code}: {visible(first.title)}{more}"
