# SPDX-License-Identifier: Apache-2.0
"""What the classes of builtins and functions share: building calls, common checks and messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcap.codegen.function import Function
from kcap.sema import tree
from kcap.sema.types import Boolean, Enum, Integer, Type

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.lang import ast
    from kcap.sema.function import CallSite, Sema


def made(
    function: Function, call: CallSite, type_: Type, *args: tree.Expr, data: Any = None
) -> tree.Call:
    """The typed call: its place from ``call``, its result of ``type_``."""
    return tree.Call(call.span, type_, function, list(args), data)


def integer_argument(
    function: Function, sema: Sema, node: ast.Expr, to: Integer, what: str = "argument"
) -> tree.Expr:
    """An argument that is an integer (or boolean, or enum), converted to ``to``.

    :param what: how the message calls it: 'first argument'.
    """
    expr = sema.rvalue(node)
    if not isinstance(expr.type, Integer | Boolean | Enum):
        raise sema.fail(
            "argument-type",
            node.span,
            f"{function.name}() only supports integer arguments ({type_name(expr.type)} provided)",
            label=f"the {what} has type {expr.type}",
        )
    return sema.convert(expr, to, f"the {what} of {function.name}()")


def type_name(type_: Type) -> str:
    """The kind of a type, as messages call it."""
    from kcap.functions.format import type_word

    return type_word(type_)


class ScalarBuiltin(Function):
    """A builtin whose value is a scalar that one or two instructions give."""

    result: Type

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        return made(self, call, self.result)


class HelperBuiltin(ScalarBuiltin):
    """A builtin whose value is what one BPF helper without arguments returns."""

    helper: int

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        return gen.ir.resize(gen.helper(self.helper), 64, 8 * call.type.size, False)
