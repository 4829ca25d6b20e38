# SPDX-License-Identifier: Apache-2.0
"""``kprobe`` and ``kretprobe``: any instruction of, and return from, kernel functions."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from kcap.kernel import uapi
from kcap.probes import serving
from kcap.probes.base import Load, Part, ProbeType, rest_of
from kcap.probes.function_lookup import Lookup, check_module, traceable_modules, untraced
from kcap.probes.names import Pattern, has_wildcard
from kcap.probes.numbers import parse_integer
from kcap.probes.problems import problem
from kcap.probes.traceable import KERNEL, is_unsafe
from kcap.records import dataclass, replace
from kcap.sema.probe import ProbeContext
from kcap.sema.types import UINT64

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.lang.ast import AttachPoint
    from kcap.probes.system import System

MANY_EVENTS = 64
"""From how many functions on reading all symbols of the kernel is worth it."""

_REGISTERS = frozenset(("reg", "ctx"))
"""What reads registers other than those of arguments and returned value."""


@dataclass(frozen=True, slots=True)
class KprobeTarget:
    """A place in the kernel.

    :param name: the function; '' for an address.
    :param module: KERNEL for the kernel itself.
    :param offset: bytes behind the function's start, or the address where there is no function.
    """

    name: str
    module: str = KERNEL
    offset: int = 0

    @property
    def symbol(self) -> str | int:
        """What the kernel is asked for: a name with its module, or an address."""
        if not self.name:
            return self.offset
        return self.name if self.module == KERNEL else f"{self.module}:{self.name}"


class Kprobe(ProbeType):
    """Entry of a kernel function, or any instruction in it."""

    name = "kprobe"
    lasting = True
    aliases = ("k",)
    summary = "Entry of a kernel function, or any instruction in it"
    cost = "a breakpoint, at a function's entry a call through ftrace: several times an fentry's"
    signatures: ClassVar[tuple[str, ...]] = (
        "kprobe[:module]:function",
        "kprobe[:module]:function+offset",
        "kprobe:address",
    )

    returns: ClassVar[bool] = False
    newest_first = True

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        parts = self.parts(point, system, 1, 2)
        if parts[-1].text[:1].isdigit() and len(parts) == 1:
            target = self._address(parts[0], system)
            return [self._context([Part(str(target.offset), parts[0].span)], [target])]
        function, offset = self._offset(parts[-1])
        module = parts[0] if len(parts) == 2 else None
        wanted = Lookup(self.name, rest_of(parts), module, Part(function, parts[-1].span))
        if not has_wildcard(function):
            context = self._context(parts, [self._exact(wanted, offset, system)])
            self._offer_session(context, wanted, uses, system)
            return [context]
        if offset:
            raise self.malformed(parts[-1].span, "a wildcard takes no offset")
        targets = self._expand(wanted, system)
        if serving.must_split(uses, len(targets)):
            return [self._context(self._named(parts, t), [t]) for t in targets]
        if not targets:
            return []
        context = self._shared(parts, targets, uses, system)
        self._offer_session(context, wanted, uses, system)
        return [context]

    def _shared(
        self, parts: list[Part], targets: list[KprobeTarget], uses: Collection[str], system: System
    ) -> ProbeContext:
        """One context for all functions of a wildcard."""
        context = self._context(parts, targets)
        context.extra["many_functions"] = True
        names = [f"{self.name}:{rest_of(self._named(parts, target))}" for target in targets]
        cookies = system.offers("kprobe_multi") or system.offers("perf_link")
        each = not cookies or ("probe" in uses and len(targets) <= serving.FEW)
        serving.share_names(context, uses, names, "load" if each else "cookie")
        context.extra["alike"] = ""  # no program of many functions knows more of them
        return context

    def _offer_session(
        self, context: ProbeContext, wanted: Lookup, uses: Collection[str], system: System
    ) -> None:
        """Note where the program may be joined with that of the functions' other end.

        As in bpftrace: function entries without a module. Sessions come through ftrace, which
        does not save all registers for them (6.14).
        """
        if wanted.module is None and _REGISTERS.isdisjoint(uses) and _are_entries(context, system):
            context.extra["session"] = (wanted.function.text, self.returns)

    def _context(self, parts: list[Part], targets: list[KprobeTarget]) -> ProbeContext:
        context = ProbeContext(
            self.name,
            f"{self.name}:{rest_of(parts)}",
            uapi.BPF_PROG_TYPE_KPROBE,
            targets=tuple(targets),
            arguments="none" if self.returns else "registers",
            retval=UINT64 if self.returns else None,
            function=targets[0].name if len(targets) == 1 else "",
            args_missing=self._args_missing(parts),
        )
        if has_wildcard(rest_of(parts)):
            context.extra["expanded"] = True
        return context

    def target_name(self, context: ProbeContext, target: KprobeTarget) -> str:
        return f"{self.name}:{target.name}" if len(context.targets) > 1 else context.name

    def _args_missing(self, parts: list[Part]) -> str:
        if self.returns:
            return "kretprobe has no arguments; fexit has those of the function and its retval"
        function = rest_of(parts).partition("+")[0]
        return f"kprobe knows no types: use arg0, arg1, …, or fentry:{function}"

    def _named(self, parts: list[Part], target: KprobeTarget) -> list[Part]:
        """The parts that name one target of a wildcard."""
        own = [Part(target.name, parts[-1].span)]
        return [Part(target.module, parts[0].span), *own] if len(parts) == 2 else own

    def _address(self, part: Part, system: System) -> KprobeTarget:
        address = parse_integer(part.text)
        if address is None:
            raise self.malformed(part.span, f"{part.text!r} is neither a function nor an address")
        if not system.unsafe:
            raise problem(
                "unsafe-address",
                f"{self.name} at a bare address needs --unsafe",
                part.span,
                notes=("a probe in the middle of an instruction can crash the machine",),
                help=("name a function and an offset, or give --unsafe",),
            )
        return KprobeTarget("", offset=address)

    def _offset(self, part: Part) -> tuple[str, int]:
        """(function, offset) of ``function+offset``."""
        name, plus, digits = part.text.partition("+")
        if not plus:
            return name, 0
        offset = parse_integer(digits)
        if offset is None:
            raise self.malformed(part.span, f"{digits!r} is no offset")
        if self.returns:
            raise self.malformed(part.span, "a return probe takes no offset")
        return name, offset

    def _exact(self, wanted: Lookup, offset: int, system: System) -> KprobeTarget:
        name = wanted.function.text
        if system.unsafe:
            module = wanted.module.text if wanted.module is not None else KERNEL
            if system.functions is None or name not in system.functions:
                system.warnings.append(untraced(name, wanted.function.span))
                return KprobeTarget(name, module, offset)
        return KprobeTarget(name, traceable_modules(wanted, name, system)[0], offset)

    def _expand(self, wanted: Lookup, system: System) -> list[KprobeTarget]:
        check_module(wanted, system)
        module = Pattern(wanted.module.text.replace("-", "_") if wanted.module else "*")
        return [
            KprobeTarget(n, m) for n, m in _matches(Pattern(wanted.function.text), module, system)
        ]

    def attach_target(
        self, context: ProbeContext, target: KprobeTarget, program: Program, system: System
    ) -> Link:
        from kcap.kernel.errors import AttachError
        from kcap.kernel.links import attach_kprobe

        offset = target.offset if target.name else 0
        cookie = serving.cookie_of(context, target)
        symbol = context.extra.get("entries", {}).get(target, target.symbol)
        try:
            return attach_kprobe(
                program.fileno(),
                symbol,
                offset,
                is_return=self.returns,
                cookie=cookie,
                linked=system.offers("perf_link"),
                what=f"{self.name}:{target.symbol}" if target.name else "",
            )
        except AttachError as error:
            if error.errno != errno.EILSEQ:
                raise
            raise AttachError(
                "Possible attachment attempt in the middle of an instruction, try a different "
                "offset.",
                errno.EILSEQ,
                hint="see where instructions begin: objdump -d of the kernel image",
            ) from error

    def load_specs(self, context: ProbeContext, system: System) -> list[Load]:
        if serving.loaded_for_each(context):
            return serving.each_load(self, context)
        (load,) = super().load_specs(context, system)
        if context.at_return is not None:
            kind = uapi.BPF_TRACE_KPROBE_SESSION
        elif _may_be_multi(context) and system.has("kprobe_multi"):
            kind = uapi.BPF_TRACE_KPROBE_MULTI
        else:
            return [load]
        serving.find_places(context, system)
        return [replace(load, expected_attach_type=kind)]

    def attach(
        self, context: ProbeContext, loaded: Sequence[tuple[Load, Program]], system: System
    ) -> list[Link]:
        load, program = loaded[0]
        session = load.expected_attach_type == uapi.BPF_TRACE_KPROBE_SESSION
        if not session and load.expected_attach_type != uapi.BPF_TRACE_KPROBE_MULTI:
            _find_entries(context, system)
            return super().attach(context, loaded, system)
        attach = partial(
            serving.attach_by_registers,
            context,
            program=program,
            is_return=self.returns,
            session=session,
        )
        return serving.attach_many(context, load.targets, attach, system)

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        module = Pattern(parts[0] if len(parts) > 1 else "*")
        found = _matches(Pattern(parts[-1] if parts else "*"), module, system)
        if len(parts) > 1:
            return iter(sorted(f"{self.name}:{m}:{n}" for n, m in found))
        return iter(sorted(dict.fromkeys([f"{self.name}:{n}" for n, _ in found])))

    def search(self, pattern: str, system: System) -> Iterator[str]:
        return self.names([pattern], system)

    def parameters(self, probe: str, system: System) -> Sequence[str]:
        from kcap.probes.fentry import Fentry

        *module, name = probe.split(":")[1:]
        owners = module or (system.functions.modules_of(name) if system.functions else [KERNEL])
        for owner in owners:
            found = Fentry().parameters(f"fentry:{owner}:{name}", system)
            if found:
                return () if self.returns else found
        return ()


def _are_entries(context: ProbeContext, system: System) -> bool:
    """Whether ftrace knows all targets, so that one link can serve them."""
    if any(target.offset or not target.name for target in context.targets):
        return False
    known = system.functions
    return known is not None and (len(context.targets) > 1 or context.targets[0].name in known)


def _find_entries(context: ProbeContext, system: System) -> None:
    """Look up the addresses of very many functions, where each needs a perf event of its own.

    5.10 looks for a name among all of its symbols one by one, and several times for each event:
    nine tenths of what attaching one takes. Kernels that list addresses themselves do not.
    """
    functions = system.functions
    few = len(context.targets) < MANY_EVENTS or not _may_be_multi(context)
    if few or functions is None or system.lists_addresses:
        return
    places = functions.places_of((target.name, target.module) for target in context.targets)
    if places is not None:
        context.extra["entries"] = dict(zip(context.targets, places, strict=True))


def _may_be_multi(context: ProbeContext) -> bool:
    """Whether several targets are function entries, which one link can serve."""
    return len(context.targets) > 1 and all(t.name and not t.offset for t in context.targets)


class Kretprobe(Kprobe):
    """Return from a kernel function."""

    name = "kretprobe"
    aliases = ("kr",)
    summary = "Return from a kernel function"
    cost = "a kprobe, and another detour at the return; of too many calls at once some are missed"
    signatures = ("kretprobe[:module]:function", "kretprobe:address")
    returns = True
    newest_first = False


def _matches(function: Pattern, module: Pattern, system: System) -> list[tuple[str, str]]:
    """(function, module) of what kprobes can be placed in, sorted."""
    if system.functions is not None:
        found = system.functions.match(function, module)
        blacklist = system.blacklist
        return [item for item in found if item[0] not in blacklist]
    if system.btf is None or not module.matches(KERNEL):
        return []
    names = {name for _, name in system.btf.functions() if function.matches(name)}
    return sorted((name, KERNEL) for name in names if not is_unsafe(name))
