# SPDX-License-Identifier: Apache-2.0
"""The check before loading: whole scripts, from text to diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kcap.diagnose.check import check, check_failed
from kcap.diagnose.programkinds import ProgramKind
from kcap.functions.registry import all_functions
from kcap.kernel.helpers import Helper
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.lang.edits import apply_edits
from kcap.lang.parser import parse
from kcap.lang.render import render
from kcap.lang.source import Source
from kcap.probes.registry import resolver
from kcap.probes.system import System
from kcap.sema.analyzer import analyze
from kcap.sema.config import Config
from kcap.session.script import compile as compile_script
from unit.diagnose import repair_machine as frozen

CASE = """\
kprobe:napi_gro_receive {
  $skb = ((struct sk_buff *)arg1);
  $ret = skboutput("receive.pcap", $skb, $skb->len, 0);
}
"""


def checked(
    system: System, text: str, release: str | None = "6.12.107", probe: object = None
) -> list[Diagnostic]:
    """Everything that is wrong with a script."""
    source = Source("capture.bt", text)
    program = parse(source)
    functions = all_functions()
    try:
        script = analyze(
            program,
            functions=functions,
            probes=resolver(system),
            types=system.types,
            config=Config(),
        )
    except ScriptError as error:
        return list(check_failed(error, program, source, system, functions, release).diagnostics)
    return check(script, program, source, system, functions, release, probe)  # type: ignore[arg-type]


def test_the_case_is_explained_and_repaired(machine: System) -> None:
    (found,) = checked(machine, CASE)
    assert (
        render(found)
        == """\
