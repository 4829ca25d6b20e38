# SPDX-License-Identifier: Apache-2.0
"""What a probe type is.

A probe type is one class in one module: how it is written, what it stands for on this machine,
what its programs see, how they are loaded and attached. ``registry`` collects them.

What the session does with a :class:`~kcap.sema.probe.ProbeContext` of probe type ``P``::

    for load in P.load_specs(context, system):           # usually one; one a target for fentry
        program = loader.load(load.apply(program_spec))   # type, attach_btf_id, flags filled in
        loaded.append((load, program))
    links += P.attach(context, loaded, system)
    ...
    kcap.kernel.links.close_all(links)                    # detaches all in bulk

A program is compiled once for a context. Where ``programs_per_target`` is true, the kernel wants
to know the target when the program is loaded (``attach_btf_id``), so the same instructions are
loaded once for each target; load_specs says with which parameters. Probe types whose ``manual`` is
true attach to nothing: the session runs their programs itself (BPF_PROG_TEST_RUN), at the time
their name says.

Resolving an attach point yields one context for all targets that a program can serve alike, and
splits them only where the block uses something that differs (``probe``, ``func``, ``args``).

What ``context.extra`` may hold: ``slots`` (how many argument slots a tracing program has) and
``retval_slot`` (where fexit has the returned value), ``helper_slots`` (offsets of slots that only
a helper may read), ``untyped`` (the verifier knows no types of them), ``slot_places`` (of programs
that have no slots, where the values are: bytes from the start of the context, or, of what is in
memory, where the context has the register that points there, and bytes behind that);
``usdt_arguments`` (operands of ``argN``);
``target_names`` and ``target_index`` (see :mod:`kcap.functions.target_names`), ``target_indices``
(the number of each target), ``many_functions`` (``func`` differs between targets), ``way`` (see
:mod:`kcap.probes.serving`), ``places`` (where in the kernel each target is), ``entries`` (the same
by target), ``alike`` (see :mod:`kcap.probes.joining`); ``title`` (what its program is called, if
not by its name); of kprobes that may be part of a session ``session`` (what both name, whether it
is the return); of iterators ``ctx_type``, ``ctx_space`` (what ``ctx`` points to, how it is read)
and ``ctx_object`` (offset of the pointer in the context that is NULL when there is nothing to do);
``expanded``.

Where a wildcard stands for many targets (``context.extra["expanded"]``), some may turn out not to
be attachable: the session may go on without a target whose program the kernel refuses to load, and
attach() goes on without one that it refuses to attach, noting it in ``system.skipped``, as long as
one is left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kcap.codegen.module import TARGET_ADDRESS, TARGET_INDEX
from kcap.kernel import uapi
from kcap.probes.names import Pattern
from kcap.probes.problems import problem, wrong_form
from kcap.records import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from kcap.kernel.errors import AttachError
    from kcap.kernel.links import Link
    from kcap.kernel.programs import Program
    from kcap.kernel.spec import FunctionSpec, ProgramSpec
    from kcap.lang.ast import AttachPoint
    from kcap.lang.diagnostic import ScriptError
    from kcap.lang.source import Span
    from kcap.probes.system import System
    from kcap.sema.probe import ProbeContext


MULTI = {
    uapi.BPF_TRACE_KPROBE_MULTI: "one kprobe_multi link",
    uapi.BPF_TRACE_KPROBE_SESSION: "one kprobe_session link, entry and return",
    uapi.BPF_TRACE_UPROBE_MULTI: "one uprobe_multi link",
    uapi.BPF_TRACE_FENTRY_MULTI: "one tracing_multi link",
    uapi.BPF_TRACE_FEXIT_MULTI: "one tracing_multi link",
}
"""Attach types of programs that one link serves many targets with."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an attach point after positional parameters were put in.

    :param text: such as ``tcp_*``.
    :param span: where it stands in the script.
    """

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Load:
    """One loading of a context's program.

    :param name: the program's name, for messages; if it is for one of several targets, also for the
        kernel's lists.
    :param targets: the targets of the context that this program serves.
    :param type: BPF_PROG_TYPE_*.
    :param expected_attach_type: BPF_TRACE_FENTRY and so on, or 0.
    :param attach_btf_id: the BTF id of the function or typedef it attaches to, or 0.
    :param attach_btf_module: the module whose BTF that id is from; '' for the kernel itself.
    :param attach_program: the BPF program whose BTF that id is from, or 0.
    :param flags: BPF_F_SLEEPABLE and so on.
    :param index: the number that the program takes its target for (``target_index: load``).
    :param function: the function that it is loaded for, or ''.
    :param alone: it is for one of several targets.
    """

    name: str
    targets: tuple[Any, ...]
    type: int
    expected_attach_type: int = 0
    attach_btf_id: int = 0
    attach_btf_module: str = ""
    attach_program: int = 0
    flags: int = 0
    index: int = 0
    function: str = ""
    alone: bool = False

    def apply(self, spec: ProgramSpec) -> ProgramSpec:
        """``spec`` (the compiled program) with what this loading needs filled in."""
        return replace(
            spec,
            name=self.name,
            type=self.type,
            expected_attach_type=self.expected_attach_type,
            attach_btf_id=self.attach_btf_id,
            attach_btf_module=self.attach_btf_module,
            attach_program=self.attach_program,
            flags=spec.flags | self.flags,
            constants=self._constants(spec),
            functions=self._functions(spec),
        )

    def _functions(self, spec: ProgramSpec) -> tuple[FunctionSpec, ...]:
        """The program's functions; the first, by whose name the kernel lists it, is named after the
        one of several targets that it is for."""
        if not self.alone or not spec.functions:
            return spec.functions
        main, *others = spec.functions
        return (replace(main, name=self.name), *others)

    def _constants(self, spec: ProgramSpec) -> tuple[tuple[str, int], ...]:
        """The numbers that the program wants."""
        from kcap.functions.symbols import kernel_address

        wanted = {relocation.symbol for relocation in spec.relocations}
        found = [*spec.constants]
        if TARGET_INDEX in wanted:
            found.append((TARGET_INDEX, self.index))
        if TARGET_ADDRESS in wanted:
            found.append((TARGET_ADDRESS, kernel_address(self.function)))
        return tuple(found)


class ProbeType(ABC):
    """A probe type.

    :cvar name: its full name, as the script and messages write it.
    :cvar aliases: short and old names.
    :cvar summary: one line on what it traces.
    :cvar cost: what an event costs, in words.
    :cvar signatures: how it is written, one a variant.
    :cvar manual: attaches to nothing; the session runs its programs.
    :cvar lasting: what an attach point stands for follows from the running kernel with its modules,
        and from what :class:`~kcap.probes.system.System` notes. Programs and libraries change.
    :cvar programs_per_target: the kernel wants one loaded program a target.
    :cvar alone: can't share a script with other probes.
    :cvar newest_first: of several programs at one place the kernel runs the one first that was
        attached last, so the session attaches them from the script's end. (Lists of consumers in
        kernel/events/uprobes.c, kernel/kprobes.c and kernel/bpf/trampoline.c that grow at their
        head; those of tracepoints, perf events and kretprobes grow at the end.)
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str]
    cost: ClassVar[str] = ""
    signatures: ClassVar[tuple[str, ...]] = ()
    manual: ClassVar[bool] = False
    lasting: ClassVar[bool] = False
    programs_per_target: ClassVar[bool] = False
    alone: ClassVar[bool] = False
    newest_first: ClassVar[bool] = False

    @abstractmethod
    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        """The contexts of an attach point; see :class:`~kcap.sema.probe.ProbeResolver`.

        :return: empty if a wildcard stands for nothing.
        :raises NoMatchError: what it names does not exist or can't be probed.
        :raises ScriptError: it is not written as it should be.
        """

    def programs(self, context: ProbeContext) -> int:
        """How many programs are loaded for a context."""
        each = self.programs_per_target or context.extra.get("target_index") == "load"
        return max(1, len(context.targets)) if each else 1

    def load_specs(self, context: ProbeContext, system: System) -> list[Load]:
        """How the context's program is to be loaded: once, unless ``programs_per_target``."""
        return [
            Load(context.name, tuple(context.targets), context.program_type, context.attach_type)
        ]

    def attach(
        self, context: ProbeContext, loaded: Sequence[tuple[Load, Program]], system: System
    ) -> list[Link]:
        """Attach the loaded programs to their targets, one link each.

        Probe types that have another way to attach many at once override this.

        :param loaded: what load_specs said, with the program that was loaded for it.
        :return: what keeps them attached; ``kcap.kernel.links.close_all`` detaches in bulk.
        :raises AttachError: the kernel refuses; what was attached already is detached.
        """
        attached = _Attached(bool(context.extra.get("expanded")), system)
        wanted = [(program, target) for load, program in loaded for target in load.targets]
        for done, (program, target) in enumerate(wanted, 1):
            attached.add(partial(self.attach_target, context, target, program, system))
            system.progress("attaching", done, len(wanted))
        return attached.links()

    def way(self, context: ProbeContext, loads: Sequence[Load]) -> str:
        """How several targets are attached, in words."""
        kinds = {load.expected_attach_type for load in loads}
        return next((MULTI[kind] for kind in kinds if kind in MULTI), "one link each")

    def attach_target(
        self, context: ProbeContext, target: Any, program: Program, system: System
    ) -> Link:
        """Attach a program to one target.

        :raises AttachError: the kernel refuses.
        """
        raise NotImplementedError(f"{self.name} attaches to nothing")

    def watches(self, context: ProbeContext, address: int) -> bool:
        """Whether it is what ``unwatch(address)`` takes away."""
        return False

    def target_name(self, context: ProbeContext, target: Any) -> str:
        """The full name of one of the context's targets."""
        return context.name

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        """Full names of the probes that exist, sorted, for ``-l``.

        :param parts: patterns for what follows the provider; empty lists all.
        """
        return iter(())

    def search(self, pattern: str, system: System) -> Iterator[str]:
        """Full names of the probes that ``-l PATTERN`` means: a pattern without any colon, for
        all or the last part of what follows the provider."""
        wanted = Pattern(pattern)
        for name in self.names([], system):
            rest = name.partition(":")[2] or name
            if wanted.matches(rest) or wanted.matches(rest.rpartition(":")[2]):
                yield name

    def parameters(self, probe: str, system: System) -> Sequence[str]:
        """The fields of ``args`` as ``-lv`` prints them, such as ``struct sock * sk``.

        :param probe: a full name that :meth:`names` gave.
        """
        return []

    # For derived classes

    def parts(
        self, point: AttachPoint, system: System, least: int = 0, most: int | None = 0
    ) -> list[Part]:
        """What follows the provider, with positional parameters put in.

        :param least: how many parts there must be.
        :param most: how many there may be (None: any number).
        :raises ScriptError: there are too few or too many, or a parameter is missing.
        """
        parts = [Part(put_in(p.text, p.span, system.params), p.span) for p in point.parts]
        if len(parts) < least or (least and not any(p.text for p in parts)):
            raise wrong_form(
                self.name, self.signatures, point.provider.span.at_end(), "something is missing"
            )
        if most is not None and len(parts) > most:
            extra = parts[most].span.to(parts[-1].span)
            raise wrong_form(self.name, self.signatures, extra, "too many parts")
        return parts

    def malformed(self, span: Span, label: str) -> ScriptError:
        """The error for a part that is not written as it should be."""
        return wrong_form(self.name, self.signatures, span, label)


