# SPDX-License-Identifier: Apache-2.0
"""Repairing kprobes that call what only fentry may call: the repaired scripts, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.system import Files, System
from unit.diagnose import repair_machine as frozen
from unit.diagnose.repair_machine import repair

CASE = """\
kprobe:napi_gro_receive {
  $skb = ((struct sk_buff *)arg1);
  $ret = skboutput("receive.pcap", $skb, $skb->len, 0);
}
"""

FIXED = """\
fentry:napi_gro_receive {
  $ret = skboutput("receive.pcap", args.skb, args.skb.len, 0);
}
"""


def test_the_case_that_it_all_starts_from(machine: System) -> None:
    found = repair(machine, CASE)
    assert found.text == FIXED
    assert found.refusals == ()
    assert [probe.notes for probe in found.probes] == [()]


def test_indentation_and_line_ends_stay(machine: System) -> None:
    indented = "".join(f"\t {line}\r\n" for line in CASE.splitlines())
    expected = "".join(f"\t {line}\r\n" for line in FIXED.splitlines())
    assert repair(machine, indented).text == expected


def test_a_function_with_another_name_here_is_renamed_too(tmp_path: Path) -> None:
    machine = frozen.machine(tmp_path, without=frozenset({"napi_gro_receive"}))
    found = repair(machine, CASE)
    assert found.text == FIXED.replace("napi_gro_receive", "gro_receive_skb")
    assert found.probes[0].notes == (
        "napi_gro_receive → gro_receive_skb: napi_gro_receive became an inline wrapper of "
        "gro_receive_skb (Linux 6.15)",
    )


def test_the_diff_shows_what_changes(machine: System) -> None:
    assert repair(machine, CASE).diff == (
        "--- test.bt\n"
        "+++ test.bt (fixed)\n"
        "@@ -1,4 +1,3 @@\n"
        "-kprobe:napi_gro_receive {\n"
        "-  $skb = ((struct sk_buff *)arg1);\n"
        '-  $ret = skboutput("receive.pcap", $skb, $skb->len, 0);\n'
        "+fentry:napi_gro_receive {\n"
        '+  $ret = skboutput("receive.pcap", args.skb, args.skb.len, 0);\n'
        " }\n"
    )


REPAIRED = {
    "short name of the probe type": (
        'k:icmp_rcv { skboutput("a", (struct sk_buff *)arg0, 64, 0); }',
        'fentry:icmp_rcv { skboutput("a", args.skb, 64, 0); }',
    ),
    "module part": (
        'kprobe:vmlinux:icmp_rcv { skboutput("a", (struct sk_buff *)arg0, 64, 0); }',
        'fentry:vmlinux:icmp_rcv { skboutput("a", args.skb, 64, 0); }',
    ),
    "cast in place, twice": (
        'kprobe:ip_rcv { skboutput("a", (struct sk_buff*)arg0, ((struct sk_buff *)arg0)->len, 0) }',
        'fentry:ip_rcv { skboutput("a", args.skb, args.skb.len, 0) }',
    ),
    "superfluous parentheses": (
        'kprobe:icmp_rcv { skboutput("a", (((struct sk_buff *)(arg0))), 1, 0); }',
        'fentry:icmp_rcv { skboutput("a", args.skb, 1, 0); }',
    ),
    "the tag alone as type": (
        'kprobe:icmp_rcv { $s = (sk_buff *)arg0; skboutput("a", $s, $s->len, 0); }',
        'fentry:icmp_rcv { skboutput("a", args.skb, args.skb.len, 0); }',
    ),
    "let with type": (
        'kprobe:icmp_rcv { let $s: struct sk_buff * = (struct sk_buff *)arg0; '
        'skboutput("a", $s, $s->len, 0); }',
        'fentry:icmp_rcv { skboutput("a", args.skb, args.skb.len, 0); }',
    ),
    "const in the prototype": (
        'kprobe:const_rcv { $s = (struct sk_buff *)arg0; skboutput("a", $s, $s.len, 0); }',
        'fentry:const_rcv { skboutput("a", args.skb, args.skb.len, 0); }',
    ),
    "only the first arrow was a cast's": (
        'kprobe:ip_rcv { $s = (struct sk_buff *)arg0; skboutput("a", $s, $s->dev->ifindex, 0); }',
        'fentry:ip_rcv { skboutput("a", args.skb, args.skb.dev->ifindex, 0); }',
    ),
    "comment behind the variable": (
        'kprobe:icmp_rcv {\n  $s = (struct sk_buff *)arg0; // the packet\n'
        '  /* all of it */ skboutput("a", $s, $s->len, 0);\n}',
        'fentry:icmp_rcv {\n   // the packet\n'
        '  /* all of it */ skboutput("a", args.skb, args.skb.len, 0);\n}',
    ),
    "predicate": (
        'kprobe:icmp_rcv / arg0 != 0 / { skboutput("a", (struct sk_buff *)arg0, 1, 0); }',
        'fentry:icmp_rcv / args.skb != 0 / { skboutput("a", args.skb, 1, 0); }',
    ),
    "cast in the predicate": (
        'kprobe:icmp_rcv /((struct sk_buff *)arg0)->len > 9/ '
        '{ skboutput("a", (struct sk_buff *)arg0, 1, 0); }',
        'fentry:icmp_rcv /args.skb.len > 9/ { skboutput("a", args.skb, 1, 0); }',
    ),
    "integer in a variable, cast later": (
        'kprobe:icmp_rcv { $s = arg0; skboutput("a", (struct sk_buff *)$s, 1, 0); }',
        'fentry:icmp_rcv { skboutput("a", args.skb, 1, 0); }',
    ),
    "variable given another value stays": (
        'kprobe:merge { $s = (struct sk_buff *)arg0; if ($s->len == 0) '
        '{ $s = (struct sk_buff *)arg1; } skboutput("a", $s, $s->len, 0); }',
        'fentry:merge { $s = args.a; if ($s->len == 0) '
        '{ $s = args.b; } skboutput("a", $s, $s->len, 0); }',
    ),
    "variable used as more than a pointer stays": (
        'kprobe:icmp_rcv { $s = (struct sk_buff *)arg0; @last = $s; skboutput("a", $s, 1, 0); }',
        'fentry:icmp_rcv { $s = args.skb; @last = $s; skboutput("a", $s, 1, 0); }',
    ),
    "variable stepped stays": (
        'kprobe:icmp_rcv { $s = (struct sk_buff *)arg0; $s++; skboutput("a", $s, 1, 0); }',
        'fentry:icmp_rcv { $s = args.skb; $s++; skboutput("a", $s, 1, 0); }',
    ),
    "integers keep being integers": (
        'kprobe:ip_rcv { @[arg0] = 1; @d = arg1; printf("%d %x", arg2, arg1); $n = arg0 + 8; '
        'skboutput("a", (struct sk_buff *)arg0, arg2, 0); }',
        'fentry:ip_rcv { @[(uint64)args.skb] = 1; @d = (uint64)args.dev; '
        'printf("%d %x", args.len, (uint64)args.dev); $n = (uint64)args.skb + 8; '
        'skboutput("a", args.skb, args.len, 0); }',
    ),
    "cast to another type stays": (
        'kprobe:ip_rcv { $d = (struct napi_struct *)arg1; @ = $d->state; $n = (int64)arg2; '
        'skboutput("a", (struct sk_buff *)arg0, (uint32)arg2, 0); }',
        'fentry:ip_rcv { $d = (struct napi_struct *)args.dev; @ = $d->state; '
        '$n = (int64)args.len; skboutput("a", args.skb, args.len, 0); }',
    ),
    "probes that agree": (
        'kprobe:icmp_rcv,\nk:icmpv6_rcv { skboutput("a", (struct sk_buff *)arg0, 1, 0); }',
        'fentry:icmp_rcv,\nfentry:icmpv6_rcv { skboutput("a", args.skb, 1, 0); }',
    ),
    "a probe of the block that is right already": (
        'fentry:icmp_rcv, kprobe:icmpv6_rcv { skboutput("a", (struct sk_buff *)arg0, 1, 0); }',
        'fentry:icmp_rcv, fentry:icmpv6_rcv { skboutput("a", args.skb, 1, 0); }',
    ),
    "probes that differ only in what is not used": (
        'kprobe:icmp_rcv, kprobe:ip_rcv { skboutput("a", (struct sk_buff *)arg0, 1, 0); }',
        'fentry:icmp_rcv, fentry:ip_rcv { skboutput("a", args.skb, 1, 0); }',
    ),
    "wildcard whose functions agree": (
        'kprobe:icmp*_rcv { skboutput("a", (struct sk_buff *)arg0, 1, 0); }',
        'fentry:icmp*_rcv { skboutput("a", args.skb, 1, 0); }',
    ),
    "kretprobe": (
        'kretprobe:alloc { $s = (struct sk_buff *)retval; skboutput("a", $s, $s->len, 0); }',
        'fexit:alloc { skboutput("a", retval, retval.len, 0); }',
    ),
    "kretprobe, cast in place": (
        'kr:alloc /retval/ { skboutput("a", (struct sk_buff *)retval, 9, 0); @[retval] = 1 }',
        'fexit:alloc /retval/ { skboutput("a", retval, 9, 0); @[(uint64)retval] = 1 }',
    ),
    "name of the attach point": (
        'in=kprobe:icmp_rcv { skboutput("a", (struct sk_buff *)arg0, 1, 0); }',
        'in=fentry:icmp_rcv { skboutput("a", args.skb, 1, 0); }',
    ),
    "call in a macro": (
        'macro save($p) { skboutput("a", $p, 1, 0); }\n'
        'kprobe:icmp_rcv { $s = (struct sk_buff *)arg0; save($s); }',
        'macro save($p) { skboutput("a", $p, 1, 0); }\n'
        'fentry:icmp_rcv { $s = args.skb; save($s); }',
    ),
    "loop": (
        'kprobe:icmp_rcv { $s = (struct sk_buff *)arg0; unroll (2) { skboutput("a", $s, 1, 0); } }',
        'fentry:icmp_rcv { unroll (2) { skboutput("a", args.skb, 1, 0); } }',
    ),
    "only the probe that needs it": (
        'kprobe:ip_rcv { @ = arg0; }\n'
        'kprobe:icmp_rcv { skboutput("a", (struct sk_buff *)arg0, 1, 0); }\n'
        'begin { printf("go"); }',
        'kprobe:ip_rcv { @ = arg0; }\n'
        'fentry:icmp_rcv { skboutput("a", args.skb, 1, 0); }\n'
        'begin { printf("go"); }',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), REPAIRED.values(), ids=REPAIRED.keys())
def test_repair(machine: System, script: str, expected: str) -> None:
    found = repair(machine, script)
    assert found.refusals == ()
    assert found.text == expected
    parse(Source("fixed.bt", found.text))


@pytest.mark.parametrize(("script", "expected"), REPAIRED.values(), ids=REPAIRED.keys())
def test_what_is_repaired_needs_no_repair(machine: System, script: str, expected: str) -> None:
    assert repair(machine, expected).probes == ()


def test_a_right_script_is_left_alone(machine: System) -> None:
    found = repair(machine, "kprobe:ip_rcv { @[arg0] = count(); }")
    assert found.probes == ()
    assert found.text == "kprobe:ip_rcv { @[arg0] = count(); }"
    assert found.diff == ""


SKB = 'skboutput("a", (struct sk_buff *)arg0, 1, 0)'

REFUSED = {
    "offset": (
        f"kprobe:icmp_rcv+8 {{ {SKB}; }}",
        "icmp_rcv+8",
        "kprobe:icmp_rcv+8 can't be rewritten as fentry: fentry attaches to the entry of "
        "icmp_rcv, not to an instruction in it (+8)",
    ),
    "address": (
        f"kprobe:0xffffffff81000000 {{ {SKB}; }}",
        "0xffffffff81000000",
        "kprobe:0xffffffff81000000 can't be rewritten as fentry: fentry attaches to functions by "
        "name, not to an address",
    ),
    "unknown function": (
        f"kprobe:icmp_recv {{ {SKB}; }}",
        "icmp_recv",
        "kprobe:icmp_recv can't be rewritten as fentry: no matches for fentry icmp_recv",
    ),
    "not in BTF": (
        f"kprobe:no_btf {{ {SKB}; }}",
        "no_btf",
        "kprobe:no_btf can't be rewritten as fentry: fentry: BTF has no function no_btf",
    ),
    "beyond the prototype": (
        'kprobe:icmp_rcv { skboutput("a", (struct sk_buff *)arg1, 1, 0); }',
        "arg1",
        "kprobe:icmp_rcv can't be rewritten as fentry: icmp_rcv has 1 argument, so arg1 is none "
        "of them",
    ),
    "argument names differ": (
        f"kprobe:icmp_rcv,kprobe:consume {{ {SKB}; }}",
        "arg0",
        "kprobe:icmp_rcv can't be rewritten as fentry: arg0 is `struct sk_buff *skb` in icmp_rcv, "
        "and `struct sk_buff *buf` in consume",
    ),
    "argument types differ": (
        'kprobe:napi_gro_receive,kprobe:icmp_send { skboutput("a", (struct sk_buff *)arg1, 1, 0) }',
        "arg1",
        "kprobe:napi_gro_receive can't be rewritten as fentry: arg1 is `struct sk_buff *skb` in "
        "napi_gro_receive, and `int type` in icmp_send",
    ),
    "struct by value": (
        'kprobe:by_value { skboutput("a", (struct sk_buff *)arg2, 1, 0); }',
        "arg2",
        "kprobe:by_value can't be rewritten as fentry: by_value has 2 arguments, so arg2 is none "
        "of them",
    ),
    "behind a struct by value": (
        'kprobe:by_value { skboutput("a", (struct sk_buff *)arg1, 1, 0); }',
        "arg1",
        "kprobe:by_value can't be rewritten as fentry: by_value takes the struct pair by value, "
        "so that arg1 may be a part of it",
    ),
    "variable number of arguments": (
        f"kprobe:many {{ {SKB}; }}",
        "many",
        "kprobe:many can't be rewritten as fentry: fentry can't trace many: it takes a variable "
        "number of arguments",
    ),
    "wildcard that loses functions": (
        f"kprobe:*no* {{ {SKB}; }}",
        "*no*",
        "kprobe:*no* can't be rewritten as fentry: no matches for fentry *no*",
    ),
    "wildcard that loses some functions": (
        f"kprobe:*o* {{ {SKB}; }}",
        "*o*",
        "kprobe:*o* can't be rewritten as fentry: 2 of the functions that *o* stands for can't be "
        "traced by fentry: ftrace_only, no_btf",
    ),
    "returns nothing": (
        'kretprobe:consume { skboutput("a", (struct sk_buff *)retval, 1, 0); }',
        "retval",
        "kretprobe:consume can't be rewritten as fexit: consume returns nothing",
    ),
    "registers": (
        'kprobe:icmp_rcv { skboutput("a", (struct sk_buff *)reg("di"), 1, 0); }',
        'reg("di")',
        "kprobe:icmp_rcv can't be rewritten as fentry: reg() reads the registers of a kprobe, "
        "which fentry does not have",
    ),
    "stack argument": (
        f"kprobe:icmp_rcv {{ @ = sarg0; {SKB}; }}",
        "sarg0",
        "kprobe:icmp_rcv can't be rewritten as fentry: sarg0 reads the registers of a kprobe, "
        "which fentry does not have",
    ),
    "context": (
        f"kprobe:icmp_rcv {{ $r = (struct pt_regs *)ctx; {SKB}; }}",
        "ctx",
        "kprobe:icmp_rcv can't be rewritten as fentry: ctx reads the registers of a kprobe, "
        "which fentry does not have",
    ),
    "macro with an argument": (
        f"macro save() {{ {SKB}; }}\nkprobe:icmp_rcv {{ save(); }}",
        "save()",
        "kprobe:icmp_rcv can't be rewritten as fentry: the macro save uses arg0, and others may "
        "call it too",
    ),
    "no packet at all": (
        'interval:s:1 { skboutput("a", 0, 1, 0); }',
        "interval:s:1",
        "interval:s:1 can't be rewritten: no probe type that may do what the block does takes the "
        "place of interval",
    ),
    "a probe of the block that can't be rewritten": (
        f"kprobe:icmp_rcv,interval:s:1 {{ {SKB}; }}",
        "interval:s:1",
        "kprobe:icmp_rcv can't be rewritten as fentry: no probe type that may do what the block "
        "does takes the place of interval",
    ),
}


@pytest.mark.parametrize(("script", "place", "title"), REFUSED.values(), ids=REFUSED.keys())
def test_refusal(machine: System, script: str, place: str, title: str) -> None:
    found = repair(machine, script)
    assert found.text == script
    (refusal,) = found.refusals
    assert refusal.code == "no-safe-rewrite"
    assert refusal.span is not None
    assert (refusal.title, refusal.span.text) == (title, place)


def test_a_function_that_fentry_cannot_trace_is_refused_with_the_reason(tmp_path: Path) -> None:
    machine = frozen.machine(tmp_path, untraceable=frozenset({"sleepy"}))
    (refusal,) = repair(machine, f"kprobe:sleepy {{ {SKB}; }}").refusals
    assert refusal.notes == (
        "sleepy exists, but ftrace has no hook in it: it is marked notrace, or built without "
        "instrumentation",
    )


def test_without_btf_nothing_can_be_named(tmp_path: Path) -> None:
    machine = System(files=Files(tracefs=str(tmp_path), proc=str(tmp_path), btf=str(tmp_path)))
    (refusal,) = repair(machine, CASE).refusals
    assert refusal.title == (
        "kprobe:napi_gro_receive can't be rewritten as fentry: fentry needs BTF, and the kernel "
        "has none"
    )


def test_arguments_of_a_renamed_function_are_told_by_casts_only(tmp_path: Path) -> None:
    machine = frozen.machine(tmp_path, without=frozenset({"napi_gro_receive"}))
    script = 'kprobe:napi_gro_receive { @ = arg0; skboutput("a", (struct sk_buff *)arg1, 1, 0); }'
    (refusal,) = repair(machine, script).refusals
    assert refusal.title == (
        "kprobe:napi_gro_receive can't be rewritten as fentry: napi_gro_receive is gro_receive_skb "
        "here, whose arguments differ: which one arg0 was can't be told without a cast"
    )
    assert refusal.notes == ("BTF: int gro_receive_skb(struct gro_node *gro, struct sk_buff *skb)",)


def test_one_probe_refused_does_not_keep_the_others_from_repair(machine: System) -> None:
    found = repair(machine, f"kprobe:nix {{ {SKB}; }}\nkprobe:icmp_rcv {{ {SKB}; }}\n")
    assert len(found.refusals) == 1
    assert found.text == (
        f'kprobe:nix {{ {SKB}; }}\nfentry:icmp_rcv {{ skboutput("a", args.skb, 1, 0); }}\n'
    )
