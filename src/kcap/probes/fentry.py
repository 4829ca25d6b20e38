# SPDX-License-Identifier: Apache-2.0
"""``fentry`` and ``fexit``: entry of and return from kernel functions, with typed arguments.

The kernel wants the BTF id of the function when the program is loaded, so there is one loading a
function, unless many are served at once (:mod:`kcap.probes.serving`). ``fentry:bpf:…`` traces
functions of loaded BPF programs; their types are those of the program's own BTF.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kcap import btf as b
from kcap.kernel import uapi
from kcap.probes import args, serving
from kcap.probes.base import Load, Part, rest_of
from kcap.probes.btf_targets import BtfProbe, BtfTarget
from kcap.probes.function_lookup import Lookup, ambiguous, check_module, traceable_modules
from kcap.probes.names import Pattern, has_wildcard
from kcap.probes.problems import no_match, problem, suggestion
from kcap.probes.system import BPF
from kcap.probes.traceable import KERNEL, is_unsafe
from kcap.records import replace
from kcap.sema.probe import ProbeContext
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.lang.ast import AttachPoint
    from kcap.probes.system import System

_TYPED = frozenset(("args", "retval"))
"""Builtins whose type follows from the function's prototype."""


class Fentry(BtfProbe):
    """Entry of a kernel function."""

    name = "fentry"
    lasting = True
    aliases = ("f", "kfunc")
    summary = "Entry of a kernel function, with typed arguments (needs BTF)"
    cost = "a direct call from the function's entry: the cheapest probe"
    signatures = ("fentry[:module]:function", "fentry:bpf[:id]:function")
    newest_first = True

    attach_type: ClassVar[int] = uapi.BPF_TRACE_FENTRY
    returns: ClassVar[bool] = False

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        parts = self.parts(point, system, 1, 3)
        if parts[0].text == "bpf":
            return self._in_programs(parts, uses, system)
        if len(parts) > 2:
            raise self.malformed(parts[2].span, "too many parts")
        if system.btf is None:
            raise self._no_btf(point, parts)
        wanted = Lookup(self.name, rest_of(parts), parts[0] if len(parts) == 2 else None, parts[-1])
        targets = self._targets(wanted, system)
        return self._contexts(wanted, targets, uses, system)

    def _in_programs(
        self, parts: list[Part], uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        """``bpf[:id]:function``: functions of BPF programs; of all programs that have one."""
        if len(parts) < 2:
            raise self.malformed(parts[0].span.at_end(), "the function's name is missing")
        wanted = Lookup(self.name, rest_of(parts), None, parts[-1])
        targets = _in_programs([part.text for part in parts[1:]], system)
        if targets:
            return self._contexts(wanted, targets, uses, system, many=True)
        if has_wildcard(parts[-1].text) and system.bpf_functions is not None:
            return []
        known = [name for _, name, _ in system.bpf_functions or ()]
        help_, edits = suggestion(parts[-1].span, nearest(parts[-1].text, known))
        raise no_match(
            self.name,
            wanted.rest,
            parts[-1].span,
            label="no BPF program has such a function",
            notes=(f"list them: kcap -l '{self.name}:bpf:*'; programs without BTF are not there",),
            help=help_,
            edits=edits,
        )

    def _targets(self, wanted: Lookup, system: System) -> list[BtfTarget]:
        module = wanted.module.text if wanted.module is not None else ""
        if has_wildcard(wanted.function.text):
            check_module(wanted, system)
            pattern = Pattern(module.replace("-", "_") or "*")
            return list(_expand(Pattern(wanted.function.text), pattern, system))
        name = wanted.function.text
        modules = traceable_modules(wanted, name, system)
        if has_wildcard(module):
            found = [_find(name, m, system) for m in modules]
            return [target for target in found if target is not None]
        if len(modules) > 1:
            raise ambiguous(wanted, name, modules)
        return [_checked(wanted, name, modules[0], system)]

    def _contexts(
        self,
        wanted: Lookup,
        targets: list[BtfTarget],
        uses: Collection[str],
        system: System,
        *,
        many: bool = False,
    ) -> list[ProbeContext]:
        """One context for the targets that a compiled program can serve alike.

        :param many: the name may stand for many though it is no wildcard.
        """
        way: serving.Way = "each"
        if not any(target.program for target in targets):
            way = serving.choose(uses, len(targets), self.returns, system)
        groups: dict[object, list[BtfTarget]] = {}
        ways: dict[object, serving.Way] = {}
        for target in targets:
            own = way
            if way == "kprobe_multi" and not _is_typed(uses).isdisjoint(uses):
                btf = system.module_btf(target.module)
                if btf is None or not serving.in_registers(btf, _proto_of(btf, target.btf_id)):
                    own = "each"
            key = (own, _group_key(target, uses, system, own))
            groups.setdefault(key, []).append(target)
            ways[key] = own
        contexts = []
        for alike, group in groups.items():
            served = ways[alike] if len(group) > 1 else "each"
            contexts.append(self._context(wanted, group, uses, system, served))
            if served != "each":
                contexts[-1].extra["alike"] = alike
        for context in contexts if many and len(targets) > 1 else ():
            context.extra["expanded"] = True
        return contexts

    def _context(
        self,
        wanted: Lookup,
        targets: list[BtfTarget],
        uses: Collection[str],
        system: System,
        way: serving.Way,
    ) -> ProbeContext:
        first, one = targets[0], len(targets) == 1
        by_kprobe = way == "kprobe_multi"
        context = ProbeContext(
            self.name,
            f"{self.name}:{first.module}:{first.name}" if one else f"{self.name}:{wanted.rest}",
            uapi.BPF_PROG_TYPE_KPROBE if by_kprobe else uapi.BPF_PROG_TYPE_TRACING,
            self._attach_type(way),
            targets=tuple(targets),
            arguments="slots",
            function=first.name if one else "",
        )
        if has_wildcard(wanted.rest):
            context.extra["expanded"] = True
        context.extra["way"] = way
        context.extra["untyped"] = way != "each" or bool(first.program)
        context.extra["many_functions"] = not one
        names = [self.target_name(context, target) for target in targets]
        serving.share_names(context, uses, names, "load" if way == "each" else "cookie")
        if one or not _is_typed(uses).isdisjoint(uses):
            typed = not context.extra["untyped"]
            self._add_values(context, _prototype(first, system, vouched=typed))
        else:
            context.args_missing = f"{wanted.rest} stands for functions with different arguments"
        return context

    def _add_values(self, context: ProbeContext, prototype: args.Prototype) -> None:
        """Say where the program finds the arguments and the returned value."""
        extra, by_kprobe = context.extra, context.extra["way"] == "kprobe_multi"
        context.args = prototype.args
        extra["slots"] = prototype.slots
        extra["helper_slots"] = serving.all_slots() if extra["untyped"] else prototype.helper_slots
        if by_kprobe:
            extra["slot_places"] = serving.register_slots()
        if self.returns:
            context.retval = prototype.retval
            if not by_kprobe:
                extra["retval_slot"] = prototype.slots

    def _attach_type(self, way: serving.Way) -> int:
        """What a program is loaded for that serves functions in a way."""
        if way == "kprobe_multi":
            return uapi.BPF_TRACE_KPROBE_MULTI
        if way == "tracing_multi":
            return uapi.BPF_TRACE_FEXIT_MULTI if self.returns else uapi.BPF_TRACE_FENTRY_MULTI
        return self.attach_type

    def programs(self, context: ProbeContext) -> int:
        return len(context.targets) if context.extra["way"] == "each" else 1

    def load_specs(self, context: ProbeContext, system: System) -> list[Load]:
        if context.extra["way"] != "each":
            if context.extra["way"] == "kprobe_multi":
                serving.find_places(context, system)
            return [self._load_for_many(context)]
        return super().load_specs(context, system)

    def _load_for_many(self, context: ProbeContext) -> Load:
        return Load(
            f"{self.name}_multi",
            tuple(context.targets),
            context.program_type,
            context.attach_type,
            attach_btf_module=context.targets[0].in_module,
        )

    def attach(
        self, context: ProbeContext, loaded: Sequence[tuple[Load, Program]], system: System
    ) -> list[Link]:
        if context.extra["way"] == "each":
            return super().attach(context, loaded, system)
        ((load, program),) = loaded

        def attach(targets: Sequence[BtfTarget]) -> Link:
            return self._attach_to_many(context, targets, program)

        return serving.attach_many(context, load.targets, attach, system)

    def _attach_to_many(
        self, context: ProbeContext, targets: Sequence[BtfTarget], program: Program
    ) -> Link:
        if context.extra["way"] == "kprobe_multi":
            return serving.attach_by_registers(context, targets, program, is_return=self.returns)
        from kcap.kernel.links import attach_tracing_multi

        ids = [target.btf_id for target in targets]
        cookies = [serving.index_of(context, target) for target in targets]
        fd = program.fileno()
        return attach_tracing_multi(fd, ids, context.name, context.attach_type, cookies)

    def attach_target(
        self, context: ProbeContext, target: BtfTarget, program: Program, system: System
    ) -> Link:
        from kcap.kernel.links import attach_tracing

        return attach_tracing(program.fileno(), f"{self.name}:{target.module}:{target.name}")

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        if len(parts) > 1 and parts[0] == "bpf":
            found_there = _in_programs(parts[1:], system)
            return iter(sorted(f"{self.name}:{t.module}:{t.name}" for t in found_there))
        module = Pattern(parts[0] if len(parts) > 1 else "*")
        function = Pattern(parts[-1] if parts else "*")
        found = _known(function, module, system)
        return iter(sorted(f"{self.name}:{owner}:{n}" for owner, names in found for n in names))

    def search(self, pattern: str, system: System) -> Iterator[str]:
        return self.names([pattern], system)

    def parameters(self, probe: str, system: System) -> Sequence[str]:
        module, name = probe.partition(":")[2].rsplit(":", 1)
        type_id = system.function_ids(module).get(name)
        if type_id is None:
            return ()
        return system.signatures(module).parameters(type_id, returned=self.returns)

    def _no_btf(self, point: AttachPoint, parts: list[Part]) -> Exception:
        return problem(
            "no-btf",
            f"{self.name} needs BTF, and the kernel has none",
            point.span,
            label="no /sys/kernel/btf/vmlinux",
            help=(
                f"use {'kretprobe' if self.returns else 'kprobe'}:{rest_of(parts)}, which needs "
                "none, or a kernel built with CONFIG_DEBUG_INFO_BTF=y",
            ),
        )


class Fexit(Fentry):
    """Return from a kernel function."""

    name = "fexit"
    aliases = ("fr", "kretfunc")
    summary = "Return from a kernel function, with its arguments and the returned value"
    cost = "little more than fentry: the trampoline calls the function, then the program"
    signatures = ("fexit[:module]:function", "fexit:bpf[:id]:function")
    attach_type = uapi.BPF_TRACE_FEXIT
    returns = True


def _is_typed(uses: Collection[str]) -> frozenset[str]:
    """The used builtins that depend on the prototype: ``args``, ``retval``, ``argN``."""
    numbered = {name for name in uses if name.startswith("arg") and name[3:].isdigit()}
    return _TYPED | numbered


def _group_key(
    target: BtfTarget, uses: Collection[str], system: System, way: serving.Way
) -> object:
    """Equal for targets that one compiled program can serve."""
    if serving.must_split(uses):
        return target
    key: list[object] = []
    if way == "tracing_multi":
        key.append(target.module)
    if way == "each" and not _is_typed(uses).isdisjoint(uses):
        key.append(_prototype(target, system).key)
    elif not _TYPED.isdisjoint(uses):
        seen = _prototype(target, system, vouched=False)
        key.append((seen.args.origin if "args" in uses else None, str(seen.retval), seen.slots))
    return tuple(key)


def _proto_of(btf: b.Btf, type_id: int) -> b.FuncProto:
    function = btf.type(type_id)
    assert isinstance(function, b.Func)
    return btf.prototype(function)


def _prototype(target: BtfTarget, system: System, *, vouched: bool = True) -> args.Prototype:
    from kcap.kernel.features import PROGRAM_ARGUMENTS, untyped_function

    btf = system.module_btf(target.module)
    assert btf is not None
    proto = _proto_of(btf, target.btf_id)
    found = args.prototype(
        system.types, btf, proto, target.name, vouched=vouched, of_program=bool(target.program)
    )
    fewer = target.program and found.slots < PROGRAM_ARGUMENTS
    if fewer and untyped_function(target.program, target.btf_id):
        return replace(found, slots=PROGRAM_ARGUMENTS)
    return found


def _in_programs(parts: Sequence[str], system: System) -> list[BtfTarget]:
    """The functions of BPF programs that ``[id:]name`` stands for."""
    wanted = Pattern(parts[0] if len(parts) > 1 else "*")
    function = Pattern(parts[-1])
    return [
        BtfTarget(name, f"{BPF}{number}", type_id)
        for number, name, type_id in system.bpf_functions or ()
        if wanted.matches(str(number)) and function.matches(name)
    ]


def _find(name: str, module: str, system: System) -> BtfTarget | None:
    """The function in the module's own BTF, if it is there and can be attached to."""
    btf = system.module_btf(module)
    function = next(btf.find_all(name, b.Func), None) if btf is not None else None
    if btf is None or function is None:
        return None
    if args.refusal(btf, btf.prototype(function), structs=system.takes_structs):
        return None
    return BtfTarget(name, module, function.id)


def _checked(wanted: Lookup, name: str, module: str, system: System) -> BtfTarget:
    """The function, which is traceable; an error says why it can't be had by this probe type."""
    kprobe = "kretprobe" if wanted.provider == "fexit" else "kprobe"
    instead = (f"use {kprobe}:{name}, which needs no BTF",)
    btf = system.module_btf(module)
    if btf is None:
        title = f"{wanted.provider}: module {module} has no BTF"
        notes = ("module BTF needs Linux 5.11 and CONFIG_DEBUG_INFO_BTF_MODULES=y",)
        raise problem("no-btf", title, wanted.function.span, notes=notes, help=instead)
    function = next(btf.find_all(name, b.Func), None)
    if function is None:
        title = f"{wanted.provider}: BTF has no function {name}"
        notes = (
            "functions whose copies differ, or that the compiler gave other arguments, are left "
            "out of BTF",
        )
        raise problem("no-btf", title, wanted.function.span, notes=notes, help=instead)
    reason = args.refusal(btf, btf.prototype(function), structs=system.takes_structs)
    if reason:
        title = f"{wanted.provider} can't trace {name}: {reason}"
        raise problem("not-attachable", title, wanted.function.span, help=instead)
    return BtfTarget(name, module, function.id)


def _expand(function: Pattern, module: Pattern, system: System) -> Iterator[BtfTarget]:
    """The functions that patterns stand for and the kernel takes, its own first, sorted."""
    for owner, names in _known(function, module, system):
        btf = system.module_btf(owner)
        assert btf is not None
        ids = system.function_ids(owner)
        for name in names:
            proto = _proto_of(btf, ids[name])
            if not args.refusal(btf, proto, structs=system.takes_structs):
                yield BtfTarget(name, owner, ids[name])


def _known(function: Pattern, module: Pattern, system: System) -> Iterator[tuple[str, list[str]]]:
    """(module, sorted names) of the traceable functions that patterns stand for and BTF has."""
    traceable = _traceable(function, module, system)
    for owner in (KERNEL, *system.btf_modules):
        if not module.matches(owner) or (traceable is not None and owner not in traceable):
            continue
        ids = system.function_ids(owner)
        if traceable is not None:
            yield owner, [name for name in traceable[owner] if name in ids]
        else:
            yield owner, sorted(n for n in ids if function.matches(n) and not is_unsafe(n))


def _traceable(function: Pattern, module: Pattern, system: System) -> dict[str, list[str]] | None:
    """Names of traceable functions by module, sorted, or None if the kernel doesn't tell."""
    if system.functions is None:
        return None
    found: dict[str, list[str]] = {}
    for name, owner in system.functions.match(function, module):
        found.setdefault(owner, []).append(name)
    return found
