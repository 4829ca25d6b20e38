# SPDX-License-Identifier: Apache-2.0
"""Edits for common mistakes: the code of the error, and the script after the edit."""

from __future__ import annotations

import pytest

from kcap.diagnose.check import check_failed
from kcap.functions.registry import all_functions
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.lang.edits import apply_edits
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.registry import resolver
from kcap.probes.system import System
from kcap.sema.analyzer import analyze
from kcap.sema.config import Config


def errors(system: System, text: str) -> list[Diagnostic]:
    """What analysis finds wrong, with suggestions."""
    source = Source("test.bt", text)
    program = parse(source)
    functions = all_functions()
    try:
        analyze(
            program,
            functions=functions,
            probes=resolver(system),
            types=system.types,
            config=Config(),
        )
    except ScriptError as error:
        found = check_failed(error, program, source, system, functions, "6.12")
        return [d for d in found.diagnostics if d.severity == "error"]
    return []


MENDED = {
    "set in both branches, on lines": (
        "undefined-variable",
        "begin {\n  if (pid) {\n    $x = 1;\n  } else {\n    $x = 2;\n  }\n  print($x);\n}",
        "begin {\n  let $x;\n  if (pid) {\n    $x = 1;\n  } else {\n    $x = 2;\n  }\n"
        "  print($x);\n}",
    ),
    "set in a branch, on one line": (
        "undefined-variable",
        "begin { @a = 1; if (pid) { $x = 1 } print($x); }",
        "begin { @a = 1; let $x; if (pid) { $x = 1 } print($x); }",
    ),
    "set in a nested block": (
        "undefined-variable",
        "begin { if (pid) { if (tid) { $x = 1 } print($x); } }",
        "begin { if (pid) { let $x; if (tid) { $x = 1 } print($x); } }",
    ),
    "set in a loop": (
        "undefined-variable",
        "begin { unroll (2) { $x = 1; } print($x); }",
        "begin { let $x; unroll (2) { $x = 1; } print($x); }",
    ),
    "ntohs": (
        "unknown-function",
        "fentry:ip_rcv { print(ntohs(args.len)); }",
        "fentry:ip_rcv { print(bswap((uint16)args.len)); }",
    ),
    "htonl of a sum": (
        "unknown-function",
        "fentry:ip_rcv { print(htonl(args.len + 1)); }",
        "fentry:ip_rcv { print(bswap((uint32)(args.len + 1))); }",
    ),
    "string conversion for an integer": (
        "format-type",
        'begin { printf("%% %-5d %s", 1, pid); }',
        'begin { printf("%% %-5d %u", 1, pid); }',
    ),
    "integer conversion for a string": (
        "format-type",
        'begin { printf("%d", comm); }',
        'begin { printf("%s", comm); }',
    ),
    "str() is missing": (
        "format-type",
        'kprobe:icmp_rcv { printf("%s", arg0); }',
        'kprobe:icmp_rcv { printf("%s", str(arg0)); }',
    ),
    "too much unrolling": (
        "unroll-count",
        "begin { unroll (500) { @ = count(); } }",
        "begin { unroll (100) { @ = count(); } }",
    ),
    "args in a kprobe": (
        "no-args",
        "kprobe:icmp_rcv { print(args.skb.len); @[arg0] = 1; }",
        "fentry:icmp_rcv { print(args.skb.len); @[(uint64)args.skb] = 1; }",
    ),
    "args in two kprobes": (
        "no-args",
        "kprobe:icmp_rcv, k:icmpv6_rcv { print(args.skb.len); }",
        "fentry:icmp_rcv, fentry:icmpv6_rcv { print(args.skb.len); }",
    ),
    "field of an argument": (
        "no-fields",
        "kprobe:icmp_rcv { print(arg0->len); }",
        "kprobe:icmp_rcv { print(((struct sk_buff *)arg0)->len); }",
    ),
    "field of a variable that holds an argument": (
        "no-fields",
        "kprobe:icmp_rcv { $skb = arg0; print($skb->len); }",
        "kprobe:icmp_rcv { $skb = (struct sk_buff *)arg0; print($skb->len); }",
    ),
}


@pytest.mark.parametrize(("code", "script", "mended"), MENDED.values(), ids=MENDED.keys())
def test_mended(machine: System, code: str, script: str, mended: str) -> None:
    found = errors(machine, script)[0]
    assert found.code == code
    assert found.span is not None
    assert apply_edits(found.span.source, found.edits) == mended
    assert errors(machine, mended) == []


NOT_MENDED = {
    "never set": ("undefined-variable", "begin { print($x); }"),
    "set later": ("undefined-variable", "begin { print($x); if (pid) { $x = 1 } }"),
    "unknown function": ("unknown-function", "begin { xyzzyq(1); }"),
    "wrong number of arguments": ("unknown-function", "begin { print(ntohs(1, 2)); }"),
    "field of any number": ("no-fields", "begin { $x = 1; print($x->len); }"),
    "arguments that disagree": (
        "no-fields",
        "kprobe:icmp_rcv, kprobe:napi_gro_receive { print(arg0->len); }",
    ),
    "args at an offset": ("no-args", "kprobe:icmp_rcv+4 { print(args.skb); }"),
    "args in an interval": ("no-args", "interval:s:1 { print(args.skb); }"),
}


@pytest.mark.parametrize(("code", "script"), NOT_MENDED.values(), ids=NOT_MENDED.keys())
def test_where_it_is_not_clear_there_is_no_edit(machine: System, code: str, script: str) -> None:
    found = errors(machine, script)[0]
    assert (found.code, found.edits) == (code, ())


def test_why_args_can_not_be_had_is_said(machine: System) -> None:
    (found,) = errors(machine, "kprobe:icmp_rcv+4 { print(args.skb); }")
    assert found.notes[-1] == (
        "no safe rewrite: kprobe:icmp_rcv+4 can't be rewritten as fentry: fentry attaches to the "
        "entry of icmp_rcv, not to an instruction in it (+4)"
    )
