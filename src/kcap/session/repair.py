# SPDX-License-Identifier: Apache-2.0
"""Repairing a script for the machine that this runs on: ``kcap fix``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.diagnose import repair as diagnose
from kcap.errors import KcapError
from kcap.lang.diagnostic import ScriptError
from kcap.records import replace
from kcap.session.options import Options
from kcap.session.script import compile as check_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.lang.diagnostic import Diagnostic


def repair(
    name: str,
    text: str,
    options: Options | None = None,
    *,
    modern: bool = False,
    compiled: bool = False,
) -> diagnose.Repair:
    """What can be repaired in a script: which functions and arguments there are is asked of the
    running kernel.

    :param name: what messages call the script.
    :param options: what it is to be run with. Unsafe functions are no errors, whether they are
        allowed or not: nothing runs.
    :param modern: also replace old spellings.
    :param compiled: have the result compiled as well: the code generator refuses what checking
        takes, such as a filter expression that libpcap doesn't understand.
    """
    options = replace(options or Options(), unsafe_functions=True)

    def check(text: str) -> list[Diagnostic]:
        try:
            check_script(text, name=name, options=options)
        except ScriptError as error:
            return list(error.diagnostics)
        return []

    found = diagnose.repair(name, text, check, _old_spellings(name) if modern else None)
    if compiled and not found.left:
        return replace(found, left=_uncompilable(name, found.text, options))
    return found


def _uncompilable(name: str, text: str, options: Options) -> tuple[Diagnostic, ...]:
    """What is wrong with a script that only compiling it finds."""
    from kcap.diagnose.report import diagnostics_of

    try:
        check_script(text, name=name, options=options).generate()
    except KcapError as error:
        return tuple(found for found in diagnostics_of(error) if found.severity == "error")
    return ()


def _old_spellings(name: str) -> Callable[[str], list[Diagnostic]]:
    def find(text: str) -> list[Diagnostic]:
        from kcap.diagnose.spellings import old_spellings
        from kcap.lang.parser import parse
        from kcap.lang.source import Source

        try:
            return old_spellings(parse(Source(name, text)))
        except ScriptError:  # its errors are reported already
            return []

    return find