error[helper-not-allowed]: skboutput() can't be used in a kprobe
  --> capture.bt:3:10
   |
 1 | kprobe:napi_gro_receive {
   | ----------------------- a kprobe is loaded as BPF_PROG_TYPE_KPROBE, which may not call it
 2 |   $skb = ((struct sk_buff *)arg1);
 3 |   $ret = skboutput("receive.pcap", $skb, $skb->len, 0);
   |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ skboutput() needs the BPF helper \
bpf_skb_output
   |
   = note: the kernel's answer would be: program of this type cannot use helper bpf_skb_output#111
   = help: fentry, fexit and rawtracepoint can call it
   = help: `kcap fix FILE` prints the script repaired as below, `kcap --fix FILE` runs it so
help: change the script like this
   |
 1 - kprobe:napi_gro_receive {
 1 + fentry:napi_gro_receive {
 2 -   $skb = ((struct sk_buff *)arg1);
 3 -   $ret = skboutput("receive.pcap", $skb, $skb->len, 0);
 2 +   $ret = skboutput("receive.pcap", args.skb, args.skb.len, 0);"""
    )


def test_the_repaired_script_passes_the_check(machine: System) -> None:
    (found,) = checked(machine, CASE)
    assert found.span is not None
    assert checked(machine, apply_edits(found.span.source, found.edits)) == []


@pytest.mark.parametrize(
    ("release", "answer"),
    [
        ("5.10.262", "unknown func bpf_skb_output#111"),
        ("6.1.0-56-cloud-amd64", "unknown func bpf_skb_output#111"),
        ("6.12.107", "program of this type cannot use helper bpf_skb_output#111"),
        ("7.2.12", "program of this type cannot use helper bpf_skb_output#111"),
        (None, "program of this type cannot use helper bpf_skb_output#111"),
    ],
)
def test_it_tells_what_each_kernel_would_answer(
    machine: System, release: str | None, answer: str
) -> None:
    (found,) = checked(machine, CASE, release)
    assert found.notes == (f"the kernel's answer would be: {answer}",)


def test_a_missing_function_and_the_helper_are_reported_and_repaired_together(
    tmp_path: Path,
) -> None:
    machine = frozen.machine(tmp_path, without=frozenset({"napi_gro_receive"}))
    found = checked(machine, CASE, "7.2.12")
    assert [d.code for d in found] == ["no-match", "not-traceable", "helper-not-allowed"]
    assert found[0].help == ("did you mean gro_receive_skb?",)
    assert found[2].span is not None
    repaired = apply_edits(found[2].span.source, [*found[0].edits, *found[2].edits])
    assert repaired.splitlines()[0] == "fentry:gro_receive_skb {"
    assert checked(machine, repaired, "7.2.12") == []


def test_one_diagnostic_a_call_however_many_probes(machine: System) -> None:
    script = 'kprobe:icmp_rcv, kretprobe:alloc { skboutput("a", (struct sk_buff *)1, 1, 0); }'
    (found,) = checked(machine, script)
    assert found.title == "skboutput() can't be used in a kprobe or a kretprobe"
    assert [(label.span.text, label.text) for label in found.labels] == [
        ("kprobe:icmp_rcv", "a kprobe is loaded as BPF_PROG_TYPE_KPROBE, which may not call it"),
        ("kretprobe:alloc", "a kretprobe is loaded as BPF_PROG_TYPE_KPROBE, which may not call it"),
    ]


def test_two_calls_of_a_probe_are_mended_by_one_edit(machine: System) -> None:
    call = 'skboutput("a", (struct sk_buff *)arg0, 1, 0);'
    found = checked(machine, f"kprobe:icmp_rcv {{ {call} {call} }}")
    assert [bool(d.edits) for d in found] == [True, False]


def test_a_refused_repair_says_why(machine: System) -> None:
    (found,) = checked(machine, 'interval:s:1 { skboutput("a", (struct sk_buff *)0, 1, 0); }')
    assert found.title == "skboutput() can't be used in an interval"
    assert found.edits == ()
    assert found.notes[1:] == (
        "no safe rewrite: interval:s:1 can't be rewritten: no probe type that may do what the "
        "block does takes the place of interval",
    )


@pytest.mark.parametrize(
    "script",
    [
        'fentry:icmp_rcv { skboutput("a", args.skb, args.skb.len, 0); }',
        'fexit:icmp_rcv { skboutput("a", args.skb, args.skb.len, 0); }',
        'rawtracepoint:netif_receive_skb { skboutput("a", args.skb, args.skb.len, 0); }',
        'kprobe:icmp_rcv { printf("%d %s", pid, comm); @[kstack] = count(); @h = hist(nsecs); }',
        'interval:s:1 { printf("%s", comm); print(pid); } begin { printf("x"); }',
    ],
)
@pytest.mark.parametrize("release", ["5.10.262", "6.1.192", "6.12.107", "7.2.12"])
def test_what_the_kernels_take_is_not_refused(machine: System, script: str, release: str) -> None:
    assert checked(machine, script, release) == []


def test_the_running_kernels_answer_counts_more_than_the_table(machine: System) -> None:
    asked = []

    def probe(kind: ProgramKind, helper: int) -> bool | None:
        asked.append((kind.key, helper))
        return True

    assert checked(machine, CASE, "6.1", probe) == []
    assert ("kprobe", Helper.skb_output) in asked


def test_where_the_kernel_does_not_tell_the_table_does(machine: System) -> None:
    (found,) = checked(machine, CASE, "6.1", lambda kind, helper: None)
    assert found.code == "helper-not-allowed"


def test_the_check_knows_no_function_by_name(machine: System) -> None:
    # get_func_ip is behind func(); on 5.10 the kernel has no such helper.
    functions = all_functions()
    needing = sorted({f.name for f in functions.values() if Helper.skb_output in f.helpers})
    assert needing == ["skboutput"]


@pytest.mark.parametrize(("answer", "refused"), [(True, False), (False, True), (None, True)])
def test_who_is_going_to_load_a_script_asks_the_kernel_itself(
    machine: System, monkeypatch: pytest.MonkeyPatch, answer: bool | None, refused: bool
) -> None:
    asked = []

    class Kernel:
        def __init__(self, btf: object) -> None:
            assert btf is not None

        def __call__(self, kind: ProgramKind, helper: int) -> bool | None:
            asked.append((kind.key, helper))
            return answer

    monkeypatch.setattr("kcap.diagnose.prober.Prober", Kernel)
    text = 'kprobe:icmp_rcv { skboutput("a", (struct sk_buff *)arg0, 1, 0); }'
    found = codes(lambda: compile_script(text, system=machine, ask_kernel=True))
    assert found == (["helper-not-allowed"] if refused else [])
    assert asked == [("kprobe", Helper.skb_output)]
    asked.clear()
    assert codes(lambda: compile_script(text, system=machine)) == ["helper-not-allowed"]
    assert asked == []


def codes(work: Callable[[], object]) -> list[str]:
    """The codes of the errors that come out of a call."""
    try:
        work()
    except ScriptError as error:
        return [one.code for one in error.errors]
    return []
