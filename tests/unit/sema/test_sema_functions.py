# SPDX-License-Identifier: Apache-2.0
"""Functions of a script (``fn``)."""

from __future__ import annotations

import pytest

from kcap.lang.diagnostic import ScriptError
from unit.codegen.script_machine import compiled, output


def refused(script: str) -> list[str]:
    with pytest.raises(ScriptError) as raised:
        compiled(script)
    return [diagnostic.title for diagnostic in raised.value.diagnostics]


def test_a_call_has_the_returned_value() -> None:
    script = """
        fn add($a : int64, $b : int64) : int64 { return $a + $b; }
        begin { printf("%d\\n", add(add(1, 2), pid)); }
    """
    assert output(script) == "4245\n"


def test_arguments_are_values_of_the_declared_types_and_stay_the_callers() -> None:
    script = """
        fn low($a : uint64) : uint8 { $a++; return (uint8)$a; }
        begin { $a = (uint64)0x1ff; printf("%d %d\\n", low($a), $a); }
    """
    assert output(script) == "0 511\n"


def test_an_argument_is_evaluated_once() -> None:
    script = """
        fn twice($a : int64) : int64 { return $a + $a; }
        begin { $n = 1; printf("%d %d\\n", twice(++$n), $n); }
    """
    assert output(script) == "4 2\n"


def test_a_function_without_a_result_works_on_the_scripts_maps() -> None:
    script = """
        fn note($by : int64) : void { @n += $by; }
        begin { note(2); note(3); printf("%d\\n", @n); }
    """
    assert output(script) == "5\n"


@pytest.mark.parametrize(
    ("script", "title"),
    [
        ("fn f($a : int8) : int8 { return $a; } begin { print(f(1000)); }",
         "Type mismatch for $a: trying to assign value of type 'int16' when variable already has a "
         "type 'int8'"),
        ("fn f() : int8 { return 1000; } begin { print(f()); }",
         "Type mismatch for $return: trying to assign value of type 'int16' when variable already "
         "has a type 'int8'"),
        ("fn f($a : int8) : int8 { return $a; } begin { print(f()); }",
         "the function f takes 1 argument, not 0"),
        ("fn f($a : int8) : int8 { return f($a); } begin { print(f(1)); }",
         "the function f calls itself"),
        ("fn f() : void { return 1; } begin { f(); }",
         "Function f is of type void, cannot return a value"),
        ("fn f() : int8 { @ = 1; } begin { @ = 1; }", "Function f returns nothing"),
        ("fn f() : void { if (pid) { return; } @ = 1; } begin { f(); }",
         "the function f returns before its end, which kcap can't do"),
    ],
)  # fmt: skip
def test_what_is_refused(script: str, title: str) -> None:
    assert refused(script) == [title]
