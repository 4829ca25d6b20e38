# SPDX-License-Identifier: Apache-2.0
"""Errors as the command line prints them: on standard error, never as a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kcap.errors import FileError, KcapError, NoProbesError, UsageError
from kcap.lang.diagnostic import Diagnostic, ScriptError

if TYPE_CHECKING:
    from typing import TextIO

_as_json = False

#: What bpftrace finds when it attaches: its message has no place in the script, nor a hint's mark.
_FOUND_AT_ATTACHING = frozenset({"unknown-boundary", "not-attached"})
_WITHOUT_PLACE = frozenset({("unstable-feature", "warning")})

#: What clang finds for bpftrace: it gets the definitions of a script from line 2 of a file on.
_FOUND_BY_CLANG = frozenset({"missing-header"})


def choose_format(name: str) -> None:
    """Print what is wrong as ``text`` or, for editors, as ``json``: a line for each diagnostic.

    :raises UsageError: it is neither.
    """
    global _as_json
    if name not in ("text", "json"):
        raise UsageError(f'Invalid format of diagnostics "{name}"', hint="it is one of text, json")
    _as_json = name == "json"


def as_json() -> bool:
    """Whether diagnostics are printed as JSON, so that nothing else may stand among them."""
    return _as_json


def use_color(stream: TextIO | None = None) -> bool:
    """Whether what is printed has colours: on a terminal, unless ``BPFTRACE_COLOR`` or ``NO_COLOR``
    say otherwise.

    :param stream: where it is printed, standard error by default.
    """
    wish = os.environ.get("BPFTRACE_COLOR", "auto")
    if wish in ("always", "never"):
        return wish == "always"
    return (stream or sys.stderr).isatty() and not os.environ.get("NO_COLOR")


def as_bpftrace() -> bool:
    """Whether kcap was started under bpftrace's name, by something that expects its messages."""
    return os.path.basename(sys.argv[0]) == "bpftrace"


def print_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    """Print diagnostics with the lines of the script that they are about."""
    if _as_json:
        _print_as_json(diagnostics)
        return
    if as_bpftrace():
        _print_as_bpftrace(diagnostics)
        return
    from kcap.lang.render import render

    for diagnostic in _without_repeats(list(diagnostics)):
        print(render(diagnostic, color=use_color()), file=sys.stderr)


def _without_repeats(diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    """Leave out a warning at the very place of an error: bpftrace has it beside the error ("not
    traceable" beside "no matches"), whose own notes say as much."""
    wrong = {d.span for d in diagnostics if d.severity == "error" and d.span is not None}
    return [d for d in diagnostics if d.severity == "error" or d.span not in wrong]


def _print_as_json(diagnostics: Iterable[Diagnostic]) -> None:
    from kcap.diagnose.report import json_lines

    for line in json_lines(diagnostics):
        print(line, file=sys.stderr)


def _print_as_bpftrace(diagnostics: Iterable[Diagnostic]) -> None:
    from kcap.output.text import located

    for diagnostic in diagnostics:
        kind = diagnostic.code, diagnostic.severity
        if diagnostic.code in _FOUND_AT_ATTACHING or kind in _WITHOUT_PLACE:
            text = "\n".join([diagnostic.title, *diagnostic.help])
            print(located(diagnostic.severity, text, None), end="", file=sys.stderr)
            continue
        if diagnostic.code in _FOUND_BY_CLANG and diagnostic.span is not None:
            at = f"{diagnostic.span.line + 1}:{diagnostic.span.column}"
            print(f"definitions.h:{at}: fatal error: {diagnostic.title}", file=sys.stderr)
            continue
        text = located(diagnostic.severity, diagnostic.title, diagnostic.span)
        hints = [f"HINT: {line}\n" for line in diagnostic.help]
        print(text, *hints, sep="", end="", file=sys.stderr)


def print_error(error: KcapError, *, verbose: bool = False) -> None:
    """Print an error: its diagnostics if it has any, else one line, and what to do about it.

    :param verbose: also print the whole log that it carries (the verifier's, LLVM's).
    """
    if _as_json:
        from kcap.diagnose.report import diagnostics_of

        _print_as_json(diagnostics_of(error))
        return
    if isinstance(error, ScriptError):
        print_diagnostics(error.diagnostics)
        _print_log(error, verbose)
        return
    path = error.path if isinstance(error, FileError) else ""
    text = str(error)
    where = f"{path}: " if path and path not in text else ""
    # bpftrace says this without a mark, and programs that call it look for that line.
    mark = "" if isinstance(error, NoProbesError) and as_bpftrace() else "ERROR: "
    print(f"{mark}{where}{text}", file=sys.stderr)
    if error.hint:
        print(f"HINT: {error.hint}", file=sys.stderr)
    _print_log(error, verbose)


def _print_log(error: KcapError, verbose: bool) -> None:
    log = getattr(error, "log", "")
    if log and verbose:
        print(log if isinstance(log, str) else "\n".join(log), file=sys.stderr)
