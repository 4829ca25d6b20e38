# SPDX-License-Identifier: Apache-2.0
"""``kcap explain``: messages of other tools, helpers, probe types, functions."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from kcap.cli import explain
from kcap.diagnose.known import about_function, about_helper, about_name, about_probe, has_function
from kcap.diagnose.verifier import explain_text
from kcap.errors import UsageError
from kcap.probes.system import System

# The situation of two reports in bpftrace's tracker: the verifier's words stand in the middle.
OLD_LOG = """\
Attaching 1 probe...

Error log:
0: (79) r6 = *(u64 *)(r1 +104)
1: (b7) r1 = 30011
23: (b7) r5 = 24
24: (85) call unknown#111
invalid func unknown#111

ERROR: Error loading program: kprobe:napi_gro_receive
"""

NEW_LOG = """\
22: (b7) r5 = 24                      ; R5_w=24
23: (85) call bpf_skb_output#111
unknown func bpf_skb_output#111
processed 24 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0
ERROR: Error loading BPF program for kprobe:napi_gro_receive.
"""

MESSAGES = {
    OLD_LOG: ("helper-not-allowed", "a program of this type may not call bpf_skb_output"),
    NEW_LOG: ("helper-not-allowed", "a program of this type may not call bpf_skb_output"),
    'stdin:1:1-9: ERROR: skboutput can not be used with "kprobe" probes': (
        "helper-not-allowed",
        "skboutput() can't be used in kprobe probes",
    ),
    "ERROR: Failed to create pcap file(s)": ("no-libpcap", "this bpftrace can't write captures"),
    "stdin:1:1-34: WARNING: xfs_x is not traceable (either non-existing, inlined, or marked as "
    '"notrace"); attaching to it will likely fail': ("not-traceable", "xfs_x can't be traced"),
    "ERROR: Error attaching probe: 'kprobe:close_fd'": (
        "attach",
        "kprobe:close_fd can't be attached",
    ),
    't.bt:3:12-34: ERROR: Cannot resolve unknown type "struct tun_struct"': (
        "unknown-type",
        "there is no type tun_struct",
    ),
    "error: <unknown>:0:0: in function f i64 (i8*): Looks like the BPF stack limit of 512 bytes is "
    "exceeded. Please move large on stack variables into BPF per-cpu array map.": (
        "stack",
        "the program needs more stack than the 512 bytes that BPF has",
    ),
    "ERROR: bpftrace currently only supports running as the root user.": (
        "root",
        "tracing takes privileges",
    ),
    "Could not resolve symbol: /proc/self/exe:BEGIN_trigger": (
        "begin-trigger",
        "this bpftrace was stripped, and can't run BEGIN",
    ),
    "ERROR: Could not resolve symbol pagecache_get_page. Use BPFTRACE_VMLINUX": (
        "resolve",
        "pagecache_get_page is in no symbol table that can be read",
    ),
    "ERROR: Error loading BPF program for begin_1. Error code: -28 (No space left on device).": (
        "log-too-long",
        "the verifier's log did not fit",
    ),
    "Lost 4711 events": ("lost-events", "4711 events were lost"),
    "ERROR: No matches for fentry nonsense.": (
        "no-match",
        "there is no fentry nonsense on this machine",
    ),
    "libbpf: prog 'f': BPF program load failed: Operation not permitted": (
        "verifier-permission",
        "the kernel does not let this process load the program",
    ),
}


@pytest.mark.parametrize(("text", "expected"), MESSAGES.items())
def test_messages(text: str, expected: tuple[str, str]) -> None:
    found = explain_text(text)
    assert found is not None
    assert (found.code, found.title) == expected
    assert found.notes
    assert found.help


def test_what_is_not_known_is_not_guessed() -> None:
    assert explain_text("all is well\n") is None


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(OLD_LOG.encode())))
    assert explain.main([]) == 0
    assert capsys.readouterr().out == (
        "error[helper-not-allowed]: a program of this type may not call bpf_skb_output\n"
        "   = note: skboutput() needs bpf_skb_output\n"
        "   = note: bpf_skb_output is in the kernel since Linux 5.5\n"
        "   = help: fentry, fexit and rawtracepoint can call it: kcap fix rewrites a kprobe as "
        "fentry\n"
    )


def test_a_file_and_an_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    path.write_text(OLD_LOG)
    assert explain.main([str(path)]) == 0
    first = capsys.readouterr().out
    assert explain.main(["invalid", "func", "unknown#111"]) == 0
    assert capsys.readouterr().out == first


def test_a_single_name_is_that_of_a_function_a_probe_a_helper_or_one_of_the_kernel(
    machine: System,
) -> None:
    signature, *rest = about_name("skboutput", machine)
    assert signature.startswith("int64 skboutput(const string path, struct sk_buff *skb, ")
    assert rest == [
        "  Write the packet that an sk_buff holds to a pcap or pcapng file.",
        "  calls bpf_skb_output (Linux 5.5): kcap explain bpf_skb_output",
    ]
    assert about_name("kprobe", machine) == about_probe("kprobe")
    assert about_name("bpf_loop", machine) == about_helper("bpf_loop")
    assert about_name("icmp_rcv", machine) == about_function("icmp_rcv", machine)
    assert about_name("nonsense", machine) == []


@pytest.mark.parametrize("word", ["kstack", "printf()", "interval", "bpf_skb_output"])
def test_a_single_name_can_be_given_to_the_command(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain.main([word]) == 0
    assert word.removesuffix("()") in capsys.readouterr().out.splitlines()[0]


def test_nothing_known_is_said_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain.main(["hello"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "kcap explain: nothing is known about this",
        "HINT: give a whole error message or verifier log, or see kcap explain --help",
    ]


@pytest.mark.parametrize("argv", [["--nix", "x"], ["--helper"], ["--probe="]])
def test_wrong_command_lines(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        explain.main(argv)


@pytest.mark.parametrize("name", ["skb_output", "bpf_skb_output", "111"])
def test_about_a_helper(name: str) -> None:
    lines = about_helper(name)
    assert lines[:3] == [
        "bpf_skb_output (number 111)",
        "  in the kernel since Linux 5.5",
        "  needed by skboutput()",
    ]
    assert [line.split()[-1] for line in lines if "since 5.5 " in line] == [
        "fentry",
        "fexit",
        "rawtracepoint",
        "iter",
    ]


def test_an_unknown_helper_gets_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        about_helper("bpf_skb_outptu")
    assert caught.value.message == "there is no BPF helper bpf_skb_outptu"
    assert caught.value.hint == "did you mean skb_output?"


def test_about_a_probe_type() -> None:
    lines = about_probe("k")
    assert lines[0] == "kprobe: Entry of a kernel function, or any instruction in it"
    assert "  loaded as BPF_PROG_TYPE_KPROBE" in lines
    refused = next(line for line in lines if line.startswith("  can't be used in it: "))
    assert "skboutput()" in refused


def test_every_probe_type_says_what_it_costs() -> None:
    from kcap.probes.registry import probe_types

    by_hand = {"test", "bench"}
    assert [kind.name for kind in probe_types() if not kind.cost and kind.name not in by_hand] == []
    assert any(line.startswith("  an event costs: a direct call") for line in about_probe("fentry"))


def test_kernels_only_go_with_functions() -> None:
    with pytest.raises(UsageError):
        explain.main(["--helper", "bpf_loop", "--kernel", "all"])
    with pytest.raises(UsageError):
        explain.main(["--function", "ip_rcv", "--kernel"])


def test_an_unknown_probe_type_gets_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        about_probe("fentri")
    assert caught.value.hint is not None
    assert "fentry" in caught.value.hint


def test_about_a_function(machine: System) -> None:
    assert about_function("napi_gro_receive", machine) == [
        "int napi_gro_receive(struct napi_struct *napi, struct sk_buff *skb)",
        "  in the BTF of the kernel itself",
        "  kprobe: yes",
        "  fentry: yes",
        "  see gro_receive_skb (on this kernel): napi_gro_receive became an inline wrapper of "
        "gro_receive_skb (Linux 6.15)",
    ]


def test_about_a_function_that_fentry_cannot_trace(machine: System) -> None:
    assert about_function("many", machine)[2:] == [
        "  kprobe: yes",
        "  fentry: no, it takes a variable number of arguments",
    ]


def test_a_function_that_is_not_there_is_not_known(machine: System) -> None:
    assert has_function("napi_gro_receive", machine)
    assert not has_function("icmp_rcw", machine)


def test_about_a_function_that_is_not_there(machine: System) -> None:
    assert about_function("icmp_rcw", machine) == [
        "icmp_rcw",
        "  not in BTF: fentry can't trace it, and its arguments are not known",
        "  can't be traced: ftrace does not have it",
        "  names like it: icmp_rcv",
    ]


def test_names_like_that_of_a_missing_function_come_from_btf_for_others_than_root(
    machine: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "functions", None)
    assert about_function("icmp_rcw", machine)[2:] == [
        "  names like it: icmp_rcv",
        "  whether it can be traced can't be told: run as root",
    ]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (
            "R1 type=scalar expected=ptr_, trusted_ptr_, rcu_ptr_",
            "argument-type",
            "if the helper is bpf_skb_output",
        ),
        (
            "Lockdown: kcap: use of bpf to read kernel RAM is restricted",
            "verifier-permission",
            "lockdown in confidentiality mode",
        ),
        ("ERROR: kernel doesn't support BTF", "verifier-btf", "CONFIG_DEBUG_INFO_BTF"),
        ("Failed to find kernel BTF", "verifier-btf", "CONFIG_DEBUG_INFO_BTF"),
    ],
)
def test_single_lines_are_explained(text: str, code: str, words: str) -> None:
    found = explain_text(text)
    assert found is not None
    assert found.code == code
    assert words in " ".join((*found.notes, *found.help))
