# SPDX-License-Identifier: Apache-2.0
"""Trees of expressions."""

from __future__ import annotations

import pytest

from kcap.lang import ast
from kcap.lang.diagnostic import ScriptError
from unit.lang.lang_trees import expression, shown


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("1 + 2 * 3", "(+ 1 (* 2 3))"),
        ("1 - 2 - 3", "(- (- 1 2) 3)"),
        ("a || b && c | d ^ e & f", "(|| a (&& b (| c (^ d (& e f)))))"),
        ("a & b == c < d << e + f * g", "(& a (== b (< c (<< d (+ e (* f g))))))"),
        ("a < b == c > d", "(== (< a b) (> c d))"),
        ("(1 + 2) * 3", "(* (+ 1 2) 3)"),
        ("a ? b : c ? d : e", "(? a b (? c d e))"),
        ("a ? b ? 1 : 2 : 3", "(? a (? b 1 2) 3)"),
        ("a ?: b", "(? a None b)"),
        ("a || b ? c : d", "(? (|| a b) c d)"),
        ("!a && ~b", "(&& (! a) (~ b))"),
        ("- -$x", "(- (- $x))"),
        ("**$p", "(* (* $p))"),
        ("&$a & &@b", "(& (& $a) (& @b))"),
        ("-$x.y[1]", "(- (at (. $x y) 1))"),
    ],
)
def test_operators_bind_as_the_language_says(text: str, tree: str) -> None:
    assert shown(text) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("args.a.b", "(. (. args a) b)"),
        ("args->a->b", "(. (. args a) b)"),
        ("$kv.0.1", "(. (. $kv 0) 1)"),
        ("$x[0][1]", "(at (at $x 0) 1)"),
        ("@", "@"),
        ("@[pid, comm]", "(key @ (tuple pid comm))"),
        ("@m[(pid, comm)]", "(key @m (tuple pid comm))"),
        ("@m[1][2].x", "(. (at (key @m 1) 2) x)"),
        ("(@m)[1]", "(at @m 1)"),
        ("++$x", "(pre++ $x)"),
        ("@x[1]--", "((key @x 1) --post)"),
        ("*++$b", "(* (pre++ $b))"),
        ("$1 + $#", "(+ $1 $#)"),
        ("str($1)", "(str() $1)"),
        ('printf("%d\\n", 1, @x)', "(printf() '%d\\n' 1 @x)"),
        ("greet!()", "(greet())"),
        ("a != b", "(!= a b)"),
        ("config().max_strlen", "(. (config()) max_strlen)"),
        ("()", "(tuple )"),
        ("(1,)", "(tuple 1)"),
        ('(1, (2, "x"))', "(tuple 1 (tuple 2 'x'))"),
        ("(a=1, b=(2, 3))", "Record([RecordField(a, 1), RecordField(b, (tuple 2 3))])"),
        ("(a == 1)", "(== a 1)"),
        ("true", "true"),
        ("comptime x ? 1 : 2", "(? Comptime(x) 1 2)"),
        ("{ $y += 1; $y }", "BlockExpr(Block([Assign($y, +=, 1)], $y))"),
        ("{ 1; }", "BlockExpr(Block([ExprStatement(1)], None))"),
        (
            "if (a) { 1 } else if b { 2 } else { 3 }",
            "If(a, Block([], 1), If(b, Block([], 2), Block([], 3)))",
        ),
    ],
)
def test_operands_and_accesses(text: str, tree: str) -> None:
    assert shown(text) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("(uint32)$x", "(cast uint32 $x)"),
        ("(int8)-1", "(cast int8 (- 1))"),
        ("(struct sock *)arg0", "(cast ptr<struct sock> arg0)"),
        ("((struct path *)arg0).dentry", "(. (cast ptr<struct path> arg0) dentry)"),
        ("(struct foo *)arg0 + 1", "(+ (cast ptr<struct foo> arg0) 1)"),
        ("*(int32 *)$p", "(* (cast ptr<int32> $p))"),
        ("(int8[8])12345", "(cast array<int8,8> 12345)"),
        ("(int8[])$x", "(cast array<int8,None> $x)"),
        ("(int32*[4]*)$x", "(cast ptr<array<ptr<int32>,4>> $x)"),
        ("(string[64])arg0", "(cast string<64> arg0)"),
        ("(string[64][2])arg0", "(cast array<string<64>,2> arg0)"),
        ("(uint64)(uint32)x", "(cast uint64 (cast uint32 x))"),
        ("(enum e)3", "(cast enum e 3)"),
        ("(const char *)x", "(cast ptr<char> x)"),
        ("(unsigned long)x", "(cast unsigned long x)"),
        ("(typeof($a))1", "(cast TypeofType($a) 1)"),
        ("(a*)b", "(cast ptr<a> b)"),
        ("(uint64){ 1 }", "(cast uint64 BlockExpr(Block([], 1)))"),
        # language.md, "Cast Parsing"
        ("(myident)", "myident"),
        ("(myident)*$a", "(cast myident (* $a))"),
        ("(pid)*tid", "(* pid tid)"),
        ("(myident)*arg0", "(cast myident (* arg0))"),
        ("(args[0]) * 2", "(* (at args 0) 2)"),
        ("($x) * 2", "(* $x 2)"),
    ],
)
def test_casts_are_told_from_parentheses(text: str, tree: str) -> None:
    assert shown(text) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("sizeof(uint32)", "Sizeof(uint32)"),
        ("sizeof(uint32*[10])", "Sizeof(array<ptr<uint32>,10>)"),
        ("sizeof(struct foo)", "Sizeof(struct foo)"),
        ("sizeof($x)", "Sizeof($x)"),
        ("sizeof(ident[1])", "Sizeof(array<ident,1>)"),
        ("sizeof((ident)[1])", "Sizeof((at ident 1))"),
        ("sizeof((ident[1]))", "Sizeof((at ident 1))"),
        ("sizeof(uint64_t())", "Sizeof((uint64_t()))"),
        ("sizeof(a * b)", "Sizeof((* a b))"),
        ("offsetof(struct task_struct, se.exec)", "Offsetof(struct task_struct, [se, exec])"),
        ("offsetof(*curtask, pid)", "Offsetof((* curtask), [pid])"),
        ("f(typeof(struct t *))", "(f() Typeof(ptr<struct t>))"),
        ('typeinfo(x).base_type == "int"', "(== (. Typeinfo(x) base_type) 'int')"),
    ],
)
def test_types_stand_where_types_or_expressions_may(text: str, tree: str) -> None:
    assert shown(text) == tree


