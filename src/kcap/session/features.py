# SPDX-License-Identifier: Apache-2.0
"""Which features of the running kernel code generation may count on: only those that a script
would use are asked for, since asking means loading a program."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kcap.codegen.module import Features
from kcap.kernel import uapi
from kcap.sema import tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.btf import Btf


def probe_features(script: tree.Script, btf: Btf | Callable[[], Btf | None] | None) -> Features:
    """Ask the kernel what it can do; what cannot be told (no rights) is taken for there, and
    loading will say.

    :param btf: the kernel's types, or what reads them: only some scripts take that.
    """
    from kcap.kernel import features, pidns

    loops = any(_uses(script, tree.ForRange)) or any(_uses(script, tree.While))
    maps = any(_uses(script, tree.ForMap))
    return Features(
        loop=not loops or _there(features.loop),
        for_each=not maps or _there(features.for_each_map_elem),
        recursion_guard=_recursion_guard(script, btf),
        func_ip=_func_ip(script, btf),
        pid_namespace=pidns.own(),
    )


def _func_ip(script: tree.Script, btf: Btf | Callable[[], Btf | None] | None) -> bool:
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
    types = btf() if callable(btf) else btf
    return all(
        features.helper(Helper.get_func_ip, kind, attach, types) is not False
        for kind, attach in kinds
    )


def _recursion_guard(script: tree.Script, btf: Btf | Callable[[], Btf | None] | None) -> bool:
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

    types = btf() if callable(btf) else btf
    found = types.find("bpf_prog", Struct) if types is not None else None
    if found is None or not any(member.name == "active" for member in found.members):
        return False
    if uapi.BPF_TRACE_RAW_TP not in tracing:
        return True
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(c for c in minor if c.isdigit()) or 0)) >= (6, 1)


def _uses(script: tree.Script, kind: type[tree.Node]) -> list[bool]:
    return [
        isinstance(node, kind) for program in script.programs for node in tree.walk(program.body)
    ]


def _there(question: Callable[[], bool | None]) -> bool:
    return question() is not False
