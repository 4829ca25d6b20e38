# SPDX-License-Identifier: Apache-2.0
"""Trees of whole scripts: sections, attach points, predicates, C definitions."""

from __future__ import annotations

import pytest

from kcap.lang import ast
from kcap.lang.traverse import same_tree
from unit.lang.lang_trees import program, show

EXAMPLE = """\
#!/usr/bin/env bpftrace
/* what it does */
#include <linux/socket.h>
#define RED "\\033[31m" // colour
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define LONG 1 + \\
   2
#ifndef FOO
#endif
struct S {
  int x; /* } */
} __attribute__((packed));
enum { A, B };

config = {
    stack_mode=perf;
    max_map_keys=2; license="GPL"; on=true
}
import "helpers.bt";

let @a = lruhash(100);
macro greet { print("hi"); }
macro add(x, $y, @z) { x + $y }
fn half($a : uint64, $b: struct s *) : uint64 { return $a / 2; }

kprobe:do_nanosleep { greet!(); } // end
"""


def test_every_section_of_a_script_is_in_the_tree() -> None:
    tree = program(EXAMPLE)
    assert tree.header is not None
    assert tree.header.text == "#!/usr/bin/env bpftrace"
    assert [(c.kind, c.name, c.value) for c in tree.c_definitions] == [
        ("include", "", "<linux/socket.h>"),
        ("define", "RED", '"\\033[31m"'),
        ("define", "MAX", None),
        ("define", "LONG", "1 + \\\n   2"),
        ("directive", "", None),
        ("directive", "", None),
        ("type", "S", None),
        ("type", "", None),
    ]
    assert tree.c_definitions[6].text == "struct S {\n  int x; /* } */\n} __attribute__((packed));"
    assert tree.config is not None
    assert [(e.name.text, show(e.value)) for e in tree.config.entries] == [
        ("stack_mode", "perf"),
        ("max_map_keys", "2"),
        ("license", "'GPL'"),
        ("on", "true"),
    ]
    assert [i.path.value for i in tree.imports] == ["helpers.bt"]
    assert [show(d) for d in tree.map_declarations] == ["MapDeclaration(@a, lruhash, [100])"]
    assert [(m.name.text, show(m.parameters)) for m in tree.macros] == [
        ("greet", "[]"),
        ("add", "[x, $y, @z]"),
    ]
    function = tree.subprogs[0]
    assert show(function.parameters) == "[Parameter($a, uint64), Parameter($b, ptr<struct s>)]"
    assert show(function.return_type) == "uint64"
    assert [type(item).__name__ for item in tree.items] == [
        "MapDeclaration",
        "Macro",
        "Macro",
        "Subprog",
        "Probe",
    ]
    assert [c.text for c in tree.comments] == ["/* what it does */", "// end"]


@pytest.mark.parametrize(
    ("text", "provider", "parts"),
    [
        ("BEGIN", "BEGIN", []),
        ("kprobe:tcp_*", "kprobe", ["tcp_*"]),
        ("k:vmlinux:f+0x10", "k", ["vmlinux", "f+0x10"]),
        ("interval:s:1", "interval", ["s", "1"]),
        ("interval:1s", "interval", ["1s"]),
        ("interval:s:$1", "interval", ["s", "$1"]),
        ("software:faults:", "software", ["faults", ""]),
        ("tracepoint:xhci-hcd:xhci_*", "tracepoint", ["xhci-hcd", "xhci_*"]),
        ("uprobe:/bin/bash:readline", "uprobe", ["/bin/bash", "readline"]),
        ("uprobe:/usr/lib/*/libc.so.6:malloc", "uprobe", ["/usr/lib/*/libc.so.6", "malloc"]),
        ('uprobe:"/a b/c:d":f', "uprobe", ["/a b/c:d", "f"]),
        ('uprobe:/x:cpp:"A::f(int, char)"', "uprobe", ["/x", "cpp", "A::f(int, char)"]),
        ('uprobe:/bin/bash:"echo"+4', "uprobe", ["/bin/bash", "echo+4"]),
        ('usdt:./t:test:"\\"p\\""', "usdt", ["./t", "test", '"p"']),
        ("usdt:./t::*probe", "usdt", ["./t", "", "*probe"]),
        ("uprobe:./t@t.c:22", "uprobe", ["./t@t.c", "22"]),
        ("watchpoint:0x10000000:8:rw", "watchpoint", ["0x10000000", "8", "rw"]),
        ("iter:task:/sys/fs/bpf/x", "iter", ["task", "/sys/fs/bpf/x"]),
        ("self:signal:SIGUSR1", "self", ["signal", "SIGUSR1"]),
        ("kfunc:bpf:123:*", "kfunc", ["bpf", "123", "*"]),
        ("*:f", "*", ["f"]),
    ],
)
def test_attach_points_are_split_at_colons_outside_quotes(
    text: str, provider: str, parts: list[str]
) -> None:
    for after in (" { f(); }", " /1/ { }", "{}"):
        point = program(text + after).probes[0].attach_points[0]
        assert (point.provider.text, [p.text for p in point.parts]) == (provider, parts)
        assert point.span.text == text


