# SPDX-License-Identifier: Apache-2.0
"""``uprobe`` and ``uretprobe``: functions of programs and libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kcap.errors import FileError
from kcap.kernel import uapi
from kcap.probes import serving, user_places
from kcap.probes.base import Load, Part, ProbeType, rest_of
from kcap.probes.binaries import (
    Binary,
    find_binaries,
    is_elf,
    matching_binaries,
    readable_elf,
)
from kcap.probes.demangle import matches_demangled
from kcap.probes.names import Pattern, has_wildcard
from kcap.probes.numbers import parse_integer
from kcap.probes.problems import NoMatchError, no_match, problem, suggestion
from kcap.probes.user_places import UserPlace
from kcap.records import dataclass
from kcap.sema.probe import ProbeContext
from kcap.sema.types import UINT64
from kcap.symbols.demangle import demangled
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.lang.ast import AttachPoint
    from kcap.probes.system import System
    from kcap.symbols.elf import ElfFile, ElfSymbol

_SPLITTING = frozenset(("args", "uaddr"))
"""What differs between the targets of a wildcard, and is compiled in."""
CPP = "cpp"
"""The qualifier that makes names C++ names, as in ``uprobe:binary:cpp:"ns::function"``."""


@dataclass(frozen=True, slots=True)
class UprobeTarget:
    """A place in a file.

    :param binary: the file.
    :param function: the function's symbol; '' for an address outside of any.
    :param offset: bytes from the start of the file.
    """

    binary: Binary
    function: str
    offset: int


class Uprobe(ProbeType):
    """Entry of a function of a program or library, or any instruction in it."""

    name = "uprobe"
    aliases = ("u",)
    summary = "Entry of a function of a program or library"
    cost = "a breakpoint and a way into the kernel and back: more than a microsecond"
    signatures: ClassVar[tuple[str, ...]] = (
        "uprobe:binary:function",
        "uprobe:binary:function+offset",
        "uprobe:binary:address",
        'uprobe:binary:cpp:"name"',
        "uprobe:binary@file:line[:column]",
    )

    returns: ClassVar[bool] = False
    newest_first = True

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        parts = self._parts(point, system)
        rest = rest_of(parts)
        if "@" in parts[0].text:
            return self._at_line(point, parts, system)
        binaries = find_binaries(parts[0], self.name, rest, system)
        system.programs.update(binary.path for binary in binaries)
        targets = self._targets(parts, binaries, system)
        names = [self._name_of(target, parts) for target in targets]
        split = serving.must_split(uses, len(targets)) or not _SPLITTING.isdisjoint(uses)
        if split or len(targets) == 1:
            found = [self._context(n, [t], rest) for n, t in zip(names, targets, strict=True)]
        else:
            found = [self._context(f"{self.name}:{rest}", targets, rest)] if targets else []
            for context in found:
                user_places.share_names(context, uses, names, system)
        if "args" in uses and not self.returns:
            for context in found:
                self._add_arguments(context, system)
        return found

    def _at_line(self, point: AttachPoint, parts: list[Part], system: System) -> list[ProbeContext]:
        """The contexts of ``binary@file:line[:column]``."""
        from kcap.symbols.debugfile import debug_file
        from kcap.symbols.dwarf import line_addresses

        path, _, file = parts[0].text.rpartition("@")
        numbers = [parse_integer(part.text) for part in parts[1:]]
        for part, number in zip(parts[1:], numbers, strict=True):
            if not number:
                raise self.malformed(part.span, f"{part.text!r} is no line or column")
        rest, targets = rest_of(parts), []
        for binary in find_binaries(Part(path, parts[0].span), self.name, rest, system):
            system.programs.add(binary.path)
            elf = binary.elf()
            told = debug_file(binary.path, system.debug_directories)
            for address in line_addresses(told, file, *[n or 0 for n in numbers]) if told else ():
                symbol, place = elf.function_at(address), elf.file_offset(address)
                if place is not None:
                    name = symbol.name if symbol is not None else ""
                    targets.append(UprobeTarget(binary, name, place))
        if not targets:
            raise no_match(
                self.name,
                rest,
                point.parts[-1].span,
                label="no code of this line",
                notes=("debugging information (DWARF) tells which code belongs to a line",),
                help=("name a line that has code of its own: a statement, or a function's head",),
            )
        return [self._context(f"{self.name}:{rest}", targets, rest)]

    def _add_arguments(self, context: ProbeContext, system: System) -> None:
        """Give a context of one target its ``args``, if the file tells them."""
        from kcap.probes.user_args import arguments

        (target,) = context.targets
        symbol = _symbol(target.binary, target.function, system)
        if symbol is not None and target.binary.elf().file_offset(symbol.address) == target.offset:
            path = target.binary.path
            try:
                found = arguments(
                    path, symbol.name, symbol.address, system.types, system.debug_directories
                )
            except FileError as error:
                context.args_missing = str(error)
                return
            if found is not None:
                context.args, context.extra["slot_places"] = found

    def _parts(self, point: AttachPoint, system: System) -> list[Part]:
        """(binary, function) or (binary, qualifier, function)."""
        parts = self.parts(point, system, 2, 3)
        if len(parts) == 3 and parts[1].text != CPP and "@" not in parts[0].text:
            raise self.malformed(parts[1].span, f"{parts[1].text!r} is no language: cpp")
        return parts

    def target_name(self, context: ProbeContext, target: UprobeTarget) -> str:
        if len(context.targets) < 2 or not target.function:
            return context.name
        return f"{self.name}:{target.binary.name}:{target.function}"

    def _context(self, name: str, targets: list[UprobeTarget], rest: str) -> ProbeContext:
        context = ProbeContext(
            self.name,
            name,
            uapi.BPF_PROG_TYPE_KPROBE,
            targets=tuple(targets),
            args_missing=self._args_missing(),
            arguments="none" if self.returns else "registers",
            retval=UINT64 if self.returns else None,
            space="user",
            function=targets[0].function if len(targets) == 1 else "",
        )
        if len(targets) == 1:
            context.extra["place"] = (targets[0].binary.path, targets[0].offset)
        if has_wildcard(rest):
            context.extra["expanded"] = True
        return context

    def _args_missing(self) -> str:
        if self.returns:
            return "arguments are gone when the function returns"
        return "no debugging information (DWARF) tells the function's arguments: use arg0, arg1, …"

    def _name_of(self, target: UprobeTarget, parts: list[Part]) -> str:
        """The full name of one target; a function in it stands for itself, all else as written."""
        last = parts[-1].text
        if has_wildcard(last):
            last = target.function
        return ":".join([self.name, target.binary.name, *(p.text for p in parts[1:-1]), last])

    # What there is

    def _targets(
        self, parts: list[Part], binaries: list[Binary], system: System
    ) -> list[UprobeTarget]:
        found: list[UprobeTarget] = []
        refused: NoMatchError | None = None
        for binary in binaries:
            try:
                found += self._in_binary(parts, binary, system)
            except NoMatchError as error:
                refused = refused or error
        # One file of several having it is enough.
        if refused is not None and not found and not has_wildcard(parts[-1].text):
            raise refused
        return found

    def _in_binary(self, parts: list[Part], binary: Binary, system: System) -> list[UprobeTarget]:
        last = parts[-1]
        if last.text[:1].isdigit() and system.unsafe and not is_elf(binary.path):
            return [self._flat(last, binary)]
        elf = readable_elf(binary, parts[0], self.name, rest_of(parts))
        if len(parts) == 3 or has_wildcard(last.text):
            symbols = _matching(elf, last.text, cpp=len(parts) == 3)
            if not symbols and not has_wildcard(last.text):
                raise self._unknown(parts, elf)
            return _places(binary, elf, symbols)
        if last.text[:1].isdigit():
            return [self._address(parts, binary, elf, system)]
        return [self._function(parts, binary, elf, system)]

    def _function(
        self, parts: list[Part], binary: Binary, elf: ElfFile, system: System
    ) -> UprobeTarget:
        last = parts[-1]
        symbol, offset = _symbol(binary, last.text, system), 0
        if symbol is None and "+" in last.text:
            name, _, digits = last.text.rpartition("+")
            number = parse_integer(digits)
            if number is None:
                raise self.malformed(last.span, f"{digits!r} is no offset")
            symbol, offset = _symbol(binary, name, system), number
        if symbol is None:
            raise self._unknown(parts, elf)
        if self.returns and offset:
            raise self.malformed(last.span, "a return probe takes no offset")
        _check_place(symbol, offset, last, system)
        place = elf.file_offset(symbol.address + offset)
        if place is None:
            raise self._unknown(parts, elf)
        return UprobeTarget(binary, symbol.name, place)

    def _address(
        self, parts: list[Part], binary: Binary, elf: ElfFile, system: System
    ) -> UprobeTarget:
        last = parts[-1]
        address = parse_integer(last.text)
        if address is None:
            raise self.malformed(last.span, f"{last.text!r} is no address")
        symbol, place = elf.function_at(address), elf.file_offset(address)
        if place is None or (symbol is None and not system.unsafe):
            raise problem(
                "unknown-address",
                f"Could not resolve address: {binary.name}:{address:#x}",
                last.span,
                label="no function is there",
                help=("give --unsafe to probe it all the same",) if place is not None else (),
            )
        if symbol is not None:
            _check_place(symbol, address - symbol.address, last, system)
        return UprobeTarget(binary, symbol.name if symbol is not None else "", place)

    def _flat(self, part: Part, binary: Binary) -> UprobeTarget:
        """A place in a file of bare instructions: its address is where it is in the file."""
        offset = parse_integer(part.text)
        if offset is None:
            raise self.malformed(part.span, f"{part.text!r} is no address")
        return UprobeTarget(binary, "", offset)

    def _unknown(self, parts: list[Part], elf: ElfFile) -> NoMatchError:
        last = parts[-1]
        name = last.text.partition("+")[0]
        near = nearest(name, (symbol.name for symbol in elf.functions))
        help_, edits = suggestion(last.span, near, name)
        notes = []
        if not elf.section(".symtab"):
            notes.append("the file is stripped: only its exported functions have names")
        return no_match(
            self.name,
            rest_of(parts),
            last.span,
            label="no such function in the file",
            notes=notes,
            help=help_,
            edits=edits,
        )

    # Loading and attaching

    def load_specs(self, context: ProbeContext, system: System) -> list[Load]:
        return user_places.loads(self, context, len(context.targets), system)

    def attach(
        self, context: ProbeContext, loaded: Sequence[tuple[Load, Program]], system: System
    ) -> list[Link]:
        places = [UserPlace(t.binary.path, t.offset, t) for t in context.targets]
        return user_places.attach(context, loaded, places, system, is_return=self.returns)

    # Lists

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        path = parts[0] if len(parts) > 1 or (parts and system.pid is None) else "*"
        if path == "*" and system.pid is None:
            return
        wanted = parts[-1] if len(parts) > 1 else "*"
        cpp = len(parts) == 3 and parts[1] == CPP
        for binary in matching_binaries(path, system):
            try:
                elf = binary.elf()
            except FileError:  # a wildcard may stand for other files, too
                continue
            found: Iterable[str]
            if cpp:
                found = sorted({symbol.name for symbol in _matching(elf, wanted, cpp)})
            else:
                found = filter(Pattern(wanted).matches, elf.function_names)
            start = f"{self.name}:{binary.name}:"
            yield from (start + name for name in found)

    def parameters(self, probe: str, system: System) -> Sequence[str]:
        from kcap.probes.user_args import listing

        path, _, function = probe.partition(":")[2].rpartition(":")
        if self.returns:
            return []
        for binary in matching_binaries(path, system):
            symbol = _symbol(binary, function, system)
            if symbol is not None:
                return listing(binary.path, symbol.name, symbol.address, system.debug_directories)
        return []


class Uretprobe(Uprobe):
    """Return from a function of a program or library."""

    name = "uretprobe"
    aliases = ("ur",)
    summary = "Return from a function of a program or library"
    cost = "twice that of uprobe: at the entry and at the return"
    signatures = ("uretprobe:binary:function", 'uretprobe:binary:cpp:"name"')
    returns = True


def _symbol(binary: Binary, name: str, system: System) -> ElfSymbol | None:
    """A function of a file; of a stripped one, as its separate debugging information has it."""
    found = binary.elf().function(name)
    if found is not None:
        return found
    from kcap.symbols.debugfile import debug_file
    from kcap.symbols.elf import ElfFile

    other = debug_file(binary.path, system.debug_directories)
    return ElfFile(other).function(name) if other and other != binary.path else None


def _matching(elf: ElfFile, text: str, cpp: bool) -> list[ElfSymbol]:
    """The functions that a name or pattern stands for."""
    if cpp:
        return [s for s in elf.functions if matches_demangled(text, demangled(s.name))]
    wanted = Pattern(text)
    return [symbol for symbol in elf.functions if wanted.matches(symbol.name)]


def _places(binary: Binary, elf: ElfFile, symbols: list[ElfSymbol]) -> list[UprobeTarget]:
    """One target for each place in the file; of several names for one the first."""
    found: dict[int, UprobeTarget] = {}
    for symbol in symbols:
        place = elf.file_offset(symbol.address)
        if place is not None:
            found.setdefault(place, UprobeTarget(binary, symbol.name, place))
    return sorted(found.values(), key=lambda target: target.function)


def _check_place(symbol: ElfSymbol, offset: int, part: Part, system: System) -> None:
    """See to it that a probe stands where an instruction of the function begins.

    A breakpoint inside an instruction makes the process execute something else, so what can't be
    known to be right needs ``--unsafe``.

    :raises ScriptError: it doesn't, or that can't be told.
    """
    if system.unsafe:
        return
    danger = "This option could lead to data corruption in the target process."
    unsafe = f"Use --unsafe to force attachment. WARNING: {danger}"
    if symbol.size == 0:
        title = f"Could not determine boundary for {symbol.name} (symbol has size 0)."
        raise problem("unknown-boundary", title, part.span, help=(unsafe,))
    if offset >= symbol.size:
        title = f"Offset outside the function bounds ('{symbol.name}' size is {symbol.size})"
        raise problem("outside-function", title, part.span)
    if offset:
        title = f"can't tell whether an instruction begins at {symbol.name}+{offset}"
        raise problem("unknown-boundary", title, part.span, help=(unsafe,))
