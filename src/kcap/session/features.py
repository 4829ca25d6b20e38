# SPDX-License-Identifier: Apache-2.0
"""Which features of the running kernel code generation may count on: only those that a script
would use are asked for, since asking means loading a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen.module import Features
from kcap.kernel import uapi
from kcap.kernel.release import release
from kcap.sema import tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.probes.system import System


def probe_features(script: tree.Script, system: System) -> Features:
    """Ask the kernel what it can do; what cannot be told (no rights) is taken for there, and
    loading will say.

    :param system: the machine; its BTF is read only for scripts that take that.
    """
    from kcap.kernel import features, pidns

    used = {type(node) for program in script.programs for node in tree.walk(program.body)}
    loops = used & {tree.ForRange, tree.While}
    return Features(
        loop=not loops or _there(features.loop),
        for_each=tree.ForMap not in used or _there(features.for_each_map_elem),
        subregisters=_subregisters(),
        recursion_guard=_recursion_guard(script, system),
        func_ip=_func_ip(script, system),
        kprobe_session=_kprobe_session(script, system),
        pid_namespace=pidns.own(),
    )


def _kprobe_session(script: tree.Script, system: System) -> int:
    """The id of the function that programs of kprobe sessions call, if a kprobe and a kretprobe of
    the script can be one program, and the kernel runs such programs; else 0."""
    ends = {p.context.extra["session"][1] for p in script.programs if "session" in p.context.extra}
    if len(ends) < 2:
        return 0
    from kcap.btf import Func
    from kcap.codegen.sessions import IS_RETURN, joined

    if not joined(script) or not system.has("kprobe_multi") or not system.has("kprobe_session"):
        return 0
    found = system.btf.find(IS_RETURN, Func) if system.btf is not None else None
    return found.id if found is not None else 0


def _func_ip(script: tree.Script, system: System) -> bool:
    """Whether all programs that ask which function they are in may call the helper that tells."""
    from kcap.kernel import features
    from kcap.kernel.helpers import Helper

    kinds = {
        (program.context.program_type, program.context.attach_type)
        for program in script.programs
        for node in tree.walk([program.predicate, *program.body])
        if isinstance(node, tree.Call) and node.function.name == "func"
    }
    if not kinds:
        return True
    return all(
        features.helper(Helper.get_func_ip, kind, attach, system.btf) is not False
        for kind, attach in kinds
    )


def _recursion_guard(script: tree.Script, system: System) -> bool:
    """Whether a program is never started on a CPU while the same one runs there.

    Kprobes and tracepoints always were guarded (``bpf_prog_active``). Since 5.12 there is the
    counter ``active`` in struct bpf_prog for fentry and fexit; raw tracepoints look at it since
    6.1 (commit 05b24ff9b2cf), which cannot be asked for otherwise than by the version.
    """
    kinds = {
        (program.context.program_type, program.context.attach_type) for program in script.programs
    }
    tracing = {attach for kind, attach in kinds if kind == uapi.BPF_PROG_TYPE_TRACING}
    if not tracing:
        return True
    from kcap.btf import Struct

    found = system.btf.find("bpf_prog", Struct) if system.btf is not None else None
    if found is None or not any(member.name == "active" for member in found.members):
        return False
    if uapi.BPF_TRACE_RAW_TP not in tracing:
        return True
    return release() >= (6, 1)


def _subregisters() -> bool:
    """Whether programs may have 32-bit registers. LLVM spills those by stores of four bytes, which
    don't end the life of what was on the stack before: 5.10's and 6.1's verifiers follow a program
    of several filters ten times as often for that, 6.12's doesn't (docs/architecture.md). Nothing
    that could be asked for tells them apart."""
    return release() >= (6, 12)


def _there(question: Callable[[], bool | None]) -> bool:
    return question() is not False
