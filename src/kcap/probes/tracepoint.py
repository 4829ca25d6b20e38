# SPDX-License-Identifier: Apache-2.0
"""``tracepoint``: the kernel's static events, with the fields of their format files."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kcap.kernel import uapi
from kcap.probes import serving
from kcap.probes.args import args_struct
from kcap.probes.base import Load, Part, ProbeType, rest_of
from kcap.probes.ctext import type_of
from kcap.probes.names import Pattern, has_wildcard
from kcap.probes.problems import NoMatchError, no_match, problem, suggestion
from kcap.records import dataclass
from kcap.sema.probe import ProbeContext
from kcap.sema.types import UINT64, Field, Struct
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.kernel.tracefs import ProbeEvent
    from kcap.lang.ast import AttachPoint
    from kcap.lang.diagnostic import ScriptError
    from kcap.probes.system import System
    from kcap.sema.types import Space


@dataclass(frozen=True, slots=True)
class EventTarget:
    """A tracepoint."""

    category: str
    event: str


class Tracepoint(ProbeType):
    """A static event of the kernel."""

    name = "tracepoint"
    lasting = True
    aliases = ("t",)
    summary = "A static event of the kernel, with named fields"
    cost = "a static branch, and the event's record is put together before the program runs"
    signatures = ("tracepoint:category:event",)

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        parts = self.parts(point, system, 2, 2)
        if has_wildcard(parts[0].text) or has_wildcard(parts[1].text):
            if system.tracefs is None:
                raise _without_tracefs(parts)
            return self._expand(parts, uses, system)
        target = EventTarget(parts[0].text, parts[1].text)
        if system.has_event(target.category, target.event) is False:
            raise self._unknown(parts, system)
        return [self._context(parts, [target], _args(target, system), system)]

    def _expand(
        self, parts: list[Part], uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        groups: dict[object, list[EventTarget]] = {}
        structs: dict[object, Struct | None] = {}
        for target in _matches(parts[0].text, parts[1].text, system):
            struct = _args(target, system) if "args" in uses else None
            key = (
                target if serving.must_split(uses) else None,
                _made(target, system),
                struct.origin if struct is not None else None,
            )
            groups.setdefault(key, []).append(target)
            structs[key] = struct
        return [
            self._group(parts, group, structs[key], uses, system) for key, group in groups.items()
        ]

    def _group(
        self,
        parts: list[Part],
        targets: list[EventTarget],
        args: Struct | None,
        uses: Collection[str],
        system: System,
    ) -> ProbeContext:
        if len(targets) > 1:
            context = self._context(parts, targets, args, system)
            names = [self.target_name(context, target) for target in targets]
            cookies = system.offers("perf_link")
            serving.share_names(context, uses, names, "cookie" if cookies else "load")
            return context
        target = targets[0]
        own_names = (target.category, target.event)
        own = [Part(name, part.span) for name, part in zip(own_names, parts, strict=True)]
        context = self._context(own, targets, args or _args(target, system), system)
        context.extra["expanded"] = True
        return context

    def _context(
        self, parts: list[Part], targets: list[EventTarget], args: Struct | None, system: System
    ) -> ProbeContext:
        rest = rest_of(parts)
        missing = "the format file of the tracepoint can't be read: run as root"
        if len(targets) > 1:
            missing = f"{rest} stands for events with different fields"
        context = ProbeContext(
            self.name,
            f"{self.name}:{rest}",
            uapi.BPF_PROG_TYPE_TRACEPOINT,
            targets=tuple(targets),
            args=args,
            args_missing=missing if args is None else "",
        )
        made = _made(targets[0], system)
        if made is not None:
            _as_probe(context, made)
        if has_wildcard(rest):
            context.extra["expanded"] = True
        return context

    def _unknown(self, parts: list[Part], system: System) -> NoMatchError:
        category, event = parts
        known = system.events.get(category.text)
        if known is None:
            elsewhere = [c for c, events in system.events.items() if event.text in events]
            near = elsewhere or nearest(category.text, system.events)
            help_, edits = suggestion(category.span, near[:3])
            return no_match(
                self.name,
                rest_of(parts),
                category.span,
                label="no such category",
                notes=("categories of modules appear when the module is loaded",),
                help=help_,
                edits=edits,
            )
        help_, edits = suggestion(event.span, nearest(event.text, known))
        label = f"no such event in {category.text}"
        return no_match(self.name, rest_of(parts), event.span, label=label, help=help_, edits=edits)

    def target_name(self, context: ProbeContext, target: EventTarget) -> str:
        return f"{self.name}:{target.category}:{target.event}"

    def attach_target(
        self, context: ProbeContext, target: EventTarget, program: Program, system: System
    ) -> Link:
        from kcap.kernel.errors import AttachError
        from kcap.kernel.links import attach_tracepoint
        from kcap.kernel.tracefs import Tracefs

        what = f"{self.name}:{target.category}:{target.event}"
        number = (system.tracefs or Tracefs.find()).event_id(target.category, target.event)
        cookie = serving.cookie_of(context, target)
        try:
            return attach_tracepoint(program.fileno(), number, what, cookie)
        except AttachError as error:
            if error.errno == errno.EINVAL:
                error.hint = (
                    "it may be a synthetic event, or a probe on another event: the kernel runs BPF "
                    "programs only for tracepoints, kprobes and uprobes"
                )
            raise

    def load_specs(self, context: ProbeContext, system: System) -> list[Load]:
        if serving.loaded_for_each(context):
            return serving.each_load(self, context)
        return super().load_specs(context, system)

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        if len(parts) == 1:
            parts = [*parts, "*"]
        category, event = parts or ("*", "*")
        found = _matches(category, event, system)
        return (f"{self.name}:{t.category}:{t.event}" for t in found)

    def parameters(self, probe: str, system: System) -> Sequence[str]:
        _, category, event = probe.split(":", 2)
        return _declarations(system.event_text(category, event))


def _without_tracefs(parts: list[Part]) -> ScriptError:
    """The error for a wildcard where nothing tells which events there are."""
    from kcap.kernel.errors import SyscallError
    from kcap.kernel.tracefs import Tracefs

    title, hint = "tracefs may not be read", "run as root (sudo)"
    try:
        Tracefs.find()
    except SyscallError as error:
        title, hint = str(error), error.hint or hint
    return problem(
        "no-tracefs",
        f"{title}: it tells which tracepoints there are",
        parts[0].span.to(parts[1].span),
        help=(hint, "or name one tracepoint"),
    )


def _matches(category: str, event: str, system: System) -> list[EventTarget]:
    """The tracepoints that patterns stand for, sorted."""
    categories, events = Pattern(category), Pattern(event)
    return [
        EventTarget(name, found)
        for name, members in system.events.items()
        if categories.matches(name)
        for found in members
        if events.matches(found)
    ]


def _made(target: EventTarget, system: System) -> ProbeEvent | None:
    """What probe an event is, if it is none of the kernel's own."""
    return system.probe_events.get((target.category, target.event))