def test_parts_have_spans_and_know_quotes() -> None:
    probe = program('begin,uprobe:/bin/sh:"f g"+1 {}').probes[0]
    part = probe.attach_points[1].parts[1]
    assert (part.span.text, part.span.column, part.quoted) == ('"f g"+1', 22, True)
    assert not probe.attach_points[1].parts[0].quoted
    assert probe.attach_points[1].text == "uprobe:/bin/sh:f g+1"


def test_a_probe_may_have_a_name_and_several_attach_points_over_lines() -> None:
    probe = program("a=kprobe:f,\n  // why\n kprobe:g\n{ }").probes[0]
    first, second = probe.attach_points
    assert first.name is not None
    assert (first.name.text, first.text, second.name, second.text) == (
        "a",
        "kprobe:f",
        None,
        "kprobe:g",
    )


@pytest.mark.parametrize(
    ("text", "predicate"),
    [
        ("kprobe:f /pid == 1/ { }", "(== pid 1)"),
        ("kprobe:f/pid/{}", "pid"),
        ("kprobe:f / a / b / { }", "(/ a b)"),
        ("kprobe:f /(a / { 1 })/ { }", "(/ a BlockExpr(Block([], 1)))"),
        ("kprobe:f /a ? b : c/ { }", "(? a b c)"),
        ("kprobe:f\n/@x[tid]/\n{ }", "(key @x tid)"),
        ("uprobe:/bin/sh:f /args.bytes > $1/ { }", "(> (. args bytes) $1)"),
    ],
)
def test_a_slash_before_a_brace_ends_the_predicate(text: str, predicate: str) -> None:
    assert show(program(text).probes[0].predicate) == predicate


def test_comments_may_stand_anywhere_between_tokens() -> None:
    tree = program("/*a*/kprobe:f/*b*/ //c\n/*d*/{/*e*/f(/*g*/1/*h*/)/*i*/;}//j")
    assert show(tree.probes[0].block) == "Block([ExprStatement((f() 1))], None)"
    assert [c.text for c in tree.comments] == [
        "/*a*/", "/*b*/", "//c", "/*d*/", "/*e*/", "/*g*/", "/*h*/", "/*i*/", "//j"
    ]  # fmt: skip


def test_slashes_of_a_path_after_other_code_are_no_comment() -> None:
    tree = program("config = { a=1 } uprobe:.//x:f { }")
    assert tree.probes[0].attach_points[0].text == "uprobe:.//x:f"
    assert tree.comments == []


def test_an_empty_script_has_an_empty_tree() -> None:
    tree = program(" \n// nothing\n")
    assert (tree.items, tree.c_definitions, tree.preamble) == ([], [], [])


def test_windows_line_ends_are_taken() -> None:
    tree = program("#define X 1\r\nbegin\r\n{\r\n  $x = X;\r\n}\r\n")
    assert tree.c_definitions[0].value == "1"
    assert show(tree.probes[0].block.statements) == "[Assign($x, =, X)]"


def test_walk_goes_through_the_tree_in_the_order_of_the_text() -> None:
    tree = program("kprobe:f /a/ { $x = b + c; if (d) { e() } else { g } }")
    names = [
        n.name for n in ast.walk(tree) if isinstance(n, ast.Identifier | ast.Variable | ast.Call)
    ]
    assert names == ["a", "$x", "b", "c", "d", "e", "g"]


def test_same_tree_ignores_places_and_spelling_but_not_structure() -> None:
    one = program("begin { @x[1, 2] = args->a + 1e3; } // c")
    assert same_tree(one, program("begin\n{ @x[(1,2)] = (args.a) + 1000 }"))
    assert not same_tree(one, program("begin { @x[1, 2] = args.a - 1000; }"))
    assert not same_tree(one, program("BEGIN { @x[1, 2] = args.a + 1000; }"))
