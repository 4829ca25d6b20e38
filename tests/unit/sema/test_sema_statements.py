# SPDX-License-Identifier: Apache-2.0
"""Calls, conditions, loops, predicates, config, definitions."""

from __future__ import annotations

import pytest

from kcap.errors import UsageError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.sema import tree
from kcap.sema.analyzer import analyze
from kcap.sema.config import Config, from_environment
from kcap.sema.kerneltypes import KernelTypes
from unit.sema.sema_support import (
    FUNCTIONS,
    Resolver,
    body,
    check,
    error,
    errors,
    mini_btf,
    warnings,
    where,
)


def test_a_range_includes_its_start_and_its_bounds_have_one_type() -> None:
    result = body("for ($i : 0..1000) { $x = $i; }")
    assert result.variables == {"$i": "int16", "$x": "int16"}
    loop = result.script.programs[0].body[0]
    assert isinstance(loop, tree.ForRange)
    assert str(loop.start.type) == str(loop.end.type) == "int16"


def test_bounds_have_to_be_integers() -> None:
    found = error('for ($i : 0.."a") { }')
    assert found.title == "Loop range requires an integer for the end value"


def test_break_and_continue_need_a_loop() -> None:
    assert error("break;").title == "'break' statement is not allowed in a probe"
    body("while (pid) { continue; } for ($i : 0..3) { if ($i) { break; } }")


@pytest.mark.parametrize(
    "text",
    [
        "while (1) { @ = nsecs; }",
        "while (1) { continue; }",
        "while (2 > 1) { while (pid) { break; } for ($i : 0..3) { break; } }",
        "if (pid) { while (true) { $x = 1; } }",
    ],
)
def test_a_loop_that_nothing_leaves_is_refused(text: str) -> None:
    found = error(text)
    assert (found.code, found.title) == ("endless-loop", "this loop never ends")
    assert found.span is not None
    assert found.span.text in ("1", "2 > 1", "true")


@pytest.mark.parametrize(
    "text",
    [
        "while (1) { if (pid) { break; } }",
        "while (1) { for ($i : 0..3) { if (pid) { break; } } return; }",
        "while (1) { exit(); }",
        "while (0) { @ = nsecs; }",
        "$i = 0; while ($i < 10) { $i++; }",
        "$i = 0; while ($i < 10) { $i += 2; }",
        "$i = 0; while ($i < 10) { if (pid) { $i = 10; } }",
        "$i = 0; while ($i < 10) { break; }",
        "while (@done == 0) { @n++; @done = 1; }",
        "while (nsecs < 10) { @n++; }",
    ],
)
def test_a_loop_that_may_end_is_taken_as_it_is(text: str) -> None:
    assert warnings(text) == []


def test_a_loop_whose_condition_stays_as_it_is_is_warned_of() -> None:
    assert warnings("$i = pid; $n = 0; while ($i < 10 && !$n) { @b = nsecs; $j = $i + 1; }") == [
        "this loop never ends once it has begun"
    ]


def test_unroll_takes_1_to_100() -> None:
    assert error("unroll (101) { }").title == "unroll maximum value is 100"
    assert error("unroll (0) { }").title == "unroll minimum value is 1"
    assert error("unroll (pid) { }").code == "not-constant"
    unroll = body("unroll ($1 + 1) { }", parameters=["2"]).script.programs[0].body[0]
    assert isinstance(unroll, tree.Unroll)
    assert unroll.times == 3


def test_conditions_are_scalars_and_errors_in_them_do_not_hide_the_body() -> None:
    assert error("if (comm) { }").code == "not-a-condition"
    assert [e.code for e in errors("if ($x) { $y = $z; }")] == [
        "undefined-variable",
        "undefined-variable",
    ]


def test_predicates() -> None:
    program = check('kprobe:f /comm == "bash" && pid/ { }').script.programs[0]
    assert isinstance(program.predicate, tree.Logical)
    assert error("kprobe:f /comm/ { }").title.startswith("a predicate has to be")


def test_return_values_are_integers() -> None:
    assert error('return "a";').title == "Probe return values can only be integers. Found string[2]"
    statement = body("return 1;").script.programs[0].body[0]
    assert isinstance(statement, tree.Return)
    assert statement.value is not None
    assert str(statement.value.type) == "int64"


def test_statements_after_a_return_are_unreachable() -> None:
    assert warnings("return; print(1);") == ["Unreachable statement."]
    assert len(body("return; print(1);").script.programs[0].body) == 1


def test_a_misspelt_function_is_corrected() -> None:
    found = error('prinf("a");')
    assert found.title == "Unknown function: 'prinf'"
    assert where(found) == "prinf"
    assert found.edits[0].replacement == "printf"
    assert error("$a = comn;").edits[0].replacement == "comm"


def test_arity_shows_the_usage() -> None:
    found = error("printf();")
    assert found.title == "printf() requires at least one argument (0 provided)"
    assert found.notes == ("usage: void printf(const string fmt, args...)",)
    assert error("has_key(@a);").title == "has_key() requires 2 arguments (1 provided)"
    assert error("$a = pid(1, 2);").title == "pid() takes up to one argument (2 provided)"


