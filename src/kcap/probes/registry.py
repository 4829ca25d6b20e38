# SPDX-License-Identifier: Apache-2.0
"""All probe types, and resolving attach points with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.errors import UsageError
from kcap.lang.diagnostic import Diagnostic, Diagnostics, ScriptError
from kcap.probes.names import Pattern, has_wildcard
from kcap.probes.problems import NoMatchError, problem, suggestion
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from re import Pattern as Regex

    from kcap.lang.ast import AttachPoint, Probe
    from kcap.lang.diagnostic import Severity
    from kcap.lang.source import Span
    from kcap.probes.base import ProbeType
    from kcap.probes.system import System
    from kcap.sema.probe import ProbeContext


MODULES = (
    "begin_end",
    "timers",
    "fentry",
    "kprobe",
    "tracepoint",
    "rawtracepoint",
    "perf_counters",
    "uprobe",
    "usdt",
    "iterator",
    "watchpoint",
)
"""The modules with probe types, the common ones first: they are imported until a name is found."""

RAISE_LIMIT = "You can increase the limit through the {} environment variable."

_loaded: dict[str, list[ProbeType]] = {}


def _types_of(module: str) -> list[ProbeType]:
    """One object of every probe type that a module defines, in the order of the module."""
    if module not in _loaded:
        from importlib import import_module

        from kcap.probes.base import ProbeType

        found = import_module(f"kcap.probes.{module}")
        _loaded[module] = [
            item()
            for item in vars(found).values()
            if isinstance(item, type)
            and issubclass(item, ProbeType)
            and item.__module__ == found.__name__
            and "name" in vars(item)
        ]
    return _loaded[module]


def probe_types() -> tuple[ProbeType, ...]:
    """One object of every probe type, in the order that lists show them."""
    return tuple(kind for module in MODULES for kind in _types_of(module))


def probe_type(name: str) -> ProbeType:
    """The probe type of a full, short or old name.

    :raises KeyError: there is none.
    """
    for module in MODULES:
        for kind in _types_of(module):
            if name == kind.name or name in kind.aliases:
                return kind
    raise KeyError(name)


class Resolver:
    """Turns attach points into contexts; a :class:`~kcap.sema.probe.ProbeResolver`.

    :param system: the machine.
    :ivar warnings: what was found but is no error.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self.warnings = Diagnostics()
        self._counts: dict[Span, int] = {}
        self._probes = self._programs = self._named = 0
        self._filter = _compiled(system.probe_filter)
        self._kept = self._filtered = 0

    def resolve(self, attach_point: AttachPoint, uses: Collection[str]) -> list[ProbeContext]:
        """See :class:`~kcap.sema.probe.ProbeResolver`.

        What does not exist is left out where the setting ``missing_probes`` allows it; more than
        ``max_probes`` and ``max_bpf_progs`` allow is an error. ``test`` and ``bench`` probes stand
        for nothing outside of their mode, and what ``probe_filter`` does not match is left out.
        """
        if self._is_for_other_mode(attach_point):
            return []
        try:
            contexts = self._resolve(attach_point, uses)
        except NoMatchError as error:
            if self.system.missing_probes == "error":
                raise
            if self.system.missing_probes == "warn":
                self.warnings.extend(_as_warnings(error))
            contexts = []
        for context in contexts:
            context.span = attach_point.span  # what diagnose/ points to
        self._counts[attach_point.span] = len(contexts)
        contexts = self._matching(contexts)
        self._check_limits(attach_point, contexts)
        return contexts

    def join(self, contexts: Sequence[ProbeContext]) -> Sequence[ProbeContext]:
        """See :class:`~kcap.sema.probe.ProbeResolver`."""
        if len(contexts) < 2:
            return contexts
        from kcap.probes.joining import joined

        return joined(contexts)

    def _is_for_other_mode(self, point: AttachPoint) -> bool:
        return point.provider.text in {"test", "bench"} - {self.system.mode}

    @property
    def all_filtered(self) -> bool:
        """Whether ``probe_filter`` left out every probe there was (``begin`` and ``end`` aside)."""
        return self._filtered > 0 and not self._kept

    def _matching(self, contexts: list[ProbeContext]) -> list[ProbeContext]:
        """What ``probe_filter`` matches, target by target; ``begin`` and ``end`` always."""
        if self._filter is None:
            return contexts
        found = []
        for context in contexts:
            if context.provider in ("begin", "end"):
                found.append(context)
                continue
            kind, matches = probe_type(context.provider), self._filter.search
            targets = [t for t in context.targets if matches(kind.target_name(context, t))]
            if targets or (not context.targets and matches(context.name)):
                context.targets = tuple(targets)
                found.append(context)
                self._kept += 1
            else:
                self._filtered += 1
        return found

    def _check_limits(self, point: AttachPoint, contexts: list[ProbeContext]) -> None:
        """Count what the script attaches to and loads.

        A wildcard whose block names ``probe`` is a program for each target in bpftrace, which
        looks at these first: of a script that has too many targets for both limits it is told in
        bpftrace's words, though one program may serve them.

        :raises ScriptError: it is more than the settings allow.
        """
        for context in contexts:
            targets = max(1, len(context.targets))
            programs = probe_type(context.provider).programs(context)
            self._probes += targets
            self._programs += programs
            self._named += targets if "target_index" in context.extra else programs
        limits = self.system
        too_many = limits.max_probes is not None and self._probes > limits.max_probes
        programs = self._named if too_many else self._programs
        if limits.max_bpf_progs is not None and programs > limits.max_bpf_progs:
            wanted = ("BPF_PROGS", "PROBES") if too_many else ("BPF_PROGS",)
            raise problem(
                "too-many-programs",
                f"Your program is trying to generate more than {programs - 1} BPF programs, "
                f"which exceeds the current limit of {limits.max_bpf_progs}",
                point.span,
                help=[RAISE_LIMIT.format(f"BPFTRACE_MAX_{each}") for each in wanted],
            )
        if too_many:
            raise problem(
                "too-many-probes",
                f"Can't attach to {self._probes} probes because it exceeds the current limit of "
                f"{limits.max_probes} probes.",
                point.span,
                notes=("a great number of probes makes the system slow, or worse",),
                help=(RAISE_LIMIT.format("BPFTRACE_MAX_PROBES"),),
            )

    def unattached(self, probes: Iterable[Probe]) -> list[Diagnostic]:
        """A finding for each probe none of whose attach points stands for anything.

        An error, a warning or nothing, as the setting ``missing_probes`` says. Probes with an
        attach point that was refused are left out: there is an error for them already.

        :param probes: the script's probes, all attach points resolved.
        """
        severity = {"error": "error", "warn": "warning"}.get(self.system.missing_probes)
        found = []
        for probe in probes:
            counts = [self._counts.get(point.span, 1) for point in probe.attach_points]
            if severity is not None and not any(counts):
                found.append(_nothing_left(probe, severity))  # type: ignore[arg-type]
        return found

    def _resolve(self, point: AttachPoint, uses: Collection[str]) -> list[ProbeContext]:
        name = point.provider.text
        if not has_wildcard(name):
            return self._type(point).resolve(point, uses, self.system)
        kinds = [
            kind for kind in probe_types() if Pattern(name).matches(kind.name) and not kind.manual
        ]
        if not kinds:
            raise _unknown_provider(point)
        found: list[ProbeContext] = []
        for kind in kinds:
            try:
                found += kind.resolve(point, uses, self.system)
            except ScriptError:  # not written as this kind wants it, or not there: others may fit
                continue
        return found

    def _type(self, point: AttachPoint) -> ProbeType:
        try:
            return probe_type(point.provider.text)
        except KeyError:
            raise _unknown_provider(point) from None


