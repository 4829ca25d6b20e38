# SPDX-License-Identifier: Apache-2.0
"""Scratch variables: scopes, declarations, inference, strings and tuples."""

from __future__ import annotations

from kcap.sema import tree
from unit.sema.sema_support import body, error, errors, warnings, where


def test_a_variable_of_an_inner_block_is_not_known_after_it() -> None:
    found = error("if (pid) { $b = 1; } $c = $b;")
    assert found.code == "undefined-variable"
    assert found.title == "Undefined or undeclared variable: $b"
    assert where(found) == "$b"
    assert found.help == ("declare it before the block: let $b;",)
    assert [(label.span.text, label.text) for label in found.labels] == [
        ("$b", "$b only exists in this block")
    ]


def test_a_variable_declared_before_is_the_one_that_inner_blocks_assign() -> None:
    result = body('let $b; if (pid) { $b = "hello"; } $c = $b;')
    assert result.variables == {"$b": "string[6]", "$c": "string[6]"}


def test_both_branches_do_not_declare_for_the_outer_block() -> None:
    assert error("if (pid) { $x = 1; } else { $x = 2; } $y = $x;").code == "undefined-variable"


def test_every_unknown_variable_of_a_call_is_reported() -> None:
    found = errors('if (pid) { $a = 1; $b = 2; } printf("%d %d %d", $a, pid, $b);')
    assert [where(error) for error in found] == ["$a", "$b"]


def test_shadowing_is_refused_and_points_to_the_first_declaration() -> None:
    found = error("let $x = 1; if (pid) { let $x = 2; }")
    assert found.code == "shadowing"
    assert found.labels[0].text == "This is the initial assignment."
    assert error("$i = 1; for ($i : 0..3) { }").title == (
        "Loop declaration shadows existing variable: $i"
    )


def test_two_blocks_may_have_variables_of_one_name_and_other_types() -> None:
    result = body('if (pid) { $x = 1; } else { $x = "a"; }')
    types = {
        str(node.variable.type)
        for node in tree.walk(result.script.programs[0].body)
        if isinstance(node, tree.AssignVariable)
    }
    assert types == {"int8", "string[2]"}


def test_a_misspelt_variable_is_corrected() -> None:
    found = error("$latency = 1; $x = $latncy;")
    assert found.help == ("did you mean $latency?",)
    assert found.edits[0].replacement == "$latency"


def test_types_flow_backwards_through_later_assignments() -> None:
    assert body("let $a; $a = $a + 1; $a = (uint64)1;").variables == {"$a": "uint64"}
    assert body("$a = 1; $b = $a; $a = (uint32)2;").variables == {"$a": "uint32", "$b": "uint32"}


def test_strings_grow_to_the_longest() -> None:
    result = body('$x = "hello"; $x = "hi"; let $s: string = "a"; $s = "abc";')
    assert result.variables == {"$x": "string[6]", "$s": "string[4]"}


def test_tuples_grow_element_by_element() -> None:
    result = body('$a = ("hi", 1); $a = ("hellolongstr", 1000); $a = ("by", 3);')
    assert result.variables == {"$a": "(string[13],int16)"}


def test_records_take_the_order_of_the_first_and_keep_the_order_of_evaluation() -> None:
    result = body("$a = (x=1, y=2); $a = (y=300, x=1);")
    assert result.variables["$a"] == "(x=int8,y=int16)"
    value = result.value()
    assert isinstance(value, tree.BlockExpr)
    assert isinstance(value.result, tree.TupleExpr)
    assert str(value.type) == "(x=int8,y=int16)"


def test_another_type_is_refused_and_the_first_assignment_shown() -> None:
    found = error('$z = "a"; $z = 1;')
    assert found.title == (
        "Type mismatch for $z: trying to assign value of type 'int8' when variable already "
        "has a type 'string[2]'"
    )
    assert where(found) == "1"
    assert found.labels[0].span.text == '"a"'


def test_several_errors_are_reported_together_in_order() -> None:
    found = errors('$a = $b; $c = "x" + 1 < 2; foo(); bar;')
    assert [e.code for e in found] == [
        "undefined-variable",
        "type-mismatch",
        "unknown-function",
        "unknown-identifier",
    ]


def test_warnings_of_variables() -> None:
    assert warnings("let $x;") == ["Variable $x was never assigned to."]
    assert warnings("let $x; $y = $x + 1; $x = 1;") == ["Variable used before it was assigned: $x"]
    assert warnings("pid;") == ["Return value discarded."]
    assert warnings("_ = pid;") == []
    assert warnings("$a = 1; $a++;") == []


def test_a_block_as_expression_has_the_value_of_its_last_expression() -> None:
    result = body("let $a = { let $b = (uint16)1; $b };")
    assert result.variables["$a"] == "uint16"
    assert isinstance(result.value(), tree.BlockExpr)


def test_if_as_expression_joins_its_branches() -> None:
    result = body('$a = if (pid) { 1 } else { 1000 }; $b = pid ? "a" : "abc";')
    assert result.variables == {"$a": "int16", "$b": "string[4]"}
    found = error('$a = pid ? 1 : "a";')
    assert found.code == "branch-types"


def test_ternary_without_a_middle_evaluates_the_condition_once() -> None:
    value = body("$a = pid ?: 7;").value()
    assert isinstance(value, tree.BlockExpr)
    assert isinstance(value.result, tree.Ternary)
    assert isinstance(value.result.then, tree.VariableRef)


def test_positional_parameters_are_numbers_or_strings() -> None:
    result = body("$a = $1; $b = $2; $c = $#; $d = $9;", parameters=["42", "hello"])
    assert result.variables == {"$a": "int8", "$b": "string[6]", "$c": "int8", "$d": "int8"}


def test_str_of_a_parameter_is_its_text() -> None:
    def text(argument: str) -> bytes:
        call = body(f"$a = str({argument});", parameters=["42", "hello"]).value()
        assert isinstance(call, tree.Call)
        assert isinstance(call.args[0], tree.StringLiteral)
        return call.args[0].value

    assert text("$1") == b"42"
    assert text("$2 + 1") == b"ello"
    assert text("$3") == b""


def test_sizeof_and_typeof_evaluate_nothing() -> None:
    result = body("$s = sizeof({ $q = (int16)1; $q }); let $t: typeof($s) = 5;")
    assert result.variables == {"$s": "int8", "$t": "int8"}
    value = body("$a = sizeof(uint32*[10]);").value()
    assert isinstance(value, tree.IntegerLiteral)
    assert value.value == 80


def test_comptime_takes_one_branch_only() -> None:
    result = body(
        '$a = (uint64)1; if comptime (typeinfo($a).full_type == "uint64") { @m = 1; } '
        'else { @m = "s"; }'
    )
    assert result.maps == {"@m": (None, "int8")}
    assert error("if comptime (pid) { }").code == "not-constant"


def test_what_follows_from_an_error_is_not_reported_again() -> None:
    found = errors("$a = foo(1); $b = $a + 1; @x = $a; print(@x); @y = @x; if ($b) { }")
    assert [e.code for e in found] == ["unknown-function"]