def test_a_define_in_parentheses_is_no_cast() -> None:
    from unit.lang.lang_trees import program, show

    tree = program("#define LIMIT 4\nbegin { print((LIMIT) - 1); }")
    assert show(tree.probes[0].block.statements[0]) == "ExprStatement((print() (- LIMIT 1)))"


def test_integers_keep_their_text() -> None:
    node = expression("0x1fUL")
    assert isinstance(node, ast.Integer)
    assert (node.value, node.text, node.suffix, node.unsigned) == (31, "0x1fUL", "ul", False)
    largest = expression("18446744073709551615")
    assert isinstance(largest, ast.Integer)
    assert largest.unsigned
    duration = expression("5ms")
    assert isinstance(duration, ast.Integer)
    assert duration.is_duration


def test_strings_have_bytes() -> None:
    node = expression(r'"\xff\x00é"')
    assert isinstance(node, ast.String)
    assert node.data == b"\xff\x00\xc3\xa9"


def test_spans_cover_operators_and_inner_parentheses() -> None:
    node = expression(" (a + b) * c.d [ 1 ] ")
    assert isinstance(node, ast.Binary)
    assert node.span.text == "(a + b) * c.d [ 1 ]"
    assert node.op_span.text == "*"
    assert node.left.span.text == "a + b"
    assert node.right.span.text == "c.d [ 1 ]"
    call = expression('f( 1, "x" )')
    assert isinstance(call, ast.Call)
    assert (call.span.text, call.name_span.text) == ('f( 1, "x" )', "f")


@pytest.mark.parametrize(
    ("text", "title", "start", "end"),
    [
        ("1 +", "expected an expression, found the end of the script", 3, 3),
        ("(1", "expected `)`, found the end of the script", 2, 2),
        ("f(1 2)", "expected `,` or `)`, found `2`", 4, 5),
        ("@x[]", "expected a key, found `]`", 3, 4),
        ("$x[1, 2]", "only maps take several keys; an array takes one index", 3, 7),
        ("a ? b", "expected `:`, found the end of the script", 5, 5),
        (
            "args.",
            "expected the name of a field or the number of a tuple's element, "
            "found the end of the script",
            5,
            5,
        ),
        ("5++", "only variables and maps can be incremented", 0, 1),
        ("--args.x", "only variables and maps can be decremented", 2, 8),
        ("while", "expected an expression, found `while`", 0, 5),
        ("'a'", "strings are written in double quotes, and there are no character literals", 0, 1),
        ('"abc', "this string has no end", 0, 4),
        ("1 /* x", "this comment has no end", 2, 4),
        ("$0", "positional parameters are `$1`, `$2` and so on", 0, 2),
        ("@1x", "the name of a map can't start with a digit", 0, 3),
        ("sizeof x", "expected `(`, found `x`", 7, 8),
        ("(struct foo *)", "expected an expression, found the end of the script", 14, 14),
        ("1 2", "expected the end of the expression, found `2`", 2, 3),
        ("#", "expected an expression, found `#`", 0, 1),
    ],
)
def test_an_error_names_what_was_expected(text: str, title: str, start: int, end: int) -> None:
    with pytest.raises(ScriptError) as caught:
        expression(text)
    first = caught.value.diagnostics[0]
    assert first.span is not None
    assert (first.title, first.span.start, first.span.end) == (title, start, end)
