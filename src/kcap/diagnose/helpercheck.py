# SPDX-License-Identifier: Apache-2.0
"""Whether the programs of a script may call the helpers that its functions need.

Nothing here knows a function: each names its helpers, each probe its program type, and who may
call what is asked of the kernel or looked up (``helpertable.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.diagnose.helpertable import release_of, table
from kcap.diagnose.programkinds import ProgramKind, kind_of
from kcap.kernel import helpers
from kcap.lang.diagnostic import Diagnostic, Label
from kcap.probes.names import enumerate_words
from kcap.sema import tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kcap.diagnose.fix import ProbeFix
    from kcap.diagnose.helpertable import Release
    from kcap.lang import ast
    from kcap.lang.source import Span
    from kcap.sema.function import Callable_

    Probe = Callable[[ProgramKind, int], bool | None]

NEW_WORDING = (6, 8)
"""Since this release the verifier says 'program of this type cannot use helper' instead of 'unknown
func' (check_helper_call in kernel/bpf/verifier.c)."""

CODE = "helper-not-allowed"

FIX_HELP = "`kcap fix FILE` prints the script repaired as below, `kcap --fix FILE` runs it so"


class HelperRules:
    """Who may call what on one kernel.

    :param release: as uname -r prints it, or None if it is not known.
    :param probe: asks the running kernel (``prober.Prober``), or None to only use the table.
    """

    def __init__(self, release: str | None, probe: Probe | None = None) -> None:
        self.release: Release | None = release_of(release) if release else None
        # Red Hat's kernels have later versions' helpers: what is not there by the version may be.
        self._backports = release is not None and ".el" in release
        self._probe = probe

    def may_call(self, kind: ProgramKind, helper: int) -> bool:
        """Whether programs of a kind may call a helper; True if that can't be told.

        The kernel is only asked where the table does not say yes: asking means loading a program,
        and a yes that is wrong still ends in the verifier's own answer.
        """
        release = None if self._backports else self.release
        known = table().allowed(helper, kind, release)
        if not known and self._probe is not None:
            answer = self._probe(kind, helper)
            if answer is not None:
                return answer
        return known is not False

    def probes(self, helper: int) -> list[str]:
        """The probe types that lead to programs which may call a helper, as far as kcap has them;
        of those that are loaded alike, one."""
        from kcap.probes.registry import probe_types

        release = None if self._backports else self.release
        built = {kind.name for kind in probe_types()}
        usual = [kind.probes[0] for kind in table().kinds(helper, release)]
        found = [name for name in usual if name in built]
        # An iterator walks objects and never stands where something happens: the last resort.
        return [name for name in found if name != "iter"] or found

    def answer(self, helper: int) -> str:
        """What the verifier would say."""
        name = f"{helpers.name(helper)}#{helper}"
        if self.release is not None and self.release < NEW_WORDING:
            return f"unknown func {name}"
        return f"program of this type cannot use helper {name}"


def check_helpers(
    script: tree.Script, kernel_release: str | None, probe: Probe | None = None
) -> list[Diagnostic]:
    """Errors for calls of helpers that the calling program may not call, one a place.

    :param kernel_release: the kernel that the script shall run on, as uname -r prints it.
    :param probe: asks the running kernel, see :class:`HelperRules`.
    """
    found = _Findings(HelperRules(kernel_release, probe))
    for program in script.programs:
        context = program.context
        kind = kind_of(context.program_type, context.attach_type)
        for node in tree.walk([program.predicate, program.body]):
            if isinstance(node, tree.Call) and kind is not None:
                needs = node.function.needs(node)
                found.add(node.span, node.function, needs, context.provider, context.span, kind)
    return found.diagnostics()


def check_syntax(
    program: ast.Program,
    functions: Mapping[str, Callable_],
    kernel_release: str | None,
    probe: Probe | None = None,
) -> list[Diagnostic]:
    """The same from the syntax tree alone, for a script that can't be analysed because of some
    other error, such as a probe that does not exist.

    :param functions: builtins and functions by name, aliases included.
    """
    from kcap.diagnose.fix import calls_of, kind_of_probe
    from kcap.diagnose.targets import full_name

    found = _Findings(HelperRules(kernel_release, probe))
    for item in program.probes:
        calls = list(calls_of(item, program))
        for point in item.attach_points:
            provider = full_name(point)
            kind = kind_of_probe(provider)
            for call in calls:
                function = functions.get(call.name)
                if function is not None and kind is not None:
                    place = call.node.span
                    found.add(place, function, function.helpers, provider, point.span, kind)
    return found.diagnostics()


