# SPDX-License-Identifier: Apache-2.0
"""``usdt``: the static probes of programs and libraries (``<sys/sdt.h>``).

A probe may stand at several places (it was inlined) with its arguments elsewhere at each; a
context serves the places that have them alike. ``context.extra["usdt_arguments"]`` are the
operands (``kcap.symbols.usdt.Argument``) of ``arg0``, ``arg1``, ….

Here and with uprobes, ``context.extra["place"]`` is the (file, offset in it) of a program that is
for one place only, as every one that uses ``uaddr()`` is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.errors import FileError
from kcap.kernel import uapi
from kcap.probes import serving, user_places
from kcap.probes.base import Load, Part, ProbeType, rest_of
from kcap.probes.binaries import Binary, find_binaries, matching_binaries, readable_elf
from kcap.probes.names import Pattern, has_wildcard
from kcap.probes.problems import NoMatchError, no_match, suggestion
from kcap.probes.user_places import UserPlace
from kcap.records import dataclass, replace
from kcap.sema.probe import ProbeContext
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.lang.ast import AttachPoint
    from kcap.probes.system import System
    from kcap.symbols.usdt import Argument, UsdtProbe


@dataclass(frozen=True, slots=True)
class UsdtTarget:
    """A probe of a file.

    :param places: (offset of the instruction, offset of the semaphore or 0) in the file.
    :param arguments: the operands, as the note has them.
    """

    binary: Binary
    provider: str
    probe: str
    places: tuple[tuple[int, int], ...]
    arguments: str

    @property
    def name(self) -> str:
        """The probe's full name."""
        return f"usdt:{self.binary.name}:{self.provider}:{self.probe}"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The parts of an attach point: file, namespace and name; the latter two may be patterns."""

    binary: Part
    namespace: str
    probe: Part

    def matches(self, probe: UsdtProbe) -> bool:
        return (not self.namespace or Pattern(self.namespace).matches(probe.provider)) and Pattern(
            self.probe.text
        ).matches(probe.name)


class Usdt(ProbeType):
    """A static probe of a program or library."""

    name = "usdt"
    aliases = ("U",)
    summary = "A static probe of a program or library"
    cost = "a breakpoint and a way into the kernel and back, as uprobe"
    signatures = ("usdt:binary:probe", "usdt:binary:namespace:probe")
    newest_first = True

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        parts = self.parts(point, system, 2, 3)
        namespace = parts[1].text if len(parts) == 3 else ""
        wanted = _Wanted(parts[0], namespace, parts[-1])
        rest = rest_of(parts)
        binaries = find_binaries(parts[0], self.name, rest, system)
        probes = self._probes(wanted, binaries, rest)
        if not probes and not has_wildcard(rest):
            raise self._unknown(wanted, binaries, rest)
        numbered = any(name.startswith("arg") and name[3:].isdigit() for name in uses)
        groups: dict[object, list[UsdtTarget]] = {}
        for target in _targets(probes, uses, numbered):
            key = (
                target.name if serving.must_split(uses, len(probes)) else "",
                target.arguments if numbered else "",
                (target.binary.path, target.places) if _placed(target, uses, numbered) else (),
            )
            groups.setdefault(key, []).append(target)
        return [self._context(group, uses, rest, system) for group in groups.values()]

    def _context(
        self, targets: list[UsdtTarget], uses: Collection[str], rest: str, system: System
    ) -> ProbeContext:
        names = [target.name for target in targets]
        context = ProbeContext(
            self.name,
            names[0] if len(set(names)) == 1 else f"{self.name}:{rest}",
            uapi.BPF_PROG_TYPE_KPROBE,
            targets=tuple(targets),
            args_missing="usdt probes have numbered arguments only: use arg0, arg1, …",
            arguments="registers",
            space="user",
        )
        context.extra["place"] = (targets[0].binary.path, targets[0].places[0][0])
        context.extra["usdt_arguments"] = _operands(targets[0])
        if has_wildcard(rest):
            context.extra["expanded"] = True
        if len(set(names)) > 1:
            user_places.share_names(context, uses, names, system)
        return context

    def _probes(self, wanted: _Wanted, binaries: list[Binary], rest: str) -> list[UsdtTarget]:
        """The probes in all files, places with equal operands together."""
        found: list[UsdtTarget] = []
        for binary in binaries:
            try:
                probes = _read(binary, wanted.binary, rest)
            except NoMatchError:
                if not has_wildcard(wanted.binary.text):
                    raise
                continue
            found += _grouped(binary, [p for p in probes if wanted.matches(p)])
        return found

    def _unknown(self, wanted: _Wanted, binaries: list[Binary], rest: str) -> NoMatchError:
        names = {p.name for b in binaries for p in _read(b, wanted.binary, rest)}
        help_, edits = suggestion(wanted.probe.span, nearest(wanted.probe.text, names))
        label = "no such probe in the file" if names else "the file has no USDT probes"
        return no_match(self.name, rest, wanted.probe.span, label=label, help=help_, edits=edits)

    def target_name(self, context: ProbeContext, target: UsdtTarget) -> str:
        return target.name

    def load_specs(self, context: ProbeContext, system: System) -> list[Load]:
        return user_places.loads(self, context, sum(len(t.places) for t in context.targets), system)

    def attach(
        self, context: ProbeContext, loaded: Sequence[tuple[Load, Program]], system: System
    ) -> list[Link]:
        places = [
            UserPlace(target.binary.path, offset, target, semaphore)
            for target in context.targets
            for offset, semaphore in target.places
        ]
        return user_places.attach(context, loaded, places, system)

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        path = parts[0] if parts else "*"
        if path == "*" and system.pid is None and not parts:
            return
        namespace = parts[1] if len(parts) == 3 else "*"
        probe = parts[-1] if len(parts) > 1 else "*"
        for binary in matching_binaries(path, system):
            try:
                probes = _all_probes(binary)
            except FileError:  # a wildcard may stand for other files, too
                continue
            yield from sorted(
                {
                    f"{self.name}:{binary.name}:{p.provider}:{p.name}"
                    for p in probes
                    if Pattern(namespace or "*").matches(p.provider)
                    and Pattern(probe).matches(p.name)
                }
            )


def _all_probes(binary: Binary) -> list[UsdtProbe]:
    from kcap.symbols.usdt import read_probes

    return read_probes(binary.elf())


def _read(binary: Binary, part: Part, rest: str) -> list[UsdtProbe]:
    readable_elf(binary, part, "usdt", rest)
    return _all_probes(binary)


def _grouped(binary: Binary, probes: list[UsdtProbe]) -> list[UsdtTarget]:
    """One target for each probe and form of its operands."""
    groups: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for probe in probes:
        key = (probe.provider, probe.name, probe.arguments)
        groups.setdefault(key, []).append((probe.offset, probe.semaphore))
    return [
        UsdtTarget(binary, provider, name, tuple(dict.fromkeys(places)), arguments)
        for (provider, name, arguments), places in groups.items()
    ]


def _targets(
    probes: list[UsdtTarget], uses: Collection[str], numbered: bool
) -> Iterator[UsdtTarget]:
    """The probes so that one program can serve all places of each."""
    for target in probes if numbered else _merged(probes):
        if _placed(target, uses, numbered):
            yield from (replace(target, places=(place,)) for place in target.places)
        else:
            yield target


def _placed(target: UsdtTarget, uses: Collection[str], numbered: bool) -> bool:
    """Whether a program is for one place only: it computes addresses from where it was hit."""
    from kcap.symbols.usdt import parse_arguments

    if not numbered:
        return "uaddr" in uses
    symbols = (one.symbol for one in parse_arguments(target.arguments) if not one.of_thread)
    return "uaddr" in uses or any(symbols)


def _operands(target: UsdtTarget) -> list[Argument]:
    """The operands of a probe, with the addresses of variables at its first place."""
    from kcap.functions.uaddr import user_symbol
    from kcap.symbols.usdt import parse_arguments, place_argument

    found, elf = parse_arguments(target.arguments), target.binary.elf()
    here = elf.address_of(target.places[0][0]) or 0
    for at, argument in enumerate(found):
        if argument.symbol:
            if argument.of_thread:
                address = elf.thread_variable(argument.symbol)
            else:
                variable = user_symbol(target.binary.path, argument.symbol)
                address = variable.address if variable is not None else None
            found[at] = place_argument(argument, address, here, elf.fixed)
    return found


def _merged(targets: list[UsdtTarget]) -> list[UsdtTarget]:
    """One target for each probe, whatever the form of its operands."""
    found: dict[str, UsdtTarget] = {}
    for target in targets:
        known = found.get(target.name)
        places = (*known.places, *target.places) if known is not None else target.places
        first = known or target
        found[target.name] = UsdtTarget(
            first.binary, first.provider, first.probe, places, first.arguments
        )
    return list(found.values())
