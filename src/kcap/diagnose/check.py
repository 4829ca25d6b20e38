# SPDX-License-Identifier: Apache-2.0
"""The check before loading: what a script's programs may not do on a kernel, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.lang.diagnostic import Diagnostic, ScriptError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kcap.diagnose.helpercheck import Probe
    from kcap.lang import ast
    from kcap.lang.source import Source
    from kcap.probes.system import System
    from kcap.sema import tree
    from kcap.sema.function import Callable_


def check(
    script: tree.Script,
    program: ast.Program,
    source: Source,
    system: System,
    functions: Mapping[str, Callable_],
    release: str | None = None,
    probe: Probe | None = None,
) -> list[Diagnostic]:
    """Errors of a script that was analysed, each with its repair or why there is none.

    :param program: the syntax tree that ``script`` was made from, and ``source`` its text.
    :param system: the machine that the script shall run on.
    :param functions: builtins and functions by name, aliases included.
    :param release: its kernel as uname -r prints it, or None if it is not known.
    :param probe: asks the running kernel (``prober.Prober``), or None to only use the table.
    """
    from kcap.diagnose.helpercheck import check_helpers

    found = check_helpers(script, release, probe)
    return _with_fixes(found, program, source, system, functions, release)


def check_failed(
    error: ScriptError,
    program: ast.Program,
    source: Source,
    system: System,
    functions: Mapping[str, Callable_],
    release: str | None = None,
    probe: Probe | None = None,
) -> ScriptError:
    """The error of a script that can't be analysed, together with what :func:`check` would find.

    On a kernel that lacks the probed function the user then learns of both mistakes at once, and
    the repair mends both. Errors of analysis get edits where it is clear what was meant.
    """
    from kcap.diagnose.helpercheck import check_syntax
    from kcap.diagnose.suggestions import with_suggestions

    found = check_syntax(program, functions, release, probe)
    found = _with_fixes(found, program, source, system, functions, release)
    return ScriptError([*with_suggestions(error.diagnostics, program, system), *found])


def _with_fixes(
    found: list[Diagnostic],
    program: ast.Program,
    source: Source,
    system: System,
    functions: Mapping[str, Callable_],
    release: str | None,
) -> list[Diagnostic]:
    if not found:
        return found
    from kcap.diagnose.fix import fix
    from kcap.diagnose.helpercheck import with_fixes
    from kcap.diagnose.helpertable import release_of

    known = release_of(release) if release else None
    return with_fixes(found, fix(program, source, system, functions, known).probes, functions)