def test_unsafe_functions_need_the_switch() -> None:
    assert error("system();").title == "system() is an unsafe function being used in safe mode"
    body("system();", unsafe=True)


def test_void_has_no_value() -> None:
    found = error('$a = printf("x");')
    assert (found.code, where(found)) == ("no-value", 'printf("x")')


def test_defines_stand_for_expressions() -> None:
    result = check('#define LIMIT (1 << 10)\n#define NAME "x"\nbegin { $a = LIMIT; $b = NAME; }')
    assert result.variables == {"$a": "int16", "$b": "string[2]"}
    found = error("#define A A\nbegin { $a = A; }")
    assert found.code == "recursive-define"


def test_comparing_what_can_not_be_compared() -> None:
    found = error("$a = comm == 1;")
    assert found.title == "Type mismatch for '==': comparing string[16] with int8"
    assert [label.text for label in found.labels] == ["left (string[16])", "right (int8)"]
    assert error('$a = comm < "a";').code == "invalid-operands"
    assert body('$a = (1, "a") == (2, "bcd");').variables == {"$a": "bool"}


def test_each_attach_point_has_its_program() -> None:
    result = check("kprobe:a, kprobe:b { $x = pid; } begin { }")
    assert [p.context.name for p in result.script.programs] == ["kprobe:a", "kprobe:b", "begin"]


def test_errors_in_a_probe_of_two_attach_points_are_reported_once() -> None:
    assert len(errors("kprobe:a, kprobe:b { $x = $nope; }")) == 1


def test_the_resolver_is_told_what_the_block_uses_and_gets_parameters_filled_in() -> None:
    types = KernelTypes(mini_btf())
    resolver = Resolver(types, [])
    analyze(
        parse(Source("test", 'kprobe:$1 /pid/ { printf("%d", arg0); }')),
        functions=FUNCTIONS,
        probes=resolver,
        types=types,
        config=Config(),
        parameters=["tcp_v4_rcv"],
    )
    assert resolver.seen == [("kprobe:tcp_v4_rcv", frozenset({"pid", "printf", "arg0"}))]


# --- configuration --------------------------------------------------------------------------


def test_config_block_and_environment() -> None:
    result = check("config = { BPFTRACE_STACK_MODE=raw; max_map_keys=5 } begin { @a = 1; }")
    assert (result.script.config.stack_mode, result.script.maps["@a"].max_entries) == ("raw", 5)
    environment = from_environment({"BPFTRACE_STACK_MODE": "perf", "BPFTRACE_MAX_STRLEN": "64"})
    assert (environment.stack_mode, environment.max_strlen) == ("perf", 64)
    script = check("config = { stack_mode=raw } begin { }", config=environment).script
    assert script.config.stack_mode == "perf"


def test_config_mistakes() -> None:
    found = error("config = { bad_config=raw } begin {}")
    assert found.title == "bad_config: not a known configuration option"
    assert where(found) == "bad_config=raw"
    found = error('config = { license="Potato" } begin {}')
    assert found.title.startswith("Invalid value for license. Found: Potato. Valid values: ")
    assert error("config = { max_strln=1 } begin {}").help == ("did you mean max_strlen?",)
    assert error("config = { btf=1 } begin {}").code == "config-environment-only"
    assert error("config = { print_maps_on_exit=7 } begin {}").code == "config-value"
    assert check("config = { print_maps_on_exit=0 } begin {}").script.config.print_maps_on_exit is (
        False
    )
    with pytest.raises(UsageError, match="BPFTRACE_LOG_SIZE"):
        from_environment({"BPFTRACE_LOG_SIZE": "many"})


@pytest.mark.parametrize("name", ["symbol_source", "unstable_macro", "unstable_import"])
def test_settings_that_mean_nothing_any_more_are_warned_of(name: str) -> None:
    (warning,) = check(f"config = {{ {name}=enable }} begin {{}}").script.warnings
    assert warning.title == f"{name} is deprecated and has no effect"


def test_a_comptime_condition_knows_types_that_come_later() -> None:
    result = body(
        "$a = 1; if comptime (sizeof($a) == 8) { $b = 2; } else { $b = comm; } $a = (uint64)pid;"
    )
    assert result.variables == {"$a": "uint64", "$b": "int8"}


def test_a_comptime_condition_inside_a_branch_is_decided_after_that() -> None:
    result = body(
        "$a = 1; if comptime (sizeof($a) == 4) "
        "{ $a = 2; if comptime (sizeof($a) == 1) { $a = comm; } else { $c = 3; } } $a = (int32)pid;"
    )
    assert result.variables == {"$a": "int32", "$c": "int8"}


def test_a_comptime_branch_can_not_change_what_chose_it() -> None:
    found = error("$a = 1; if comptime (sizeof($a) == 1) { $a = (uint64)pid; }")
    assert (found.code, where(found)) == ("comptime-changed", "comptime (sizeof($a) == 1)")
