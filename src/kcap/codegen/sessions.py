# SPDX-License-Identifier: Apache-2.0
"""Kprobe sessions: the kprobe and the kretprobe of the same functions as one program.

Linux 6.10 runs a program of attach type BPF_TRACE_KPROBE_SESSION at the entry of its functions and
at their return. The program asks the kernel which of the two it is, and runs one block or the
other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kcap.codegen.ir import IRBuilder

if TYPE_CHECKING:
    from kcap.codegen.module import ModuleBuilder
    from kcap.sema import tree

IS_RETURN: Final = "bpf_session_is_return"
"""The kernel's function that tells. It takes the context since 7.0, before that nothing."""


def joined(script: tree.Script) -> dict[tree.Program, tree.Program]:
    """The program at the return by the one at the entry, where one program can be both.

    As in bpftrace: both are the only program of their probe, name the same functions, and no other
    kretprobe does. What can be part of a session says ``ProbeContext.extra["session"]``.
    """
    found: dict[tree.Program, tree.Program] = {}
    alone = [program for program in script.programs if _is_alone(program, script)]
    for entry in alone:
        name, at_return = entry.context.extra["session"]
        if at_return:
            continue
        matching = [
            program
            for program in alone
            if program.context.extra["session"] == (name, True)
            and program.context.targets == entry.context.targets
            and program not in found.values()
        ]
        if len(matching) == 1:
            found[entry] = matching[0]
    return found


def _is_alone(program: tree.Program, script: tree.Script) -> bool:
    """Whether a program may be part of a session and is the only one of its probe."""
    same = [other for other in script.programs if other.span == program.span]
    return "session" in program.context.extra and len(same) == 1


def emit(module: ModuleBuilder, symbol: str, entry: tree.Program, halves: tuple[str, str]) -> str:
    """Emit the program that runs one of two blocks; its LLVM text.

    Its result is always 0: what the entry returns would else keep the return from being seen.

    :param symbol: what it is to be called.
    :param entry: the program at the entry.
    :param halves: the functions with the block of the entry and of the return.
    """
    if module.lines is not None:
        module.lines.now = entry.context.span
    ir = IRBuilder(symbol, "ptr %ctx", f"kcap/{symbol}", module.lines)
    module.kernel_function(IS_RETURN, "i64", "ptr")
    # A bool: what the upper bits of the register hold is not said.
    answer = ir.op(f"and i64 {ir.op(f'call i64 @{IS_RETURN}(ptr %ctx)')}, 255")
    at_entry, at_return, leave = "at_entry", "at_return", "leave"
    ir.branch(ir.compare("ne", "i64", answer, "0"), at_return, at_entry)
    for label, half in zip((at_entry, at_return), halves, strict=True):
        ir.label(label)
        ir.op(f"call i64 @{half}(ptr %ctx)")
        ir.jump(leave)
    ir.label(leave)
    ir.ret("0")
    return ir.text()
