# SPDX-License-Identifier: Apache-2.0
"""``iter``: BPF iterators, which walk over kernel objects and run the program for each.

A program is of type tracing with BPF_TRACE_ITER, loaded for the kernel's function
``bpf_iter_NAME``; its context is ``struct bpf_iter__NAME`` (Documentation/bpf/bpf_iterators.rst).
An iterator runs when its link is opened and read, and ends by itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.kernel import uapi
from kcap.kernel.errors import AttachError, syscall_error
from kcap.probes import args
from kcap.probes.base import Part, rest_of
from kcap.probes.btf_targets import BtfProbe, BtfTarget
from kcap.probes.names import Pattern
from kcap.probes.problems import no_match, problem, suggestion
from kcap.probes.traceable import KERNEL
from kcap.sema.probe import ProbeContext
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kcap.kernel.links import IteratorLink
    from kcap.kernel.programs import Program
    from kcap.lang.ast import AttachPoint
    from kcap.probes.system import System
    from kcap.sema.types import Struct

FUNCTION = "bpf_iter_"
CONTEXT = "bpf_iter__"
PINS = "/sys/fs/bpf"
_UNREAD = frozenset(
    ("print", "join", "cat", "system", "time", "errorf", "warnf", "exit", "skboutput", "clear")
)
"""Functions whose output or effect needs a kcap that runs."""
_CHUNK = 1 << 16


class Iter(BtfProbe):
    """Kernel objects, one after another."""

    name = "iter"
    aliases = ("it",)
    summary = "Once for each kernel object of a kind, such as each task"
    cost = "nothing until it is read; then a run for each object"
    signatures = ("iter:KIND", "iter:KIND:PIN")
    alone = True

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        parts = self.parts(point, system, 1, 2)
        pin = self._pin(parts[1], uses) if len(parts) == 2 else ""
        if system.btf is None:
            title = "iter needs BTF, and the kernel has none"
            raise problem("no-btf", title, point.span)
        kind = parts[0]
        function = system.btf.find(FUNCTION + kind.text, b.Func)
        context = system.types.struct(CONTEXT + kind.text)
        if function is None or context is None:
            help_, edits = suggestion(kind.span, nearest(kind.text, _kinds(system)))
            known = ", ".join(sorted(_kinds(system)))
            raise no_match(
                self.name,
                rest_of(parts),
                kind.span,
                label="no such iterator",
                notes=(f"iterators of this kernel: {known}",),
                help=help_,
                edits=edits,
            )
        target = BtfTarget(kind.text, KERNEL, function.id, pin)
        return [self._context(f"{self.name}:{rest_of(parts)}", target, context)]

    def _pin(self, part: Part, uses: Collection[str]) -> str:
        """The path of the pin; relative ones are below /sys/fs/bpf.

        :raises ScriptError: the block prints in a way that nobody would see.
        """
        unread = sorted(_UNREAD.intersection(uses))
        if unread:
            raise problem(
                "pinned-output",
                f"{unread[0]}() has no reader in a pinned iterator",
                part.span,
                notes=("kcap ends once it is pinned; what it prints goes to who reads the pin",),
                help=("use printf(), or leave the pin out",),
            )
        return os.path.join(PINS, part.text)

    def _context(self, name: str, target: BtfTarget, context: Struct) -> ProbeContext:
        pin = {"pin": target.pin} if target.pin else {}
        return ProbeContext(
            self.name,
            name,
            uapi.BPF_PROG_TYPE_TRACING,
            uapi.BPF_TRACE_ITER,
            targets=(target,),
            args_missing="iterators have their fields in ctx",
            # Read as kernel memory: the verifier would want each pointer in it compared with NULL.
            # The object follows the pointer to struct bpf_iter_meta; it is NULL at the last call.
            extra={"ctx_type": context, "ctx_space": "kernel", "ctx_object": 8, **pin},
        )

    def target_name(self, context: ProbeContext, target: BtfTarget) -> str:
        return context.name

    def attach_target(
        self, context: ProbeContext, target: BtfTarget, program: Program, system: System
    ) -> IteratorLink:
        from kcap.kernel.links import attach_iterator

        link = attach_iterator(program.fileno(), context.name)
        if target.pin:
            try:
                link.pin(target.pin)
            except BaseException:
                link.close()
                raise
        return link

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        wanted = Pattern(parts[0] if parts else "*")
        return (f"{self.name}:{k}" for k in sorted(_kinds(system)) if wanted.matches(k))

    def parameters(self, probe: str, system: System) -> Sequence[str]:
        function = (
            system.btf.find(FUNCTION + probe.partition(":")[2], b.Func) if system.btf else None
        )
        if system.btf is None or function is None:
            return []
        return args.listing(system.btf, system.btf.prototype(function).params)


def run_iterator(link: IteratorLink) -> bytes:
    """Run an attached iterator once, to its end; what its program wrote by bpf_seq_printf.

    :raises AttachError: the kernel refuses, or its program ends with an error.
    """
    written = []
    fd = link.open()
    try:
        while chunk := _read(fd):
            written.append(chunk)
    except OSError as error:
        raise syscall_error(f"read {link.what}", error, AttachError) from error
    finally:
        os.close(fd)
    return b"".join(written)


def _read(fd: int) -> bytes:
    """What an iterator writes next; nothing at its end."""
    while True:
        try:
            return os.read(fd, _CHUNK)
        except BlockingIOError:  # after a million objects of which nothing was written
            continue


def _kinds(system: System) -> list[str]:
    """The iterators that the kernel has: a context struct and a function of the same name."""
    if system.btf is None:
        return []
    functions = system.function_ids("vmlinux")
    return [
        name[len(CONTEXT) :]
        for name in system.btf.names(b.Struct)
        if name.startswith(CONTEXT) and FUNCTION + name[len(CONTEXT) :] in functions
    ]
