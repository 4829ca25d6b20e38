# SPDX-License-Identifier: Apache-2.0
"""``rawtracepoint``: tracepoints with the arguments that the kernel's code passes, typed by BTF.

Programs are of type tracing, loaded for the typedef ``btf_trace_NAME``; their context has the
arguments without the leading ``void *__data`` (btf_ctx_access in kernel/bpf/btf.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.kernel import uapi
from kcap.lang.diagnostic import Diagnostic
from kcap.probes import args, serving
from kcap.probes.base import rest_of
from kcap.probes.btf_targets import BtfProbe, BtfTarget
from kcap.probes.function_lookup import Lookup
from kcap.probes.names import Pattern, has_wildcard
from kcap.probes.problems import NoMatchError, no_match, suggestion
from kcap.probes.traceable import KERNEL
from kcap.sema.probe import ProbeContext
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.lang.ast import AttachPoint
    from kcap.probes.system import System

PREFIX = "btf_trace_"


class RawTracepoint(BtfProbe):
    """A static event of the kernel with its raw arguments."""

    name = "rawtracepoint"
    lasting = True
    aliases = ("rt",)
    summary = "A static event of the kernel, with the arguments that its code passes"
    cost = "a static branch and a call: no record is put together, cheaper than tracepoint"
    signatures = ("rawtracepoint[:module]:event",)

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        parts = self.parts(point, system, 1, 2)
        wanted = Lookup(self.name, rest_of(parts), parts[0] if len(parts) == 2 else None, parts[-1])
        if system.btf is None:
            return [self._untyped(wanted)]
        module = Pattern(wanted.module.text if wanted.module else "*")
        targets = _matches(Pattern(wanted.function.text), module, system)
        if not targets and not has_wildcard(wanted.rest):
            raise self._unknown(wanted, system)
        groups: dict[object, list[BtfTarget]] = {}
        for target in targets:
            groups.setdefault(_group_key(target, uses, system), []).append(target)
        return [self._context(wanted, group, uses, system) for group in groups.values()]

    def _context(
        self, wanted: Lookup, targets: list[BtfTarget], uses: Collection[str], system: System
    ) -> ProbeContext:
        first, one = targets[0], len(targets) == 1
        context = ProbeContext(
            self.name,
            f"{self.name}:{first.module}:{first.name}" if one else f"{self.name}:{wanted.rest}",
            uapi.BPF_PROG_TYPE_TRACING,
            uapi.BPF_TRACE_RAW_TP,
            targets=tuple(targets),
            arguments="slots",
        )
        names = [self.target_name(context, target) for target in targets]
        serving.share_names(context, uses, names, "load")
        if has_wildcard(wanted.rest):
            context.extra["expanded"] = True
        if one or _wants_types(uses):
            seen = _prototype(first, system)
            context.args, context.extra["slots"] = seen.args, seen.slots
            context.extra["helper_slots"] = seen.helper_slots
        else:
            context.args_missing = f"{wanted.rest} stands for events with different arguments"
        return context

    def _untyped(self, wanted: Lookup) -> ProbeContext:
        """Without BTF: a program of the older type, which knows no types."""
        return ProbeContext(
            self.name,
            f"{self.name}:{wanted.rest}",
            uapi.BPF_PROG_TYPE_RAW_TRACEPOINT,
            targets=(BtfTarget(wanted.function.text, KERNEL, 0),),
            args_missing="the kernel has no BTF: use arg0, arg1, …",
            arguments="slots",
        )

    def _unknown(self, wanted: Lookup, system: System) -> NoMatchError:
        if wanted.module is None:
            return self._nowhere(wanted, system)
        elsewhere = _matches(Pattern(wanted.function.text), Pattern("*"), system)
        notes = [f"{wanted.function.text} is in {t.module}" for t in elsewhere]
        known = {KERNEL, *(system.modules or ())}
        if system.modules is not None and wanted.module.text.replace("-", "_") not in known:
            notes.append(f"the module {wanted.module.text} is not loaded")
        near = nearest(wanted.function.text, _names(system, [KERNEL]))
        help_, edits = suggestion(wanted.function.span, [] if elsewhere else near)
        return no_match(
            self.name,
            wanted.rest,
            wanted.function.span,
            label="no such tracepoint",
            notes=notes,
            help=help_,
            edits=edits,
        )

    def _nowhere(self, wanted: Lookup, system: System) -> NoMatchError:
        """The error for a tracepoint of any module, which no module has."""
        near = nearest(wanted.function.text, _names(system, [KERNEL]))
        help_, edits = suggestion(wanted.function.span, near)
        title = "Probe has no valid attach points."
        return NoMatchError(
            [
                Diagnostic(
                    "no-match",
                    "error",
                    title,
                    wanted.function.span,
                    "no such tracepoint",
                    help=tuple(help_),
                    edits=tuple(edits),
                )
            ]
        )

    def attach_target(
        self, context: ProbeContext, target: BtfTarget, program: Program, system: System
    ) -> Link:
        from kcap.kernel.links import attach_raw_tracepoint, attach_tracing

        if not target.btf_id:
            return attach_raw_tracepoint(program.fileno(), target.name)
        return attach_tracing(program.fileno(), f"{self.name}:{target.module}:{target.name}")

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        module = Pattern(parts[0] if len(parts) > 1 else "*")
        event = Pattern(parts[-1] if parts else "*")
        found = {
            f"{self.name}:{owner}:{name}"
            for owner in (KERNEL, *system.btf_modules)
            if module.matches(owner)
            for name in _names(system, [owner])
            if event.matches(name)
        }
        return iter(sorted(found))

    def search(self, pattern: str, system: System) -> Iterator[str]:
        return self.names([pattern], system)

    def parameters(self, probe: str, system: System) -> Sequence[str]:
        _, module, event = probe.split(":", 2)
        btf = system.module_btf(module)
        proto = b.tracepoint_prototype(btf, event) if btf is not None else None
        return args.listing(btf, proto.params) if btf is not None and proto is not None else []


def _names(system: System, modules: list[str]) -> Iterator[str]:
    """The names of raw tracepoints of some modules."""
    for module in modules:
        btf = system.module_btf(module)
        for name in btf.names(b.Typedef) if btf is not None else ():
            if name.startswith(PREFIX):
                yield name[len(PREFIX) :]


def _matches(event: Pattern, module: Pattern, system: System) -> list[BtfTarget]:
    """The raw tracepoints that patterns stand for, the kernel's own first."""
    found = []
    for owner in [KERNEL, *system.btf_modules]:
        btf = system.module_btf(owner) if module.matches(owner) else None
        if btf is None:
            continue
        if event.exact:
            names: list[str] = [event.text]
        else:
            names = sorted({n for n in _names(system, [owner]) if event.matches(n)})
        for name in names:
            typedef = next(btf.find_all(PREFIX + name, b.Typedef), None)
            if typedef is not None:
                found.append(BtfTarget(name, owner, typedef.id))
        if found and event.exact:
            break
    return found


def _wants_types(uses: Collection[str]) -> bool:
    return "args" in uses or any(u.startswith("arg") and u[3:].isdigit() for u in uses)


def _group_key(target: BtfTarget, uses: Collection[str], system: System) -> object:
    if serving.must_split(uses):
        return target
    return _prototype(target, system).key if _wants_types(uses) else None


def _prototype(target: BtfTarget, system: System) -> args.Prototype:
    btf = system.module_btf(target.module)
    assert btf is not None
    proto = b.tracepoint_prototype(btf, target.name)
    assert proto is not None
    return args.prototype(system.types, btf, proto, target.name, return_value=False)
