# SPDX-License-Identifier: Apache-2.0
"""Explaining what the verifier says: cause, place in the script, and what to do."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from kcap.diagnose.families import FAMILIES, HELPER_PATTERNS, Family
from kcap.diagnose.helpertable import release_of, table
from kcap.diagnose.known import functions_that_need
from kcap.diagnose.places import place
from kcap.kernel import helpers
from kcap.kernel.errors import CUT, summarize
from kcap.kernel.helpers import Helper
from kcap.lang.diagnostic import Diagnostic, Label, ScriptError
from kcap.probes.names import enumerate_words
from kcap.records import replace

if TYPE_CHECKING:
    from kcap.diagnose.places import Places
    from kcap.kernel.errors import VerifierError
    from kcap.lang.source import Span
    from kcap.sema import tree
    from kcap.sema.probe import ProbeContext

_CALL = re.compile(r"^\s*(?P<insn>\d+): \(85\) call (?P<helper>\w+)#(?P<number>-?\d+)")
_INSTRUCTION = re.compile(r"^\s*\d+: (\([0-9a-f]{2}\)|R\d|frame\d)")
_MOST_LINES = 200
_LABEL = "the verifier stopped at an instruction of this"
_TYPE_MISMATCH = re.compile(r"R(?P<register>\d+) type=(?P<type>\S+) expected=(?P<expected>.*)")
_IS_OF_TYPE = re.compile(r"R(?P<register>\d+) is of type (?P<type>\S+) but (?P<expected>\S+) is")
_TRUSTED = re.compile(r"R(?P<register>\d+) must be (?P<expected>referenced or trusted|.*trusted)")
_NULL_ARGUMENT = re.compile(r"Possibly NULL pointer passed to (?P<expected>.*)")

_SKB_HELPERS = frozenset((Helper.skb_output, Helper.xdp_output))

#: What the kernel's words for types mean: beginnings, in the order they are tried.
_TYPES = (
    ("untrusted_ptr_", "a pointer that was read out of another struct, which may be stale"),
    ("rcu_ptr_or_null_", "a pointer that may be NULL"),
    ("trusted_ptr_or_null_", "a pointer that may be NULL"),
    ("ptr_or_null_", "a pointer that may be NULL"),
    ("map_value_or_null", "what a map look-up gave, which may be NULL"),
    ("mem_or_null", "memory that may not be there"),
    ("map_value", "the value of a map"),
    ("map_ptr", "a map"),
    ("scalar", "a number"),
    ("inv", "a number"),
    ("unknown_value", "a number"),
    ("ctx", "the probe's context"),
    ("fp", "a place on the stack"),
    ("ptr_", "a pointer to a kernel struct"),
    ("trusted_ptr_", "a pointer to a kernel struct"),
    ("rcu_ptr_", "a pointer to a kernel struct under RCU"),
    ("", "of a type that does not fit"),
)


class ProgramRefusedError(ScriptError):
    """The kernel refused a program of a script; the diagnostic explains why.

    :param error: what the kernel said.
    :param diagnostic: what it means.
    :ivar log: the verifier's whole log.
    """

    def __init__(self, error: VerifierError, diagnostic: Diagnostic) -> None:
        super().__init__([diagnostic])
        self.error = error
        self.log = error.log


def refused(
    error: VerifierError, context: ProbeContext, script: tree.Script, places: Places = ()
) -> ProgramRefusedError:
    """The error to raise when a script's program is refused.

    :param context: the probe that the program is for.
    :param places: where its instructions come from (``CompiledProgram.places``).
    """
    program = next((p for p in script.programs if p.context is context), None)
    return ProgramRefusedError(error, explain(error, program, places))


def explain(
    error: VerifierError, program: tree.Program | None = None, places: Places = ()
) -> Diagnostic:
    """The verifier's refusal in the terms of the script.

    :param program: the program that was refused, for the place in the script.
    :param places: where its instructions come from.
    """
    found = explain_log(error.log, program, places)
    name = program.context.name if program is not None else error.program
    expanded = program is not None and program.context.extra.get("expanded")
    if _in_probe(found.span, program) and not expanded:
        name = ""  # the place says it
    label = f"{name}: " if name else ""
    return Diagnostic(
        found.code,
        "error",
        f"{label}{found.title}",
        found.span,
        found.label,
        found.labels,
        found.notes,
        found.help,
    )


def explain_log(
    log: tuple[str, ...], program: tree.Program | None = None, places: Places = ()
) -> Diagnostic:
    """A verifier log, or any text that has a line of one in it.

    :param log: the lines.
    :param program: the program that was refused, for the place in the script.
    :param places: where its instructions come from.
    """
    reason, omitted = summarize(log)
    found = _recognise(log, reason, program)
    if found is None:
        found = _unknown(reason, program)
    words = (f"the verifier's words: {reason}",) if reason else ()
    more = (_left_out(log, omitted),) if omitted else ()
    at = place(log, places)
    span = _narrower(found.span, at) or (program.context.span if program is not None else None)
    return Diagnostic(
        found.code,
        "error",
        found.title,
        span,
        found.label or (_LABEL if at is not None and span is at else ""),
        labels=_in_probe(span, program),
        notes=(*found.notes, *words, *more),
        help=found.help,
    )


def _left_out(log: tuple[str, ...], omitted: int) -> str:
    if CUT not in log:
        return f"{omitted} more lines of log: -v shows them"
    return f"{omitted - 1} more lines of log, and others that the kernel was not asked for: -v"


def _loop(program: tree.Program | None) -> Span | None:
    """The loop of a program, if it has one only that no other loop is around: it is what the
    verifier got lost in."""
    if program is None:
        return None
    from kcap.sema import tree as t

    kinds = (t.While, t.ForRange, t.ForMap, t.Unroll)
    loops = [node.span for node in t.walk(program.body) if isinstance(node, kinds)]
    outer = [one for one in loops if not any(_within(one, other) for other in loops)]
    return outer[0] if len(outer) == 1 else None


def _within(one: Span, other: Span) -> bool:
    return one != other and other.start <= one.start and one.end <= other.end


def _narrower(one: Span | None, other: Span | None) -> Span | None:
    """The place that lies within the other one; the second, which the verifier named, where neither
    does."""
    if one is None or other is None:
        return one or other
    within = one.source is other.source and one.start >= other.start and one.end <= other.end
    return one if within else other


def _in_probe(span: Span | None, program: tree.Program | None) -> tuple[Label, ...]:
    probe = program.context.span if program is not None else None
    if span is None or probe is None or span == probe or len(probe) == 0:
        return ()
    return (Label(probe, "in this probe"),)


def explain_text(text: str) -> Diagnostic | None:
    """Any output with an error in it, of kcap, bpftrace or another tool; None if nothing in it is
    known.

    The verifier's words count more than what a tool says about them.
    """
    from kcap.diagnose.messages import MESSAGES

    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    log = tuple(lines)
    found = _recognise(log, "", None)
    if found is not None:
        return found
    for family in MESSAGES:
        for line in reversed(lines):
            match = family.compiled.search(line)
            if match is not None:
                return _of_family(family, match)
    return None


def _recognise(
    log: tuple[str, ...], reason: str, program: tree.Program | None
) -> Diagnostic | None:
    """The family of a log, by the lines behind the last instruction: among these the family that
    stands first in the list counts. A text without instructions is searched as a whole."""
    lines = [reason, *_messages(log)]
    for line in lines:
        found = _helper(line, program) or _register(line, log, program)
        if found is not None:
            return found
    for family in FAMILIES:
        for line in lines:
            match = family.compiled.search(line)
            if match is not None:
                loop = _loop(program) if family.code == "too-complex" else None
                return _of_family(family, match, loop)
    return None


def _messages(log: tuple[str, ...]) -> list[str]:
    """The lines behind the last instruction, or state dump, of a log."""
    found: list[str] = []
    for line in reversed(log):
        if _INSTRUCTION.match(line):
            break
        found.append(line)
    return found[:_MOST_LINES]


# Helpers that may not be called


def _helper(line: str, program: tree.Program | None) -> Diagnostic | None:
    for pattern in HELPER_PATTERNS:
        found = re.search(pattern, line)
        if found is not None:
            return _helper_refused(int(found["number"]), program)
    return None


def _helper_refused(number: int, program: tree.Program | None) -> Diagnostic:
    from kcap.diagnose.helpercheck import HelperRules

    name = helpers.name(number)
    if program is not None and (withheld := _withheld(number, program)) is not None:
        return withheld
    if number not in helpers.NAMES:
        return Diagnostic(
            "helper-not-allowed",
            "error",
            f"the kernel has no helper number {number}",
            notes=("the program was made for another kernel",),
            help=("use a newer kernel, or a script that does not need the helper",),
        )
    users = functions_that_need(number)
    able = HelperRules(None).probes(number)
    probes = enumerate_words(able, "and") if able else ""
    row = table().rows[number]
    notes = []
    if users:
        verb = "needs" if len(users) == 1 else "need"
        notes.append(f"{enumerate_words(users, 'and')} {verb} {name}")
    if row.introduced is not None:
        notes.append(f"{name} is in the kernel since Linux {row.introduced[0]}.{row.introduced[1]}")
    advice = f"{probes} can call it" if probes else "no probe can call it"
    if number == Helper.skb_output:
        advice += ": kcap fix rewrites a kprobe as fentry"
    return Diagnostic(
        "helper-not-allowed",
        "error",
        f"a program of this type may not call {name}",
        _place(number, program),
        f"this needs {name}",
        notes=tuple(notes),
        help=(advice,),
    )


def _withheld(number: int, program: tree.Program) -> Diagnostic | None:
    """The answer for a helper that kernels of this release do let such programs call: lockdown
    takes it away (bpf_tracing_func_proto in kernel/trace/bpf_trace.c)."""
    from kcap.diagnose.programkinds import kind_of
    from kcap.kernel import permissions

    kind = kind_of(program.context.program_type, program.context.attach_type)
    if kind is None or not table().allowed(number, kind, release_of(os.uname().release)):
        return None
    mode = permissions.lockdown()
    if mode == "none":
        return None
    name = helpers.name(number)
    notes = [f"kernels of this release let such programs call {name}"]
    if mode:
        notes.append("lockdown forbids programs to read (confidentiality) or write memory")
    return Diagnostic(
        "verifier-permission",
        "error",
        f"lockdown{f' ({mode})' if mode else ', as it seems,'} keeps programs from calling {name}",
        _place(number, program),
        f"this needs {name}",
        notes=tuple(notes),
        help=("boot without lockdown, or with lockdown=integrity; kcap doctor tells the mode",),
    )


def _place(number: int, program: tree.Program | None) -> Span | None:
    """Where the script calls a helper, if that is at one place only."""
    if program is None:
        return None
    from kcap.sema import tree as t

    spans = {
        node.span
        for node in t.walk([program.predicate, program.body])
        if isinstance(node, t.Call) and number in node.function.needs(node)
    }
    return spans.pop() if len(spans) == 1 else None


# Arguments of helpers


def _register(line: str, log: tuple[str, ...], program: tree.Program | None) -> Diagnostic | None:
    for pattern in (_TYPE_MISMATCH, _IS_OF_TYPE, _TRUSTED, _NULL_ARGUMENT):
        found = pattern.search(line)
        if found is not None:
            groups = found.groupdict()
            found_argument = _argument(
                int(groups.get("register") or 1), groups.get("type") or "", log, program
            )
            return _with_expectation(found_argument, groups.get("expected") or "", log)
    return None


def _argument(
    register: int, type_: str, log: tuple[str, ...], program: tree.Program | None
) -> Diagnostic:
    helper = last_call(log)
    name = helpers.name(helper) if helper is not None else "a helper"
    what = next(text for beginning, text in _TYPES if type_.startswith(beginning))
    span = _place(helper, program) if helper is not None else None
    if helper in _SKB_HELPERS and register == 1:
        return Diagnostic(
            "untracked-skb", "error",
            f"to the verifier, the packet given to {name} is {what}", span,
            "the packet is given here",
            notes=(_SKB_NOTES.get(what.split(",")[0], _SKB_NOTE),),
            help=("pass the probe's own argument, args.NAME, in the probe that has it, not a copy "
                  "out of a map and not a member of another struct",),
        )  # fmt: skip
    return Diagnostic(
        "argument-type",
        "error",
        f"argument {register} of {name} is {what}, which it does not take",
        span,
        notes=(
            "the verifier follows the type of every value, and helpers take certain types only",
        ),
        help=(_ARGUMENT_HELP.get(what, "pass a value of the type that the function documents"),),
    )


def _with_expectation(found: Diagnostic, expected: str, log: tuple[str, ...]) -> Diagnostic:
    """What a line alone, without the log around it, lets one suppose: few helpers want a pointer
    to a kernel struct, and the packet of bpf_skb_output is the usual one."""
    if last_call(log) is not None or not expected.startswith("ptr_"):
        return found
    return replace(
        found,
        notes=(*found.notes, f"if the helper is bpf_skb_output: {_SKB_NOTE}"),
        help=("pass the probe's own argument (args.NAME)", *found.help),
    )


_SKB_NOTE = (
    "only a pointer that comes straight from the probe's arguments is taken: a value that went "
    "through a map, a cast of a number, or a read from memory has lost its type"
)
_SKB_NOTES = {
    "a pointer that was read out of another struct": (
        "up to 6.1 a pointer read out of another struct (skb->next, sk->sk_receive_queue.next) is "
        "taken; newer kernels don't trust it, since the struct may be gone"
    ),
    "what a map look-up gave": (
        "what stands in a map is a number to the verifier, whatever was stored there"
    ),
}
_ARGUMENT_HELP = {
    "a pointer that may be NULL": "check it first: if ($p != 0) { … }",
    "what a map look-up gave, which may be NULL": "check it first: if ($p != 0) { … }",
    "a number": "cast it to a pointer of the right type, or pass the probe's own argument",
}


def last_call(log: tuple[str, ...]) -> int | None:
    """The number of the helper whose call the log ends at, or None."""
    for line in reversed(log):
        found = _CALL.match(line)
        if found is not None:
            return int(found["number"])
    return None


# The rest


def _of_family(family: Family, found: re.Match[str], loop: Span | None = None) -> Diagnostic:
    groups = {key: value or "?" for key, value in found.groupdict().items()}
    from kcap.diagnose.messages import MESSAGES

    code = family.code if family in MESSAGES else f"verifier-{family.code}"
    return Diagnostic(
        code,
        "error",
        family.title.format(**groups),
        loop,
        "the verifier follows every round of this" if loop is not None else "",
        notes=(family.cause.format(**groups),),
        help=(family.advice.format(**groups),),
    )


def _unknown(reason: str, program: tree.Program | None) -> Diagnostic:
    return Diagnostic(
        "verifier",
        "error",
        f"the kernel refused the program: {reason}" if reason else "the kernel refused the program",
        program.context.span if program is not None else None,
        help=("kcap has no explanation for this; -v shows the whole log",),
    )
