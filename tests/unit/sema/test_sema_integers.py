# SPDX-License-Identifier: Apache-2.0
"""Integer literals, promotion, arithmetic and folding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap.sema import tree
from kcap.sema.conversion import integer_fits, literal_type, promote
from kcap.sema.fold import FoldError, fold, invert, negate
from kcap.sema.types import INT8, INT64, Integer
from unit.sema.sema_support import body, error, warnings, where

INTEGERS = st.builds(Integer, st.sampled_from([1, 2, 4, 8]), st.booleans(), st.booleans())


@pytest.mark.parametrize(
    ("literal", "type_"),
    [
        ("0", "int8"),
        ("127", "int8"),
        ("128", "int16"),
        ("-128", "int8"),
        ("-129", "int16"),
        ("2147483648", "int64"),
        ("9223372036854775807", "int64"),
        ("9223372036854775808", "uint64"),
        ("1ms", "int32"),
    ],
)
def test_a_literal_has_the_smallest_signed_type_that_holds_it(literal: str, type_: str) -> None:
    assert body(f"$a = {literal};").variables == {"$a": type_}


@pytest.mark.parametrize(
    ("script", "type_"),
    [
        ("$a = 1; $a = (uint64)2;", "uint64"),
        ("$a = (uint64)2; $a = 1;", "uint64"),
        ("$a = 1; $a = -1000;", "int16"),
        ("$a = (uint8)1; $a = (int8)1;", "int16"),
        ("$a = (uint32)1; $a = (int64)1;", "int64"),
        ("$a = (uint64)1; $a = (int8)1;", "int64"),
        ("$b = 1; $a = $b; $a = (uint16)1;", "uint16"),
    ],
)
def test_a_variable_grows_to_hold_all_that_is_assigned(script: str, type_: str) -> None:
    assert body(script).variables["$a"] == type_


@pytest.mark.parametrize(
    ("expression", "type_"),
    [
        ("$u32 + $u8", "uint64"),
        ("$u64 - $u64", "int64"),
        ("$u64 + 1", "uint64"),
        ("$u64 + (-2)", "int64"),
        ("$i8 + $u64", "int64"),
        ("$u64 / 1000", "uint64"),
        ("$u64 == $i8", "bool"),
        ("$u64 & 0xff", "uint64"),
        ("~$u32", "uint32"),
        ("-$i8", "int64"),
        ("-$u8", "uint8"),
        ("~$i8", "int64"),
        ("!$u32", "bool"),
        ("$u64 && 1", "bool"),
        ("1 == 1", "bool"),
        ("1 + 1", "int8"),
    ],
)
def test_arithmetic_is_done_in_64_bits_signed_if_an_operand_is(expression: str, type_: str) -> None:
    setup = "$u8 = (uint8)1; $u32 = (uint32)1; $u64 = (uint64)1; $i8 = (int8)1;"
    assert body(f"{setup} $a = {expression};").variables["$a"] == type_


def test_operands_are_converted_to_the_type_of_the_operation() -> None:
    value = body("$u = (uint64)1; $i = (int8)1; $c = $u < $i;").value()
    assert isinstance(value, tree.Binary)
    assert value.left.type == value.right.type == INT64
    assert isinstance(value.right, tree.Cast)
    assert value.right.operand.type == INT8


def test_literals_are_folded() -> None:
    value = body("$a = 1 + 2 * 3 - 10 / 3;").value()
    assert isinstance(value, tree.IntegerLiteral)
    assert (value.value, value.type, value.span.text) == (4, INT8, "1 + 2 * 3 - 10 / 3")


def test_a_cast_literal_is_not_folded_so_that_its_type_counts() -> None:
    assert body("$a = (uint32)5 + (uint8)3;").variables == {"$a": "uint64"}


def test_a_result_that_no_integer_holds_is_an_error() -> None:
    found = error("$a = 0xffffffffffffffff + 1;")
    assert found.code == "constant-overflow"
    assert where(found) == "0xffffffffffffffff + 1"
    assert error("$a = 1 / 0;").title == "division by zero in a constant expression"


def test_a_literal_out_of_the_declared_range_is_an_error_and_a_variable_a_warning() -> None:
    found = error("let $a: uint16 = -1;")
    assert found.code == "type-mismatch"
    assert where(found) == "-1"
    assert warnings("$b = -1; let $a: uint16 = $b;") == [
        "implicit cast from 'int8' to 'uint16' may change the value's sign"
    ]
    assert warnings("let $a: uint16 = (uint16)-1;") == []


def test_increments_and_compound_assignments_make_64_bits() -> None:
    assert body("$a = 1; $a++; $b = (uint8)1; $b += 1;").variables == {
        "$a": "int64",
        "$b": "uint64",
    }
    assert body("$a = (uint64)1; $a--;").variables == {"$a": "int64"}
    assert body("let $a: uint8 = 1; $a++; $a += 1;").variables == {"$a": "uint8"}


def test_only_variables_and_maps_can_be_stepped() -> None:
    assert error("$a = 1; $a.b++;").title == "only variables and maps can be incremented"


@given(INTEGERS, INTEGERS)
def test_promotion_holds_both_types_unless_one_is_uint64(left: Integer, right: Integer) -> None:
    promoted = promote(left, right)
    assert isinstance(promoted, Integer)
    assert promote(right, left) == promoted
    mixed = left.signed != right.signed and 8 in (left.bytes, right.bytes)
    if not mixed and not left.flexible and not right.flexible:
        assert integer_fits(left, promoted)
        assert integer_fits(right, promoted)


@given(INTEGERS)
def test_promotion_with_itself_changes_nothing(type_: Integer) -> None:
    assert promote(type_, type_) == type_


@given(st.integers(-(2**63), 2**64 - 1))
def test_literal_type_holds_the_literal(value: int) -> None:
    type_ = literal_type(value)
    assert type_.minimum <= value <= type_.maximum


@given(
    st.sampled_from(["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"]),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-(2**63), 2**64 - 1),
)
def test_folding_gives_an_integer_of_64_bits_or_fails(op: str, left: int, right: int) -> None:
    try:
        value = fold(op, left, right)
    except FoldError:
        return
    assert -(2**63) <= value < 2**64


def test_folding_follows_c() -> None:
    assert fold("/", -7, 2) == -3
    assert fold("%", -7, 2) == -1
    assert fold("<<", 1, 63) == 1 << 63
    assert fold(">>", -8, 1) == -4
    assert fold("&", -1, 0xFF) == 0xFF
    assert invert(0) == 2**64 - 1
    assert invert(-1) == 0
    assert negate(2**63) == -(2**63)
    with pytest.raises(FoldError):
        negate(2**63 + 1)
    assert INT64.maximum == 2**63 - 1
