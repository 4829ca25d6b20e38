# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on literals, at compile time.

Literals are exact integers from -2**63 to 2**64 - 1; a result outside is an error, since the
program would compute something else than what is written (as in bpftrace 0.27).
"""

from __future__ import annotations

from collections.abc import Callable

MINIMUM, LIMIT = -(1 << 63), 1 << 64
_MASK = LIMIT - 1

COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": int.__eq__,
    "!=": int.__ne__,
    "<": int.__lt__,
    "<=": int.__le__,
    ">": int.__gt__,
    ">=": int.__ge__,
}


class FoldError(ValueError):
    """A result that no 64-bit integer holds, or a division by zero; the message says which."""


def fold(op: str, left: int, right: int) -> int:
    """``left op right`` for an arithmetic or bitwise operator.

    :raises FoldError: the result does not fit, or there is none.
    """
    if op in ("/", "%"):
        result = _divide(op, left, right)
    elif op in ("<<", ">>"):
        result = _shift(op, left, right)
    else:
        result = _OPERATORS[op](left, right)
        if op in ("&", "|", "^"):
            result = _wrap(result, left < 0 or right < 0)
    if not MINIMUM <= result < LIMIT:
        raise FoldError("unable to fold literals due to overflow or underflow")
    return result


_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
    "&": int.__and__,
    "|": int.__or__,
    "^": int.__xor__,
}


def _divide(op: str, left: int, right: int) -> int:
    if right == 0:
        raise FoldError("division by zero in a constant expression")
    quotient = abs(left) // abs(right)
    if (left < 0) != (right < 0):
        quotient = -quotient
    return quotient if op == "/" else left - quotient * right


def _shift(op: str, left: int, right: int) -> int:
    if not 0 <= right < 64:
        raise FoldError(f"shift by {right}: only 0 to 63 make sense for a 64-bit integer")
    return _wrap(left << right, left < 0) if op == "<<" else left >> right


def invert(value: int) -> int:
    """``~value``: of a non-negative literal, as an unsigned 64-bit integer."""
    return ~value if value < 0 else ~value & _MASK


def negate(value: int) -> int:
    """``-value``.

    :raises FoldError: it does not fit.
    """
    if -value < MINIMUM:
        raise FoldError("negative value will underflow")
    return -value


def _wrap(value: int, signed: bool) -> int:
    value &= _MASK
    return value - LIMIT if signed and value >> 63 else value