class _Findings:
    """Calls in programs that may not make them, by place."""

    def __init__(self, rules: HelperRules) -> None:
        self._rules = rules
        self._found: dict[tuple[Span, int], _Finding] = {}

    def add(
        self,
        span: Span,
        function: Callable_,
        needs: Iterable[int],
        provider: str,
        point: Span | None,
        kind: ProgramKind,
    ) -> None:
        """Note those of the helpers that a program of the kind may not call.

        :param span: the call.
        :param point: the attach point that the program is for.
        """
        for helper in sorted(needs):
            if not self._rules.may_call(kind, helper):
                finding = self._found.setdefault((span, helper), _Finding(function))
                finding.providers[provider] = None
                if point is not None:
                    finding.points[point] = (provider, kind)

    def diagnostics(self) -> list[Diagnostic]:
        """One error a place."""
        return [
            _diagnostic(span, helper, finding, self._rules)
            for (span, helper), finding in self._found.items()
        ]


class _Finding:
    """A call that some of its programs may not make."""

    __slots__ = ("function", "points", "providers")

    def __init__(self, function: Callable_) -> None:
        self.function = function
        self.providers: dict[str, None] = {}
        self.points: dict[Span, tuple[str, ProgramKind]] = {}


def _diagnostic(span: Span, helper: int, finding: _Finding, rules: HelperRules) -> Diagnostic:
    function = finding.function
    shown = function.name if function.arity == (0, 0) else f"{function.name}()"
    able = rules.probes(helper)
    help_ = f"{enumerate_words(able, 'and')} can call it" if able else ""
    return Diagnostic(
        CODE,
        "error",
        f"{shown} can't be used in {enumerate_words([_article(p) for p in finding.providers])}",
        span,
        f"{shown} needs the BPF helper {helpers.name(helper)}",
        tuple(Label(point, _label(*found)) for point, found in finding.points.items()),
        (f"the kernel's answer would be: {rules.answer(helper)}",),
        (help_ or "no probe type can call it on this kernel",),
    )


def _label(provider: str, kind: ProgramKind) -> str:
    return f"{_article(provider)} is loaded as {kind.text}, which may not call it"


def _article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeio' else 'a'} {noun}"


def with_fixes(
    found: Iterable[Diagnostic], fixes: Iterable[ProbeFix], functions: Mapping[str, Callable_]
) -> list[Diagnostic]:
    """The diagnostics, each with the repair of its probe: edits where there is one, else the
    reason why not, and what else there is. The first diagnostic of a probe gets the edits, which
    mend them all.

    :param fixes: ``fix.fix(…).probes``.
    :param functions: builtins and functions by name.
    """
    from kcap.records import replace

    fixes = list(fixes)
    mended: dict[int, bool] = {}
    out = []
    for diagnostic in found:
        if diagnostic.code == CODE and diagnostic.span is not None:
            for number, item in enumerate(fixes):
                if not _holds(item.probe.span, diagnostic):
                    continue
                if item.refusal is not None:
                    note = f"no safe rewrite: {item.refusal.title}"
                    extra = (note, *item.refusal.notes)
                    called = functions.get(diagnostic.span.text.partition("(")[0].strip())
                    diagnostic = replace(
                        diagnostic,
                        notes=(*diagnostic.notes, *extra),
                        help=(*diagnostic.help, *(called.instead if called is not None else ())),
                    )
                elif number not in mended:
                    mended[number] = True
                    diagnostic = replace(
                        diagnostic,
                        notes=(*diagnostic.notes, *item.notes),
                        help=(*diagnostic.help, FIX_HELP),
                        edits=item.edits,
                    )
        out.append(diagnostic)
    return out


def _holds(probe: Span, diagnostic: Diagnostic) -> bool:
    """Whether a diagnostic's call is in a probe, or (in a macro) one of its labels is."""
    spans = [diagnostic.span, *(label.span for label in diagnostic.labels)]
    return any(
        s is not None and s.source is probe.source and probe.start <= s.start and s.end <= probe.end
        for s in spans
    )
