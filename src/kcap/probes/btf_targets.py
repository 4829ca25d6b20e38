# SPDX-License-Identifier: Apache-2.0
"""What probe types share whose programs are loaded for a target that BTF knows: fentry, fexit,
rawtracepoint, iter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.probes import serving
from kcap.probes.base import Load, ProbeType
from kcap.probes.system import BPF
from kcap.probes.traceable import KERNEL
from kcap.records import dataclass

if TYPE_CHECKING:
    from kcap.probes.system import System
    from kcap.sema.probe import ProbeContext


@dataclass(frozen=True, slots=True)
class BtfTarget:
    """A function or tracepoint that has BTF.

    :param name: the function, the tracepoint, the iterator.
    :param module: KERNEL for the kernel itself, ``bpf:ID`` for a BPF program.
    :param btf_id: its Func, or the tracepoint's typedef, in the module's BTF; 0 without BTF.
    :param pin: the file that an iterator is to be pinned to, or ''.
    """

    name: str
    module: str
    btf_id: int
    pin: str = ""

    @property
    def in_module(self) -> str:
        """The module that it is in; '' for others."""
        return "" if self.program or self.module == KERNEL else self.module

    @property
    def program(self) -> int:
        """The id of the BPF program that it is in; 0 for what is the kernel's."""
        return int(self.module[len(BPF) :]) if self.module.startswith(BPF) else 0


class BtfProbe(ProbeType):
    """A probe type whose programs are loaded once for each target."""

    programs_per_target = True

    def target_name(self, context: ProbeContext, target: BtfTarget) -> str:
        return f"{self.name}:{target.module}:{target.name}"

    def load_specs(self, context: ProbeContext, system: System) -> list[Load]:
        return [
            Load(
                f"{self.name}_{target.name}",
                (target,),
                context.program_type,
                context.attach_type,
                attach_btf_id=target.btf_id,
                attach_btf_module=target.in_module,
                attach_program=target.program,
                index=serving.index_of(context, target),
                function=target.name,
                alone=len(context.targets) > 1,
            )
            for target in context.targets
        ]