def _compiled(pattern: str) -> Regex[str] | None:
    """The filter for names, or None if there is none.

    :raises UsageError: it is no regular expression.
    """
    if not pattern:
        return None
    import re  # slow to import, and rarely needed

    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f"Invalid --probe-filter regex '{pattern}': {error}") from error


def _nothing_left(probe: Probe, severity: Severity) -> Diagnostic:
    points = probe.attach_points
    title = "Probe has no valid attach points."
    if severity == "warning":
        title += " It is being removed which may cause issues with program behavior."
    return Diagnostic(
        "no-attach-points",
        severity,
        title,
        points[0].span.to(points[-1].span),
        notes=tuple(f"{point.text} stands for nothing on this machine" for point in points),
    )


def resolver(system: System) -> Resolver:
    """What resolves attach points on a machine."""
    return Resolver(system)


def _unknown_provider(point: AttachPoint) -> Exception:
    every = [name for kind in probe_types() for name in (kind.name, *kind.aliases)]
    names = [name for name in every if len(name) > 2]
    text = point.provider.text
    help_, edits = suggestion(point.provider.span, nearest(text, names))
    known = ", ".join(kind.name for kind in probe_types())
    return problem(
        "unknown-probe-type",
        f"Invalid probe type: {text}",
        point.provider.span,
        label="no such probe type",
        notes=(f"probe types: {known}",),
        help=help_,
        edits=edits,
    )


def _as_warnings(error: NoMatchError) -> list[Diagnostic]:
    """The findings of an error as warnings that say that the probe is left out."""
    found = []
    for item in error.diagnostics:
        title = f"{item.title} Skipping." if item.severity == "error" else item.title
        found.append(
            Diagnostic(
                item.code, "warning", title, item.span, item.label, item.labels, item.notes,
                item.help, item.edits,
            )
        )  # fmt: skip
    return found