def _as_probe(context: ProbeContext, made: ProbeEvent) -> None:
    """Make a context one of events that are kprobes or uprobes: the kernel runs programs of that
    type only for them, and gives them registers instead of the event's fields."""
    context.program_type = uapi.BPF_PROG_TYPE_KPROBE
    context.args = None
    context.arguments = "none" if made.is_return else "registers"
    context.retval = UINT64 if made.is_return else None
    context.space = "user" if made.user else "kernel"
    instead = "retval" if made.is_return else "arg0, arg1, …, or reg()"
    context.args_missing = f"the kernel gives no fields of kprobes and uprobes: use {instead}"


def _declarations(text: str) -> list[str]:
    """The declarations of a format file, those of fields common to all events left out."""
    lines = (line.strip() for line in text.splitlines())
    fields = (line[6 : line.index(";")] for line in lines if line.startswith("field:"))
    return [field for field in fields if " common_" not in field]


def _args(target: EventTarget, system: System) -> Struct | None:
    """The type of ``args``, or None if the format can't be read.

    The fields common to all events are left out: BPF programs can't read them (the kernel puts a
    pointer to the registers in their place, include/trace/perf.h).
    """
    known = system.event_format(target.category, target.event)
    if known is None:
        return None
    # System calls get pointers from user space.
    user = target.category == "syscalls" and target.event.startswith("sys_enter_")
    space: Space = "user" if user else "kernel"
    # Only user_events have relative locations.
    own = [field for field in known.arguments if field.location != "rel"]
    fields = [
        Field(f.name, f.offset, type_of(f, system.types, space), data_loc=bool(f.location))
        for f in own
    ]
    size = max((item.offset + item.size for item in own), default=0)
    return args_struct(target.event, fields, size)
