# SPDX-License-Identifier: Apache-2.0
"""Expansion of macros."""

from __future__ import annotations

import pytest

from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostics
from kcap.lang.macros import expand_macros
from kcap.lang.render import render
from kcap.lang.source import MacroSpan
from unit.lang.lang_trees import program, show


def expand(text: str, builtins: tuple[str, ...] = ()) -> tuple[ast.Program, Diagnostics]:
    """The expanded program and what was found."""
    diagnostics = Diagnostics()
    return expand_macros(program(text), diagnostics, builtins=builtins), diagnostics


def expanded(macros: str, body: str) -> list[str]:
    """The statements of a probe with these macros expanded."""
    tree, diagnostics = expand(f"{macros} begin {{ {body} }}")
    assert list(diagnostics) == []
    assert tree.macros == []
    return [show(s) for s in tree.probes[0].block.statements]


def error(macros: str, body: str) -> tuple[str, str]:
    """Title and place of the one error."""
    _, diagnostics = expand(f"{macros} begin {{ {body} }}")
    (found,) = diagnostics
    assert found.span is not None
    return found.title, found.span.text


def test_a_macro_that_is_one_value_is_replaced_by_it() -> None:
    assert expanded("macro add_one(x) { x + 1 }", "$a = add_one($b) * 2;") == [
        "Assign($a, =, (* (+ $b 1) 2))"
    ]


def test_a_macro_without_parameters_may_be_called_without_parentheses() -> None:
    macros = "macro one { 1 } macro ident(one) { one }"
    assert expanded(macros, "$a = one; $a = one(); $a = ident(2);") == [
        "Assign($a, =, 1)",
        "Assign($a, =, 1)",
        "Assign($a, =, 2)",
    ]


def test_parameters_stand_for_variables_and_maps_of_the_caller() -> None:
    assert expanded("macro m($x, @y) { $x += 1; @y[$x]++; $x }", "$a = m($b, @c);") == [
        "Assign($a, =, BlockExpr(Block([Assign($b, +=, 1), ExprStatement(((key @c $b) ++post))], "
        "$b)))"
    ]


def test_variables_of_a_macro_are_renamed_in_each_expansion() -> None:
    assert expanded("macro m(x) { let $y = x; $y + $y }", "$y = m($y) + m(2);") == [
        "Assign($y, =, (+ BlockExpr(Block([Let($y#1, None, $y)], (+ $y#1 $y#1))) "
        "BlockExpr(Block([Let($y#2, None, 2)], (+ $y#2 $y#2)))))"
    ]


def test_macros_call_macros_and_arguments_are_expanded_first() -> None:
    macros = "macro add1(x) { x + 1 } macro add2(x) { add1(x) + add1(1) }"
    assert expanded(macros, "$a = add2(add1($b));") == ["Assign($a, =, (+ (+ (+ $b 1) 1) (+ 1 1)))"]


def test_in_a_statement_the_value_of_a_macro_is_not_used() -> None:
    assert expanded("macro m(x) { x; x }", "m({ f() });") == [
        "ExprStatement(BlockExpr(Block([ExprStatement(BlockExpr(Block([ExprStatement((f()))], "
        "None))), ExprStatement(BlockExpr(Block([ExprStatement((f()))], None)))], None)))"
    ]


def test_copies_of_an_argument_are_nodes_of_their_own() -> None:
    tree, _ = expand("macro m(x) { f(x, x) } begin { m(a + b); }")
    nodes = list(ast.walk(tree))
    assert len({id(n) for n in nodes}) == len(nodes)


def test_the_form_that_fits_the_arguments_best_is_taken() -> None:
    macros = "macro m(x) { 1 } macro m($x) { 2 } macro m(@x) { 3 } macro m(x, y) { 4 }"
    assert expanded(macros, "$a = (m(1), m($b), m(@c), m(@c[1]), m(1, 2));") == [
        "Assign($a, =, (tuple 1 2 3 1 4))"
    ]


def test_a_function_of_the_same_name_takes_what_fits_no_macro() -> None:
    tree, found = expand("macro f(x, y) { 1 } begin { f(g); f(1, 2); }", ("f",))
    assert list(found) == []
    assert [show(s) for s in tree.probes[0].block.statements] == [
        "ExprStatement((f() g))",
        "ExprStatement(1)",
    ]


