# SPDX-License-Identifier: Apache-2.0
"""Explaining the verifier: real logs of four kernels (tools/verifier_logs.py made them)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from kcap.diagnose.verifier import explain, explain_log, refused
from kcap.kernel.errors import VerifierError
from kcap.lang.diagnostic import ScriptError
from kcap.lang.render import render
from kcap.lang.source import Source
from kcap.sema.probe import ProbeContext
from kcap.sema.tree import Program, Script

LOGS = Path(__file__).parent / "logs"
KERNELS = ("5.10", "6.1", "6.12", "7.2")

BEFORE_5_13 = "the program calls a kernel function, which this kernel does not let BPF do"

#: For each log: code and title; a dictionary where kernels differ (None: the kernel takes it).
EXPECTED: dict[str, tuple[str, str | dict[str, str]]] = {
    "helper_of_other_type": (
        "helper-not-allowed",
        "a program of this type may not call bpf_skb_output",
    ),
    "helper_unknown": ("helper-not-allowed", "the kernel has no helper number 9999"),
    "skb_scalar": (
        "untracked-skb",
        "to the verifier, the packet given to bpf_skb_output is a number",
    ),
    "skb_walked": (
        "untracked-skb",
        "to the verifier, the packet given to bpf_skb_output is a pointer that was read out of "
        "another struct, which may be stale",
    ),
    "skb_from_map": (
        "untracked-skb",
        "to the verifier, the packet given to bpf_skb_output is a number",
    ),
    "skb_or_null": (
        "untracked-skb",
        "to the verifier, the packet given to bpf_skb_output is what a map look-up gave, which may "
        "be NULL",
    ),
    "stack_as_map": (
        "argument-type",
        "argument 1 of bpf_map_lookup_elem is a place on the stack, which it does not take",
    ),
    "no_null_check": (
        "verifier-null-check",
        "a pointer that may be NULL is followed without a check",
    ),
    "scalar_dereferenced": (
        "verifier-not-a-pointer",
        "a number is followed as if it were a pointer",
    ),
    "not_a_pointer": ("verifier-not-a-pointer", "a number is followed as if it were a pointer"),
    "map_value_bounds": (
        "verifier-bounds",
        "the program accesses 8 bytes at offset 8 of a map's value of 8 bytes",
    ),
    "struct_bounds": (
        "verifier-bounds",
        "the program reads 8 bytes at offset 5000 of struct sk_buff, behind its end",
    ),
    "size_zero": (
        "verifier-bounds",
        "the program accesses memory outside of what it may, or none at all",
    ),
    "map_value_unbounded": (
        "verifier-unbounded",
        "an index has no limits that the verifier can see",
    ),
    "context_arithmetic": (
        "verifier-unbounded",
        "an index has no limits that the verifier can see",
    ),
    "size_unbounded": ("verifier-unbounded", "a length or an index may be negative"),
    "size_negative": ("verifier-unbounded", "a length or an index may be negative"),
    "stack_bounds": ("verifier-stack", "the program writes beyond its stack of 512 bytes"),
    "stack_of_calls": (
        "verifier-stack",
        {
            "5.10": "the program needs 832 bytes of stack, and BPF has 512",
            "6.1": "the program needs 832 bytes of stack, and BPF has 512",
            "6.12": "the program needs 800 bytes of stack, and BPF has 512",
        },
    ),
    "stack_unwritten": (
        "verifier-uninitialized",
        "the program reads stack memory that it has not written",
    ),
    "register_unwritten": (
        "verifier-uninitialized",
        "the program reads register r7 before it has a value",
    ),
    "no_result": (
        "verifier-uninitialized",
        "the program reads register r0 before it has a value",
    ),
    "too_many_instructions": (
        "verifier-too-complex",
        "the program is too complex: the verifier gave up after 1000001 instructions",
    ),
    "infinite_loop": ("verifier-loop", "a loop never ends"),
    "unreachable": ("verifier-unreachable", "a part of the program can never run"),
    "context_bounds": (
        "verifier-context",
        "the program reads 8 bytes at offset 1000 of its context, where nothing is",
    ),
    "context_misaligned": (
        "verifier-context",
        "the program reads 8 bytes at offset 4 of its context, where nothing is",
    ),
    "too_many_arguments": (
        "verifier-arguments",
        "icmp_rcv has fewer arguments than are read",
    ),
    "struct_written": ("verifier-write", "the program writes into the kernel's memory"),
    "pointer_arithmetic": (
        "verifier-pointer-arithmetic",
        "the program computes with a pointer in a way that the verifier can't follow",
    ),
    "kfunc_not_allowed": (
        "verifier-kfunc",
        {
            "5.10": BEFORE_5_13,
            **dict.fromkeys(
                KERNELS[1:],
                "the kernel function vfs_read may not be called by programs of this type",
            ),
        },
    ),
    "kfunc_unknown": (
        "verifier-kfunc",
        {
            "5.10": BEFORE_5_13,
            **dict.fromkeys(
                KERNELS[1:],
                "the program calls a kernel function that this kernel does not have",
            ),
        },
    ),
    "no_target": (
        "verifier-target",
        "the program's target is not a function that can be traced",
    ),
    "target_is_no_function": (
        "verifier-target",
        "the program's target is not a function that can be traced",
    ),
    "gpl_only": ("verifier-gpl", "a helper is for programs under the GPL only"),
    "jump_outside": ("verifier-control-flow", "the program is malformed"),
    "no_exit": ("verifier-control-flow", "the program is malformed"),
    "helper_not_here": (
        "verifier-helper-not-in-probe",
        "helper bpf_d_path not allowed in probe",
    ),
    "helper_sleeps": (
        "verifier-helper-sleeps",
        "a helper that may sleep is called where sleeping is not allowed",
    ),
}

#: What a kernel says in another way than the others, or takes.
OTHERWISE = {
    ("5.10", "helper_sleeps"): (
        "helper-not-allowed",
        "a program of this type may not call bpf_copy_from_user",
    ),
}
TAKEN = {
    "skb_walked": ("5.10", "6.1"),
    "stack_unwritten": ("6.1", "6.12", "7.2"),
    "stack_of_calls": ("7.2",),
}


def read(kernel: str, name: str) -> tuple[str, ...]:
    return tuple((LOGS / kernel / f"{name}.log").read_text("utf-8").splitlines())


CASES = [
    (kernel, name) for name in EXPECTED for kernel in KERNELS if kernel not in TAKEN.get(name, ())
]


@pytest.mark.parametrize(("kernel", "name"), CASES)
def test_log(kernel: str, name: str) -> None:
    code, title = EXPECTED[name]
    if isinstance(title, dict):
        title = title[kernel]
    code, title = OTHERWISE.get((kernel, name), (code, title))
    found = explain_log(read(kernel, name))
    assert (found.code, found.title) == (code, title)
    assert found.help


@pytest.mark.parametrize("name", TAKEN)
def test_what_a_kernel_takes_left_no_log(name: str) -> None:
    assert [k for k in KERNELS if not (LOGS / k / f"{name}.log").exists()] == list(TAKEN[name])


@pytest.mark.parametrize(
    "words",
    [
        "invalid func unknown#111",
        "unknown func bpf_skb_output#111",
        "program of this type cannot use helper bpf_skb_output#111",
    ],
)
def test_the_three_wordings_of_a_helper_that_is_not_allowed(words: str) -> None:
    found = explain_log(("0: (85) call bpf_skb_output#111", words, "processed 1 insns"))
    assert render(found) == (
        "error[helper-not-allowed]: a program of this type may not call bpf_skb_output\n"
        " = note: skboutput() needs bpf_skb_output\n"
        " = note: bpf_skb_output is in the kernel since Linux 5.5\n"
        f" = note: the verifier's words: {words}\n"
        " = note: 2 more lines of log: -v shows them\n"
        " = help: fentry, fexit and rawtracepoint can call it: kcap fix rewrites a kprobe as fentry"
    ).replace("\n =", "\n   =")


def test_an_error_names_its_program() -> None:
    error = VerifierError("kprobe_f", 22, ("0: (95) exit", "R0 !read_ok", "processed 1 insns"))
    assert explain(error).title == "kprobe_f: the program reads register r0 before it has a value"


def test_what_is_not_known_is_passed_on() -> None:
    found = explain_log(("0: (95) exit", "the moon is in the wrong phase", "processed 1 insns"))
    assert found.code == "verifier"
    assert found.title == "the kernel refused the program: the moon is in the wrong phase"


def test_an_empty_log_is_no_reason_to_fail() -> None:
    assert explain_log(()).title == "the kernel refused the program"


def test_a_refused_program_is_an_error_with_diagnostic_and_log() -> None:
    log = ("0: (95) exit", "R0 !read_ok", "processed 1 insns")
    context = ProbeContext("kprobe", "kprobe:f", 2)
    found = refused(VerifierError("kprobe_f", 22, log), context, Script([], {}, None))
    assert isinstance(found, ScriptError)
    assert found.log == log
    assert [d.code for d in found.diagnostics] == ["verifier-uninitialized"]


@pytest.mark.parametrize(
    ("mode", "code"), [("confidentiality", "verifier-permission"), ("none", "helper-not-allowed")]
)
def test_a_helper_that_lockdown_takes_away(
    monkeypatch: pytest.MonkeyPatch, mode: str, code: str
) -> None:
    monkeypatch.setattr("kcap.kernel.permissions.lockdown", lambda: mode)
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(release="6.12.107"))
    words = "program of this type cannot use helper bpf_probe_read_kernel#113"
    span = Source("x.bt", "kprobe:f { }").span(0, 8)
    program = Program(span, ProbeContext("kprobe", "kprobe:f", 2), None, [])
    found = explain_log(("0: (85) call bpf_probe_read_kernel#113", words), program)
    assert found.code == code
    assert ("lockdown" in found.title) is (mode != "none")
