# SPDX-License-Identifier: Apache-2.0
"""The corpus of scripts that kcap and bpftrace are compared with, and what bpftrace prints.

A file of ``corpus/`` has one subject. What stands before its first case says which; then::

    ### name of a case
    $ NAME=value -q {} 1 2      the command line; ``{}`` is ``-e SCRIPT``, ``{file}`` the name of a
                                file with the script, ``-`` has it on standard input. Without a
                                line it is ``{}``
    % command                   a shell command that runs before
    ! command                   one that runs once the probes are attached; $PID is the tracer's
    = name                      a file whose contents count as output, too
    ~ /regex/text/              both tracers' output is changed so before it is compared
    * text                      why kcap prints something else, on purpose
    the script, any number of lines
    1| a line of bpftrace's standard output
    2| a line of its standard error
    =| a line of the file
    status 1                    its exit status, if that is not 0

What bpftrace prints is written into these files by ``python -m conformance.differential --record``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

DIRECTORY = Path(__file__).parent / "corpus"
_HEADERS = "$%!=~*"
_STREAMS = {"1|": "stdout", "2|": "stderr", "=|": "file"}


class Result(NamedTuple):
    """What a tracer did.

    :ivar stdout: its standard output.
    :ivar file: the contents of the file that the case names.
    :ivar status: its exit status; negative: the signal that ended it; None: it did not end.
    """

    stdout: str = ""
    stderr: str = ""
    file: str = ""
    status: int | None = 0


class Case(NamedTuple):
    """One script and how it is run.

    :ivar subject: the name of its file, without the suffix.
    :ivar words: the command line, as in the module's text.
    :ivar before: commands that run before.
    :ivar work: commands that run when the probes are attached.
    :ivar file: a file to look at afterwards, or ''.
    :ivar changes: (regular expression, replacement) for both tracers' output.
    :ivar reason: why kcap differs on purpose, or ''.
    :ivar expected: what bpftrace prints, or None: not recorded yet.
    """

    subject: str
    name: str
    script: str
    words: str = "{}"
    before: tuple[str, ...] = ()
    work: tuple[str, ...] = ()
    file: str = ""
    changes: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    expected: Result | None = None

    @property
    def full_name(self) -> str:
        """Its subject and name."""
        return f"{self.subject}: {self.name}"

    def normalised(self, result: Result) -> Result:
        """A result as it is compared."""

        def changed(text: str) -> str:
            for pattern, replacement in self.changes:
                text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
            return text

        stdout, stderr, file = map(changed, result[:3])
        return Result(stdout, stderr, file, result.status)


class Subject(NamedTuple):
    """One file of the corpus.

    :ivar head: the text before its first case.
    """

    path: Path
    head: str
    cases: tuple[Case, ...]

    def text(self) -> str:
        """The file's text."""
        return self.head + "\n".join(_written(case) for case in self.cases)


def subjects(directory: Path = DIRECTORY) -> list[Subject]:
    """All files of the corpus.

    :raises ValueError: for a case that is not written as it should be.
    """
    return [_subject(path) for path in sorted(directory.glob("*.txt"))]


def _subject(path: Path) -> Subject:
    head, *parts = re.split(r"^### ", path.read_text(), flags=re.MULTILINE)
    cases = tuple(_case(path.stem, part) for part in parts)
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{path}: more than one case is called {', '.join(twice)}")
    return Subject(path, head, cases)


def _case(subject: str, text: str) -> Case:
    name, *lines = text.rstrip("\n").split("\n")
    headers: dict[str, list[str]] = {mark: [] for mark in _HEADERS}
    while lines and lines[0][:1] in headers and lines[0][1:2] == " ":
        headers[lines[0][0]].append(lines.pop(0)[2:])
    end = next((i for i, line in enumerate(lines) if _is_output(line)), len(lines))
    script = "\n".join(lines[:end])
    if not name or len(headers["$"]) > 1 or len(headers["="]) > 1:
        raise ValueError(f"{subject}: a case without a name, or with a line too many: {name}")
    return Case(
        subject,
        name,
        script,
        words="".join(headers["$"]) or "{}",
        before=tuple(headers["%"]),
        work=tuple(headers["!"]),
        file="".join(headers["="]),
        changes=tuple(map(_change, headers["~"])),
        reason=" ".join(headers["*"]),
        expected=_result(lines[end:]) if end < len(lines) else None,
    )


def _change(text: str) -> tuple[str, str]:
    mark, pattern, replacement, end = text[0], *text[1:].split(text[0])
    if end:
        raise ValueError(f"a change has to be /regex/text/, with any mark: {mark}")
    return pattern, replacement


def _is_output(line: str) -> bool:
    return line[:2] in _STREAMS or line.startswith("status ")


def _result(lines: Iterable[str]) -> Result:
    found = {"stdout": "", "stderr": "", "file": ""}
    status: int | None = 0
    for line in lines:
        mark, text = line[:2], line[3:]
        if mark in _STREAMS:
            found[_STREAMS[mark]] += _plain(text)
        else:
            word = line.removeprefix("status ")
            status = None if word == "timed out" else int(word)
    return Result(**found, status=status)


def _written(case: Case) -> str:
    lines = [f"### {case.name}"]
    if case.words != "{}":
        lines.append(f"$ {case.words}")
    lines += [f"% {command}" for command in case.before]
    lines += [f"! {command}" for command in case.work]
    lines += [f"= {case.file}"] if case.file else []
    lines += [f"~ {_change_text(*change)}" for change in case.changes]
    lines += [f"* {case.reason}"] if case.reason else []
    lines += [case.script] if case.script else []
    if case.expected is not None:
        lines += output_lines(case.expected)
    return "\n".join(lines) + "\n"


def _change_text(pattern: str, replacement: str) -> str:
    mark = next(mark for mark in "/|#,;" if mark not in pattern + replacement)
    return mark.join(["", pattern, replacement, ""])


def output_lines(result: Result) -> Iterator[str]:
    """A result as the lines that a file of the corpus has for it."""
    for (mark, _), text in zip(_STREAMS.items(), result[:3], strict=True):
        for line in re.findall(r"[^\n]*\n|[^\n]+$", text):
            yield f"{mark} {_escaped(line)}".rstrip(" ")
    if result.status is None:
        yield "status timed out"
    elif result.status or result == Result():
        yield f"status {result.status}"


def _escaped(line: str) -> str:
    """One line of output as it stands in a file: what can't be seen by its number, and whether it
    is the last one of a text that ends in the middle of a line."""
    body, end = (line[:-1], "") if line.endswith("\n") else (line, "\\c")
    shown = re.sub(r"[\x00-\x1f\x7f-\uffff\\]|(?<=.) $", lambda m: _code(m[0]), body)
    return shown + end


def _code(char: str) -> str:
    if char == "\\":
        return "\\\\"
    return f"\\u{ord(char):04x}" if char > "\xff" else f"\\x{ord(char):02x}"


def _plain(text: str) -> str:
    end = "\n"
    if re.search(r"(?<!\\)(\\\\)*\\c$", text):
        text, end = text[:-2], ""
    return re.sub(r"\\(x..|u....|\\)", lambda m: _char(m[1]), text) + end


def _char(code: str) -> str:
    return code if code == "\\" else chr(int(code[1:], 16))
