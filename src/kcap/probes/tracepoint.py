# SPDX-License-Identifier: Apache-2.0
"""``tracepoint``: the kernel's static events, with the fields of their format files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kcap.kernel import uapi
from kcap.probes.args import args_struct
from kcap.probes.base import Part, ProbeType, rest_of
from kcap.probes.ctext import Declaration, parse_declaration, type_of
from kcap.probes.names import Pattern, has_wildcard, nearest
from kcap.probes.problems import NoMatchError, no_match, suggestion
from kcap.sema.probe import ProbeContext
from kcap.sema.types import INT8, Array, Field, Pointer, Struct, Type

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.lang.ast import AttachPoint
    from kcap.probes.system import System
    from kcap.sema.types import Space


@dataclass(frozen=True, slots=True)
class EventTarget:
    """A tracepoint."""

    category: str
    event: str


@dataclass(frozen=True, slots=True)
class FormatField:
    """A line of a format file.

    :param text: the declaration as written: ``const char * filename``.
    :param offset: bytes from the start of the record, which is the program's context.
    :param size: its bytes.
    """

    text: str
    offset: int
    size: int
    signed: bool


class Tracepoint(ProbeType):
    """A static event of the kernel."""

    name = "tracepoint"
    aliases = ("t",)
    summary = "A static event of the kernel, with named fields"
    signatures = ("tracepoint:category:event",)

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        parts = self.parts(point, system, 2, 2)
        if has_wildcard(parts[0].text) or has_wildcard(parts[1].text):
            return self._expand(parts, uses, system)
        target = EventTarget(parts[0].text, parts[1].text)
        if system.tracefs and not system.has_event(target.category, target.event):
            raise self._unknown(parts, system)
        return [self._context(parts, [target], _args(target, system))]

    def _expand(
        self, parts: list[Part], uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        groups: dict[object, list[EventTarget]] = {}
        structs: dict[object, Struct | None] = {}
        for target in _matches(parts[0].text, parts[1].text, system):
            key: object = target if "probe" in uses else None
            struct = _args(target, system) if "args" in uses else None
            if struct is not None:
                key = (key, struct.origin)
            groups.setdefault(key, []).append(target)
            structs[key] = struct
        return [self._group(parts, group, structs[key], system) for key, group in groups.items()]

    def _group(
        self, parts: list[Part], targets: list[EventTarget], args: Struct | None, system: System
    ) -> ProbeContext:
        if len(targets) > 1:
            return self._context(parts, targets, args)
        target = targets[0]
        names = (target.category, target.event)
        own = [Part(name, part.span) for name, part in zip(names, parts, strict=True)]
        context = self._context(own, targets, args or _args(target, system))
        context.extra["expanded"] = True
        return context

    def _context(
        self, parts: list[Part], targets: list[EventTarget], args: Struct | None
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

    def attach_target(
        self, context: ProbeContext, target: EventTarget, program: Program, system: System
    ) -> Link:
        from kcap.kernel.errors import AttachError
        from kcap.kernel.links import attach_tracepoint

        what = f"{self.name}:{target.category}:{target.event}"
        number = system.event_id(target.category, target.event)
        if number is None:
            raise AttachError(
                f"can't attach to {what}: its id can't be read",
                2,
                hint="mount tracefs (mount -t tracefs tracefs /sys/kernel/tracing) and run as root",
            )
        return attach_tracepoint(program.fileno(), number, what)

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        if len(parts) == 1:
            parts = [*parts, "*"]
        category, event = parts or ("*", "*")
        found = _matches(category, event, system)
        return (f"{self.name}:{t.category}:{t.event}" for t in found)

    def parameters(self, probe: str, system: System) -> list[str]:
        _, category, event = probe.split(":", 2)
        return [field.text for field in _own_fields(system.event_format(category, event))]


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


def parse_format(text: str) -> list[FormatField]:
    """The fields of a format file, those common to all events included.

    A line reads ``field:TYPE NAME;	offset:N;	size:N;	signed:N;`` (trace_events.c of the kernel).
    """
    found = []
    for line in text.splitlines():
        line = line.strip()
        if not line.startswith("field:"):
            continue
        pairs = [item.strip().partition(":") for item in line.split(";") if item.strip()]
        values = {key: value for key, _, value in pairs}
        found.append(
            FormatField(
                values["field"],
                int(values.get("offset", 0)),
                int(values.get("size", 0)),
                values.get("signed", "0") == "1",
            )
        )
    return found


def _own_fields(text: str) -> list[FormatField]:
    """The fields without those common to all events, which BPF programs can't read (the kernel
    puts a pointer to the registers in their place, include/trace/perf.h)."""
    return [
        field
        for field in parse_format(text)
        if not parse_declaration(field.text).name.startswith("common_")
    ]


def _args(target: EventTarget, system: System) -> Struct | None:
    """The type of ``args``, or None if the format can't be read."""
    text = system.event_format(target.category, target.event)
    if not text:
        return None
    # System calls get pointers from user space.
    user = target.category == "syscalls" and target.event.startswith("sys_enter_")
    space: Space = "user" if user else "kernel"
    own = _own_fields(text)
    fields = [_field(item, system, space) for item in own]
    size = max((item.offset + item.size for item in own), default=0)
    return args_struct(target.event, [f for f in fields if f is not None], size)


def _field(item: FormatField, system: System, space: Space) -> Field | None:
    """A field of ``args``; None for ``__rel_loc``, which only user_events have."""
    found = parse_declaration(item.text)
    if found.location == "__rel_loc":
        return None
    if found.location:
        return Field(found.name, item.offset, _located(found, item, system), data_loc=True)
    return Field(
        found.name, item.offset, type_of(found, item.size, item.signed, system.types, space)
    )


def _located(found: Declaration, item: FormatField, system: System) -> Type:
    """The type of a ``__data_loc`` field: a pointer to its elements, which follow the record."""
    array = type_of(found, 8, item.signed, system.types, "kernel")
    element = array.element if isinstance(array, Array) else array
    if "char" in found.base:
        element = INT8
    return Pointer(element, "kernel")