@pytest.mark.parametrize(
    ("body", "argument", "tree"),
    [
        ("(x*)y", "typeof(uint8)", "(cast ptr<uint8> 7)"),
        ("(x)y", "typeof($a)", "(cast TypeofType($a) 7)"),
        ("sizeof(x)", "typeof(struct s)", "Sizeof(struct s)"),
        ("sizeof(x)", "$a + 1", "Sizeof((+ $a 1))"),
        ("sizeof(x[2])", "typeof(uint64*)", "Sizeof(array<ptr<uint64>,2>)"),
        ("sizeof((x[0]))", "$a", "Sizeof((at $a 0))"),
        ("typeinfo(x).base_type", "$a", "(. Typeinfo($a) base_type)"),
        ("offsetof(struct s, x)", "a.b", "Offsetof(struct s, [a, b])"),
        ("offsetof(x, m)", "typeof(struct s)", "Offsetof(struct s, [m])"),
        ("(x) - y", "$a", "(- $a 7)"),
        ("(x) - y", "typeof(int8)", "(cast int8 (- 7))"),
    ],
)
def test_parameters_stand_for_types_and_expressions_in_types(
    body: str, argument: str, tree: str
) -> None:
    macros = f"macro m(x, y) {{ {body} }}"
    assert expanded(macros, f"$r = m({argument}, 7);") == [f"Assign($r, =, {tree})"]


def test_a_type_is_passed_on_to_another_macro() -> None:
    macros = "macro m(t) { sizeof(t) } macro n(z) { m(typeof(z)) + m(z) }"
    assert expanded(macros, "$r = n(typeof(uint64*));") == [
        "Assign($r, =, (+ Sizeof(ptr<uint64>) Sizeof(ptr<uint64>)))"
    ]


@pytest.mark.parametrize(
    ("macros", "body", "title", "place"),
    [
        ("macro m { @x++ }", "", "the macro m uses @x without being given it", "@x"),
        ("macro m($x) { $x++ }", "m(@y);", "the macro m wants a scratch variable for $x", "@y"),
        ("macro m(@x) { @x++ }", "m(@y[1]);", "the macro m wants a map for @x", "@y[1]"),
        ("macro m(x) { x }", "m(1, 2);", "the macro m takes 1 argument, not 2", "m(1, 2)"),
        ("macro m(x) { x++ }", "m(1);", "only variables and maps can be incremented", "1"),
        (
            "macro m(x) { (x*)1 }",
            "m(2);",
            "x stands for a type here, so a type must be passed",
            "2",
        ),
        ("macro m(x) { n(x) } macro n(x) { m(x) }", "m(2);", "the macro m calls itself", "m(x)"),
    ],
)
def test_a_wrong_use_is_an_error_with_its_place(
    macros: str, body: str, title: str, place: str
) -> None:
    assert error(macros, body) == (title, place)


def test_growth_by_expansion_is_bounded() -> None:
    macros = "macro m0(x) { x + x }" + "".join(
        f"macro m{n}(x) {{ m{n - 1}(m{n - 1}(x)) }}" for n in range(1, 12)
    )
    title, _ = error(macros, "$x = m11(1);")
    assert title == "expansion of macros makes this grow beyond 200000 nodes"


def test_a_message_about_a_macros_body_shows_the_call() -> None:
    tree, _ = expand("macro m(x) { x.foo }\nbegin {\n  $y = m(pid);\n}")
    statement = tree.probes[0].block.statements[0]
    assert isinstance(statement, ast.Assign)
    assert isinstance(statement.value, ast.FieldAccess)
    span = statement.value.field.span
    assert isinstance(span, MacroSpan)
    assert (span.text, span.call.text) == ("foo", "m(pid)")
    found = Diagnostics().error("field", "no such field", span)
    assert (
        render(found)
        == """\
error[field]: no such field
  --> test.bt:1:16
   |
 1 | macro m(x) { x.foo }
   |                ^^^
 2 | begin {
 3 |   $y = m(pid);
   |        ------ in this call of the macro"""
    )
