# SPDX-License-Identifier: Apache-2.0
"""Trees of statements and blocks."""

from __future__ import annotations

import pytest

from kcap.lang import ast
from unit.lang.lang_trees import program, show, statements


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("$x = 1;", "Assign($x, =, 1)"),
        ("$x <<= 1 + 2;", "Assign($x, <<=, (+ 1 2))"),
        ("@ = count();", "Assign(@, =, (count()))"),
        ("@m[1, 2] += 3", "Assign((key @m (tuple 1 2)), +=, 3)"),
        ("@x++", "ExprStatement((@x ++post))"),
        ("let $x;", "Let($x, None, None)"),
        ("let $x = 1;", "Let($x, None, 1)"),
        ("let $x: struct s *;", "Let($x, ptr<struct s>, None)"),
        ("let $x : uint16 = 1;", "Let($x, uint16, 1)"),
        ("let $x : typeof(x);", "Let($x, TypeofType(x), None)"),
        ("_ = has_key(@a, 1);", "Discard((has_key() @a 1))"),
        ("while ($i < 3) { $i++ }", "While((< $i 3), Block([ExprStatement(($i ++post))], None))"),
        ("unroll (3) { f(); }", "Unroll(3, Block([ExprStatement((f()))], None))"),
        ("for ($kv : @m) { f() }", "For($kv, @m, Block([ExprStatement((f()))], None))"),
        ("for ($i : 0..n) {}", "For($i, Range(0, n), Block([], None))"),
        ("for $i : (-3)..@m[5] {}", "For($i, Range((- 3), (key @m 5)), Block([], None))"),
        ("break;", "Break()"),
        ("continue", "Continue()"),
        ("return;", "Return(None)"),
        ("return 1", "Return(1)"),
        ('import "a.bpf.c";', "Import('a.bpf.c')"),
        ("{ 1 }", "ExprStatement(BlockExpr(Block([ExprStatement(1)], None)))"),
        ("(struct s *)1;", "ExprStatement((cast ptr<struct s> 1))"),
        (
            "if (uint32) { f() }",
            "ExprStatement(If(uint32, Block([ExprStatement((f()))], None), None))",
        ),
    ],
)
def test_each_statement_has_its_tree(text: str, tree: str) -> None:
    assert statements(text) == [tree]


def test_the_last_semicolon_and_stray_ones_may_be_left_out() -> None:
    assert statements(";; $x = 1;; f()") == ["Assign($x, =, 1)", "ExprStatement((f()))"]


def test_an_if_ends_with_its_brace_so_that_the_next_statement_may_start_with_an_operator() -> None:
    assert statements("if (a) { f(); } ++@x; { g(); } *$p") == [
        "ExprStatement(If(a, Block([ExprStatement((f()))], None), None))",
        "ExprStatement((pre++ @x))",
        "ExprStatement(BlockExpr(Block([ExprStatement((g()))], None)))",
        "ExprStatement((* $p))",
    ]


def test_an_if_as_statement_has_no_values_in_its_branches() -> None:
    assert statements("if (a) { 1 } else if (b) { { 2 } } else { 3 } f();") == [
        "ExprStatement(If(a, Block([ExprStatement(1)], None), "
        "If(b, Block([ExprStatement(BlockExpr(Block([ExprStatement(2)], None)))], None), "
        "Block([ExprStatement(3)], None))))",
        "ExprStatement((f()))",
    ]


def test_a_macro_keeps_the_value_of_its_last_expression() -> None:
    macro = program("macro m(x) { let $y = x; if (x) { 1 } else { $y } }").macros[0]
    assert show(macro.body) == "Block([Let($y, None, x)], If(x, Block([], 1), Block([], $y)))"
    macro = program("macro m(x) { if (x) { 1 }; }").macros[0]
    assert (
        show(macro.body) == "Block([ExprStatement(If(x, Block([ExprStatement(1)], None), None))], "
        "None)"
    )


def test_compound_assignments_know_their_operator() -> None:
    block = program("begin { $x >>= 1; $x = 1; }").probes[0].block
    first, second = block.statements
    assert isinstance(first, ast.Assign)
    assert isinstance(second, ast.Assign)
    assert (first.binary_op, first.op_span.text, second.binary_op) == (">>", ">>=", None)


def test_statement_spans_exclude_the_semicolon_and_include_parentheses() -> None:
    block = program("begin { $x = (1); (f()) ; if (a) { } }").probes[0].block
    assert [s.span.text for s in block.statements] == ["$x = (1)", "(f())", "if (a) { }"]
    assert block.span.text == "{ $x = (1); (f()) ; if (a) { } }"
