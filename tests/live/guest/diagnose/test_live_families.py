# SPDX-License-Identifier: Apache-2.0
"""Every family of verifier messages that is explained, triggered on the real kernel: the
explanation is of the right kind and names the line of the script that is to blame.

The probes of one script do it, compiled together and loaded one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from kcap.codegen.compile import Compiled
from kcap.diagnose.verifier import ProgramRefusedError
from kcap.lang.diagnostic import Diagnostic
from kcap.records import replace
from kcap.session.features import probe_features
from kcap.session.programs import LoadedScript
from kcap.session.script import Checked
from support.mistakes import Mistaken, compile_with_mistakes

KPROBE, FENTRY = "kprobe:icmp_rcv", "fentry:icmp_rcv"
SKB_NUMBER = "to the verifier, the packet given to bpf_skb_output is a number"


class Case(NamedTuple):
    """A wrong statement.

    :ivar probe: where it stands.
    :ivar statement: what is wrong.
    :ivar code: the code of the explanation.
    :ivar title: the end of its title.
    :ivar taken: kernels that take it.
    """

    probe: str
    statement: str
    code: str
    title: str
    taken: tuple[str, ...] = ()


CASES = {
    "helper not allowed here": Case(
        KPROBE,
        'skboutput("a.pcap", (struct sk_buff *)arg0, 64, 0)',
        "helper-not-allowed",
        "a program of this type may not call bpf_skb_output",
    ),
    "helper that no kernel has": Case(
        KPROBE,
        'mistake("helper_unknown")',
        "helper-not-allowed",
        "the kernel has no helper number 9999",
    ),
    "packet that went through a map": Case(
        FENTRY,
        'skboutput("b.pcap", (struct sk_buff *)@packets[1], 64, 0)',
        "untracked-skb",
        SKB_NUMBER,
    ),
    "packet that was read from memory": Case(
        FENTRY,
        'skboutput("c.pcap", (struct sk_buff *)*(uint64 *)((uint64)args.skb), 64, 0)',
        "untracked-skb",
        SKB_NUMBER,
    ),
    "packet that is a number": Case(
        FENTRY, 'mistake("skb_is_number")', "untracked-skb", SKB_NUMBER
    ),
    "packet out of another struct": Case(
        FENTRY,
        'mistake("skb_of_other_struct")',
        "untracked-skb",
        "is a pointer that was read out of another struct, which may be stale",
        taken=("5.10", "6.1"),
    ),
    "packet that may be NULL": Case(
        FENTRY,
        'mistake("skb_may_be_null")',
        "untracked-skb",
        "is what a map look-up gave, which may be NULL",
    ),
    "wrong type for a helper": Case(
        FENTRY,
        'mistake("number_as_map")',
        "argument-type",
        "argument 1 of bpf_map_lookup_elem is a number, which it does not take",
    ),
    "missing NULL check": Case(
        KPROBE,
        'mistake("null_check_missing")',
        "verifier-null-check",
        "a pointer that may be NULL is followed without a check",
    ),
    "access behind a map's value": Case(
        KPROBE,
        'mistake("map_bounds")',
        "verifier-bounds",
        "the program accesses 8 bytes at offset 8 of a map's value of 8 bytes",
    ),
    "access behind a struct": Case(
        FENTRY,
        'mistake("struct_bounds")',
        "verifier-bounds",
        "the program reads 8 bytes at offset 5000 of struct sk_buff, behind its end",
    ),
    "index without limits": Case(
        KPROBE,
        'mistake("map_unbounded")',
        "verifier-unbounded",
        "an index has no limits that the verifier can see",
    ),
    "length without limits": Case(
        KPROBE,
        'mistake("size_unbounded")',
        "verifier-unbounded",
        "a length or an index may be negative",
    ),
    "stack": Case(
        KPROBE,
        'mistake("stack_bounds")',
        "verifier-stack",
        "the program writes beyond its stack of 512 bytes",
    ),
    "too many rounds": Case(
        KPROBE,
        "while ($i < 10000000) { $i++; @n[pid] = count() }",
        "verifier-too-complex",
        "the program is too complex",  # too many instructions, or branches
    ),
    "endless loop": Case(
        KPROBE, "while ($i < 10) { @b = nsecs }", "verifier-loop", "a loop never ends"
    ),
    "unreachable": Case(
        KPROBE,
        'mistake("exit")',
        "verifier-unreachable",
        "a part of the program can never run",
    ),
    "context that is not there": Case(
        KPROBE,
        "@b = *(uint64 *)(ctx + 1000)",
        "verifier-context",
        "the program reads 8 bytes at offset 1000 of its context, where nothing is",
    ),
    "argument that is no struct": Case(
        "fentry:skb_put",
        'mistake("argument_is_number")',
        "verifier-not-a-pointer",
        "a number is followed as if it were a pointer",
    ),
    "argument that points to a function": Case(
        "fentry:smp_call_function_single",
        'mistake("argument_to_function")',
        "verifier-context",
        "an argument of smp_call_function_single can't be read like this",
        taken=("7.2",),
    ),
    "argument too many": Case(
        FENTRY,
        'mistake("argument_too_many")',
        "verifier-arguments",
        "icmp_rcv has fewer arguments than are read",
    ),
    "kernel function that may not be called": Case(
        FENTRY, 'mistake("kfunc_not_allowed")', "verifier-kfunc", ""
    ),
    "kernel function that is none": Case(
        FENTRY, 'mistake("kfunc_unknown")', "verifier-kfunc", ""
    ),
    "write to kernel memory": Case(
        FENTRY,
        'mistake("struct_written")',
        "verifier-write",
        "the program writes into the kernel's memory",
    ),
    "arithmetic with a pointer": Case(
        FENTRY,
        'mistake("pointer_arithmetic")',
        "verifier-pointer-arithmetic",
        "the program computes with a pointer in a way that the verifier can't follow",
    ),
    "function's types missing": Case(
        KPROBE,
        'mistake("btf")',
        "verifier-btf",
        "the BTF that the program needs is missing or damaged",
    ),
}  # fmt: skip

#: The line of a probe that is named where it is not the third.
LINE: dict[str | tuple[str, str], int] = {
    "unreachable": 4,  # what stands behind the exit
    "function's types missing": 1,  # the whole program
    "kernel function that is none": 1,  # looked for before any instruction is followed
    ("5.10", "kernel function that is none"): 3,
}

#: What a kernel says in another way than the others.
OTHERWISE: dict[tuple[str, str], str] = {}


def script() -> str:
    """A probe for each case, of four lines: the wrong statement stands on the third."""
    return "".join(
        f"{case.probe} {{\n  @m[pid] = nsecs; $i = 0; @packets[0] = 1;\n  {case.statement};\n"
        "  @n[pid] = count(); }\n"
        for case in CASES.values()
    )  # fmt: skip


@pytest.fixture(scope="module")
def compiled() -> tuple[Checked, Compiled, Compiled]:
    import llvmlite.binding  # noqa: F401 - loaded once, so that each compiler need not

    checked = compile_with_mistakes(script())
    features = probe_features(checked.script, checked.system)
    return checked, checked.generate(features), checked.generate(features, lines=True)


def refusal(compiled: tuple[Mistaken, Compiled, Compiled], index: int) -> Diagnostic | None:
    """What is said of one program; None if the kernel takes it."""
    checked, all_, lined = compiled
    script = replace(checked.script, programs=[checked.script.programs[index]])
    one, two = (
        replace(made, origin=lambda: script, programs=[made.programs[index]])
        for made in (all_, lined)
    )
    try:
        LoadedScript(one, checked.system, lambda: two).close()
    except ProgramRefusedError as error:
        (found,) = error.diagnostics
        return found
    return None


@pytest.mark.parametrize("name", CASES)
def test_the_explanation_names_the_line(
    compiled: tuple[Mistaken, Compiled, Compiled], kernel: str, name: str
) -> None:
    case, index = CASES[name], list(CASES).index(name)
    found = refusal(compiled, index)
    if kernel in case.taken:
        assert found is None
        return
    assert found is not None
    assert found.code == OTHERWISE.get((kernel, name), case.code)
    assert case.title in found.title
    assert found.span is not None
    assert found.help
    line = LINE.get((kernel, name), LINE.get(name, 3))
    assert found.span.line == 4 * index + line, found.span.text
