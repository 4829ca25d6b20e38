# SPDX-License-Identifier: Apache-2.0
"""``kcap explain``: what an error, a helper, a probe type or a kernel function is about."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from kcap.cli.errors import use_color
from kcap.errors import FileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """\
usage: kcap explain [FILE | TEXT... | NAME]
       kcap explain --helper NAME | --probe NAME | --function NAME [--kernel LIST]

Explains an error message or a verifier log, from kcap, bpftrace or anywhere: of a file, of the
arguments, or (without any, or with '-') of standard input. A single NAME may also be that of a
builtin or function of the language, a probe type, a BPF helper or a kernel function.

  --helper NAME    which programs may call a BPF helper, since when
  --probe NAME     what a probe type is and what can't be used in it
  --function NAME  a kernel function's arguments, and how it can be traced here; with
                   --kernel LIST (5.10,6.12 or all) on these kernels instead, each in a guest
  -h, --help       print this

Exit status: 0, or 1 if there is nothing known about it.
"""


def main(argv: Sequence[str]) -> int:
    """Run ``kcap explain`` with the arguments after ``explain``; the exit status."""
    words = list(argv)
    if words and words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if words and words[0].startswith("--"):
        return _known(words)
    return _explain(_text(words))


def _known(words: list[str]) -> int:
    from kcap.diagnose import known

    words, kernels = _without_kernels(words)
    option, _, value = words[0].partition("=")
    if not value and len(words) > 1:
        value = words[1]
    if option not in ("--helper", "--probe", "--function"):
        raise UsageError(f"kcap explain has no option {option}", hint="see kcap explain --help")
    if not value:
        raise UsageError(f"{option} needs a name")
    if kernels and option != "--function":
        raise UsageError(f"{option} is the same on all kernels: --kernel does not go with it")
    if option == "--helper":
        lines = known.about_helper(value)
    elif option == "--probe":
        lines = known.about_probe(value)
    elif kernels:
        return _on_kernels(value, kernels)
    else:
        from kcap.probes.system import System

        system = System()
        print(*known.about_function(value, system), sep="\n")
        return 0 if known.has_function(value, system) else 1
    print(*lines, sep="\n")
    return 0


def _on_kernels(function: str, kernels: str) -> int:
    """What each kernel knows of a function: it is asked in a guest."""
    from kcap.cli.check import kernel_list
    from kcap.vm.guest import Guest

    for series in kernel_list(kernels):
        with Guest(series) as guest:
            done = guest.run(["kcap", "explain", "--function", function])
            print(f"Linux {guest.release}:")
            print(done.stdout.decode("utf-8", "replace"), end="", flush=True)
    return 0


def _without_kernels(words: list[str]) -> tuple[list[str], str]:
    """The words without ``--kernel LIST``, and the list."""
    for at, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == "--kernel":
            value = value if equals else "".join(words[at + 1 : at + 2])
            if not value:
                raise UsageError("--kernel needs a value", hint="such as 5.10,6.12, or all")
            return words[:at] + words[at + (1 if equals else 2) :], value
    return words, ""


def _text(words: list[str]) -> str:
    """What is to be explained.

    :raises FileError: the file can't be read.
    """
    if not words or words == ["-"]:
        return sys.stdin.buffer.read().decode("utf-8", "replace")
    if len(words) == 1 and os.path.isfile(words[0]):
        try:
            with open(words[0], encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError as error:
            raise FileError(f"can't read {words[0]}: {error.strerror}", words[0]) from error
    return " ".join(words)


def _explain(text: str) -> int:
    from kcap.diagnose.verifier import explain_text
    from kcap.lang.render import render

    found = explain_text(text)
    if found is not None:
        print(render(found, color=use_color(sys.stdout)))
        return 0
    if lines := _about_name(text.strip()):
        print(*lines, sep="\n")
        return 0
    print(
        "kcap explain: nothing is known about this\n"
        "HINT: give a whole error message or verifier log, or see kcap explain --help",
        file=sys.stderr,
    )
    return 1


def _about_name(text: str) -> list[str]:
    """What is known of a single name; empty if there are more words, or nothing is known."""
    from kcap.diagnose.known import about_name
    from kcap.probes.system import System

    name = text.removesuffix("()")
    return about_name(name, System()) if name.replace(".", "_").isidentifier() else []
