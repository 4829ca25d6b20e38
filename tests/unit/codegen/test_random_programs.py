# SPDX-License-Identifier: Apache-2.0
"""Random well-typed programs compute what a plain evaluation of the same tree computes."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from unit.codegen.script_machine import output

MASK = (1 << 64) - 1
VALUES = {"pid": 4242, "tid": 4243, "uid": 1000, "cpu": 3}


def signed(value: int) -> int:
    """The low 64 bits as a signed number."""
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


@dataclass(frozen=True)
class Number:
    """An expression of type int64: its text, and its value."""

    text: str
    value: int


def literal(value: int) -> Number:
    return Number(f"(int64){value}" if value >= 0 else f"(int64)({value})", value)


def builtin(name: str) -> Number:
    return Number(f"(int64){name}", VALUES[name])


def divide(left: int, right: int) -> int:
    """C's division; 1 for a divisor of 0, as the language has it."""
    if not right:
        return 1
    quotient = abs(left) // abs(right)
    return -quotient if (left < 0) != (right < 0) else quotient


OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": divide,
    "%": lambda a, b: a - divide(a, b) * b if b else 1,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}
COMPARISONS = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def arithmetic(op: str, left: Number, right: Number) -> Number:
    # The smallest number divided by -1 overflows: C leaves it undefined, LLVM too.
    if op in "/%" and signed(right.value) == -1:
        op = "+"
    value = signed(OPERATIONS[op](left.value, right.value))
    return Number(f"(int64)({left.text} {op} {right.text})", value)


def shift(op: str, left: Number, count: int) -> Number:
    value = left.value << count if op == "<<" else left.value >> count
    return Number(f"(int64)({left.text} {op} {count})", signed(value))


def choice(op: str, a: Number, b: Number, then: Number, otherwise: Number) -> Number:
    chosen = then if COMPARISONS[op](a.value, b.value) else otherwise
    text = f"({a.text} {op} {b.text} ? {then.text} : {otherwise.text})"
    return Number(text, chosen.value)


def negated(op: str, operand: Number) -> Number:
    value = -operand.value if op == "-" else ~operand.value
    return Number(f"(int64)({op}({operand.text}))", signed(value))


def narrowed(bits: int, is_signed: bool, operand: Number) -> Number:
    value = operand.value & ((1 << bits) - 1)
    if is_signed and value >> (bits - 1):
        value -= 1 << bits
    return Number(f"(int64)({'' if is_signed else 'u'}int{bits})({operand.text})", value)


LEAVES = st.one_of(
    st.builds(literal, st.integers(-(2**31), 2**31)),
    st.builds(literal, st.sampled_from([0, 1, -1, 255, 256, 65535, 2**40, -(2**40)])),
    st.builds(builtin, st.sampled_from(sorted(VALUES))),
)


def extend(inner: st.SearchStrategy[Number]) -> st.SearchStrategy[Number]:
    return st.one_of(
        st.builds(arithmetic, st.sampled_from(sorted(OPERATIONS)), inner, inner),
        st.builds(shift, st.sampled_from(["<<", ">>"]), inner, st.integers(0, 63)),
        st.builds(choice, st.sampled_from(sorted(COMPARISONS)), inner, inner, inner, inner),
        st.builds(negated, st.sampled_from(["-", "~"]), inner),
        st.builds(narrowed, st.sampled_from([8, 16, 32]), st.booleans(), inner),
    )


EXPRESSIONS = st.recursive(LEAVES, extend, max_leaves=12)


@settings(max_examples=25, deadline=None)
@given(st.lists(EXPRESSIONS, min_size=6, max_size=6))
def test_expressions_have_the_value_of_their_tree(numbers: list[Number]) -> None:
    assignments = "".join(f"$v{n} = {each.text}; " for n, each in enumerate(numbers))
    stored = "".join(f"@m[{n}] = $v{n}; " for n in range(len(numbers)))
    shown = "".join(f'printf("%lld ", @m[{n}]); ' for n in range(len(numbers)))
    printed = output(f"begin {{ {assignments}{stored}{shown}}}")
    assert [int(word) for word in printed.split()] == [each.value for each in numbers]


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-(2**40), 2**40)), min_size=1, max_size=12)
)
def test_maps_hold_what_a_dict_holds_after_the_same_assignments(
    steps: list[tuple[int, int]],
) -> None:
    wanted: dict[int, int] = {}
    body = "@m[0] = (int64)0; "
    wanted[0] = 0
    for key, value in steps:
        wanted[key] = signed(wanted.get(key, 0) + value)
        body += f"@m[{key}] += (int64)({value}); "
    shown = "".join(f'printf("%lld ", @m[{key}]); ' for key in sorted(wanted))
    printed = output(f"begin {{ {body}{shown}}}")
    assert [int(word) for word in printed.split()] == [wanted[key] for key in sorted(wanted)]
