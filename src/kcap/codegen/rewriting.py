# SPDX-License-Identifier: Apache-2.0
"""Assignments that compute a map's value from its value before: ``@x[pid] += 1``.

They need one look-up where the key is the same in both places, and where nothing between the
look-up and the assignment can change what the map holds for it.
"""

from __future__ import annotations

from kcap.sema import tree
from kcap.sema.types import Type

_KINDS = ("", "hash")  # of maps: an LRU map wants to know that a key was updated
#: Builtins that have the same value however often they are asked for in one run of a program.
_CONSTANT = frozenset(("cgroup", "comm", "cpu", "gid", "pid", "probe", "tid", "uid"))
#: Those that have no effect on anything, either.
_PURE = _CONSTANT | {"curtask", "elapsed", "nsecs", "rand", "retval"}


def own_read(map_: tree.Map, key: tree.Expr | None, value: tree.Expr) -> tree.MapRead | None:
    """The read of the element that is assigned to, in the value that it is assigned; or None if
    the assignment has none, or is one that takes its usual way.

    :param key: of the assignment.
    """
    if map_.kind not in _KINDS or not _whole(value.type, map_):
        return None
    expr = value
    while isinstance(expr, tree.Cast):
        expr = expr.operand
    if not isinstance(expr, tree.Binary):
        return None
    for side, other in ((expr.left, expr.right), (expr.right, expr.left)):
        while isinstance(side, tree.Cast):
            side = side.operand
        if (
            isinstance(side, tree.MapRead)
            and side.map is map_
            and side.type.is_scalar
            and same(side.key, key)
            and _harmless(other)
        ):
            return side
    return None


def _whole(type_: Type, map_: tree.Map) -> bool:
    return type_.is_scalar and map_.value.is_scalar and type_.size == map_.value.size


def same(left: tree.Expr | None, right: tree.Expr | None) -> bool:
    """Whether two keys surely have the same value."""
    if left is None or right is None:
        return left is right
    if type(left) is not type(right) or left.type != right.type:
        return False
    match left, right:
        case tree.IntegerLiteral(), tree.IntegerLiteral():
            return left.value == right.value
        case tree.StringLiteral(), tree.StringLiteral():
            return left.value == right.value
        case tree.VariableRef(), tree.VariableRef():
            return left.variable is right.variable
        case tree.Cast(), tree.Cast():
            return same(left.operand, right.operand)
        case tree.TupleExpr(), tree.TupleExpr():
            pairs = zip(left.elements, right.elements, strict=True)
            return all(same(mine, theirs) for mine, theirs in pairs)
        case tree.Call(), tree.Call():
            known = left.function is right.function and left.function.name in _CONSTANT
            return known and not left.args and not right.args
    return False


def is_constant(key: tree.Expr | None) -> bool:
    """Whether a key surely has the same value throughout one run of a program."""
    match key:
        case None | tree.IntegerLiteral() | tree.StringLiteral():
            return True
        case tree.Cast():
            return is_constant(key.operand)
        case tree.TupleExpr():
            return all(is_constant(element) for element in key.elements)
        case tree.Call():
            return key.function.name in _CONSTANT and not key.args
    return False


def _harmless(expr: tree.Expr) -> bool:
    """Whether evaluating it surely touches no map."""
    match expr:
        case tree.IntegerLiteral() | tree.VariableRef():
            return True
        case tree.Cast():
            return _harmless(expr.operand)
        case tree.Binary():
            return _harmless(expr.left) and _harmless(expr.right)
        case tree.Call():
            return expr.function.name in _PURE and not expr.args
    return False
