# SPDX-License-Identifier: Apache-2.0
"""What semantic analysis and code generation know of the probe that a program runs in.

The probe types themselves stand above, in ``probes/``; they fill in :class:`ProbeContext`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from kcap.records import dataclass, field
from kcap.sema.types import Space, Struct, Type

if TYPE_CHECKING:
    from kcap.lang.ast import AttachPoint
    from kcap.lang.source import Span

ArgumentAccess = Literal["registers", "slots", "none"]
"""How ``argN`` is read: from the saved registers (struct pt_regs) that are the context of a
kprobe or uprobe, from the context's 8-byte slots (tracing and raw tracepoint programs), or not."""


@dataclass(slots=True, eq=False)
class ProbeContext:
    """A probe, as the body of its program sees it.

    :param provider: the probe type's full name: 'kprobe', 'fentry', 'begin'.
    :param name: the probe's full name as ``probe`` prints it: 'kprobe:vfs_read'. Where one program
        serves several targets, the name as the script has it (with its wildcard).
    :param program_type: BPF_PROG_TYPE_* number that its programs are loaded as.
    :param attach_type: expected attach type (BPF_TRACE_FENTRY …), or 0.
    :param targets: what it attaches to; only the probe type's module reads them.
    :param args: the fields of ``args``, or None where there is no such thing.
    :param args_missing: why there is no ``args``, for the diagnostic.
    :param arguments: how ``argN`` is read.
    :param retval: the type of ``retval``, or None where there is none.
    :param space: the address space of pointers that come out of nowhere (casts of integers).
    :param function: the traced function's name where all targets share one, for ``func``.
    :param sleepable: whether the program may sleep.
    :param at_return: the probe at the return of the same functions, whose block is part of the same
        program (:mod:`kcap.codegen.sessions`), or None.
    :param span: the attach point in the script, or None where there is none.
    """

    provider: str
    name: str
    program_type: int
    attach_type: int = 0
    targets: Sequence[Any] = ()
    args: Struct | None = None
    args_missing: str = ""
    arguments: ArgumentAccess = "none"
    retval: Type | None = None
    space: Space = "kernel"
    function: str = ""
    sleepable: bool = False
    at_return: ProbeContext | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    span: Span | None = None


class ProbeResolver(Protocol):
    """What ``probes/`` offers to semantic analysis."""

    def resolve(self, attach_point: AttachPoint, uses: Collection[str]) -> list[ProbeContext]:
        """The contexts that a program block needs for one attach point.

        :param uses: the identifiers that the block uses (``args``, ``arg0``, ``probe``, ``func``,
            ``retval``…): a wildcard is split into one context a target only where one of them
            differs between targets.
        :raises ScriptError: with a diagnostic that points into the attach point when the probe
            type, the function or the event is not known, or cannot be probed.
        """
        ...

    def join(self, contexts: Sequence[ProbeContext]) -> Sequence[ProbeContext]:
        """The contexts of all attach points of one probe, those that can share a program put
        together."""
        ...
