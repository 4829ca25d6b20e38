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
from kcap.probes import args
from kcap.probes.base import Load, ProbeType, rest_of
from kcap.probes.names import Pattern, nearest
from kcap.probes.problems import no_match, problem, suggestion
from kcap.records import dataclass
from kcap.sema.probe import ProbeContext

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
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class IteratorTarget:
    """An iterator.

    :param name: such as ``task_file``.
    :param btf_id: the function ``bpf_iter_NAME`` in the kernel's BTF.
    """

    name: str
    btf_id: int


class Iter(ProbeType):
    """Kernel objects, one after another."""

    name = "iter"
    aliases = ("it",)
    summary = "Once for each kernel object of a kind, such as each task"
    cost = "nothing until it is read; then a run for each object"
    signatures = ("iter:KIND",)
    programs_per_target = True
    alone = True

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        parts = self.parts(point, system, 1, 2)
        if len(parts) == 2:
            raise problem(
                "not-supported",
                "pinning an iterator is not supported yet",
                parts[1].span,
                help=(f"leave it out: {self.name}:{parts[0].text} prints what it finds",),
            )
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
        return [self._context(f"{self.name}:{kind.text}", function, context)]

    def _context(self, name: str, function: b.Func, context: Struct) -> ProbeContext:
        return ProbeContext(
            self.name,
            name,
            uapi.BPF_PROG_TYPE_TRACING,
            uapi.BPF_TRACE_ITER,
            targets=(IteratorTarget(name.partition(":")[2], function.id),),
            args_missing="iterators have their fields in ctx",
            # Read as kernel memory: the verifier would want each pointer in it compared with NULL.
            # The object follows the pointer to struct bpf_iter_meta; it is NULL at the last call.
            extra={"ctx_type": context, "ctx_space": "kernel", "ctx_object": 8},
        )

    def load_specs(self, context: ProbeContext, system: System) -> list[Load]:
        return [
            Load(
                f"iter_{target.name}",
                (target,),
                context.program_type,
                context.attach_type,
                attach_btf_id=target.btf_id,
            )
            for target in context.targets
        ]

    def attach_target(
        self, context: ProbeContext, target: IteratorTarget, program: Program, system: System
    ) -> IteratorLink:
        from kcap.kernel.links import attach_iterator

        return attach_iterator(program.fileno(), context.name)

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        wanted = Pattern(parts[0] if parts else "*")
        return (f"{self.name}:{k}" for k in sorted(_kinds(system)) if wanted.matches(k))

    def parameters(self, probe: str, system: System) -> list[str]:
        function = (
            system.btf.find(FUNCTION + probe.partition(":")[2], b.Func) if system.btf else None
        )
        if system.btf is None or function is None:
            return []
        return args.listing(system.btf, system.btf.prototype(function).params)


def run_iterator(link: IteratorLink) -> bytes:
    """Run an attached iterator once, to its end; what its program wrote by bpf_seq_printf.

    :raises AttachError: the kernel refuses.
    """
    written = []
    fd = link.open()
    try:
        while chunk := os.read(fd, _CHUNK):
            written.append(chunk)
    finally:
        os.close(fd)
    return b"".join(written)


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