class _Attached:
    """Links as they are made; detaches all when one fails that may not."""

    def __init__(self, lenient: bool, system: System) -> None:
        self._lenient = lenient
        self._system = system
        self._links: list[Link] = []
        self._first_error: AttachError | None = None

    def add(self, attach: Callable[[], Link]) -> None:
        """Attach one more."""
        from kcap.kernel.errors import AttachError
        from kcap.kernel.links import close_all

        try:
            self._links.append(attach())
        except AttachError as error:
            if not self._lenient:
                close_all(self._links)
                raise
            self._first_error = self._first_error or error
            self._system.skipped.append(error)
        except BaseException:
            close_all(self._links)
            raise

    def links(self) -> list[Link]:
        """All links.

        :raises AttachError: there is none, because all were refused.
        """
        if self._first_error is not None and not self._links:
            raise self._first_error
        return self._links


def put_in(text: str, span: Span, params: Sequence[str]) -> str:
    """``text`` with ``$1`` and so on replaced by positional parameters.

    :raises ScriptError: a parameter is not given.
    """
    pieces = text.split("$")
    made = pieces[0]
    for piece in pieces[1:]:
        digits = len(piece) - len(piece.lstrip("0123456789"))
        index = int(piece[:digits] or 0)
        if not index:
            made += f"${piece}"
        elif index > len(params):
            raise problem(
                "missing-parameter",
                f"positional parameter ${index} is not given",
                span,
                notes=(f"{len(params)} given",),
                help=("give it after the script, or after -e and its text",),
            )
        else:
            made += params[index - 1] + piece[digits:]
    return made


def rest_of(parts: Iterable[Part]) -> str:
    """What follows the provider, parts joined by colons."""
    return ":".join(part.text for part in parts)


def match_all(patterns: Sequence[str], values: Sequence[str]) -> bool:
    """Whether each value matches the pattern at its place; missing patterns match all."""
    return all(Pattern(p).matches(v) for p, v in zip(patterns, values, strict=False))
