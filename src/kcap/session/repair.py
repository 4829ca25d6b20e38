# SPDX-License-Identifier: Apache-2.0
"""Repairing a script for the machine that this runs on: ``kcap fix``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.diagnose import repair as diagnose
from kcap.lang.diagnostic import ScriptError
from kcap.records import replace
from kcap.session.options import Options
from kcap.session.script import compile as check_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.lang.diagnostic import Diagnostic


def repair(
    name: str, text: str, options: Options | None = None, *, modern: bool = False
) -> diagnose.Repair:
    """What can be repaired in a script: which functions and arguments there are is asked of the
    running kernel.

    :param name: what messages call the script.
    :param options: what it is to be run with. Unsafe functions are no errors, whether they are
        allowed or not: nothing runs.
    :param modern: also replace old spellings.
    """
    options = replace(options or Options(), unsafe_functions=True)

    def check(text: str) -> list[Diagnostic]:
        try:
            check_script(text, name=name, options=options)
        except ScriptError as error:
            return list(error.diagnostics)
        return []

    return diagnose.repair(name, text, check, _old_spellings(name) if modern else None)


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
