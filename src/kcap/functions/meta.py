# SPDX-License-Identifier: Apache-2.0
"""What is known when the script is compiled: ``is_str()`` and its like, ``static_assert()``,
``fail()``, ``config``, ``getopt()``, ``kfunc_exist()``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kcap.codegen.environment import Environment
from kcap.codegen.function import Function
from kcap.functions.format import Format, FormatError, accepts, parse
from kcap.lang import ast
from kcap.sema import tree
from kcap.sema.types import (
    BOOL,
    INT32,
    INT64,
    UINT64,
    VOID,
    Array,
    Integer,
    Pointer,
    String,
    Tuple,
    Type,
)

if TYPE_CHECKING:
    from kcap.sema.config import Config
    from kcap.sema.function import CallSite, Sema


def boolean(call: CallSite, value: bool) -> tree.Expr:
    """``true`` or ``false`` in the place of a call."""
    return tree.IntegerLiteral(call.span, BOOL, int(value))


def text(call: CallSite, value: str) -> tree.Expr:
    """A string literal in the place of a call."""
    data = value.encode("utf-8", "surrogateescape")
    return tree.StringLiteral(call.span, String(len(data) + 1), data)


class TypeQuestion(Function):
    """Whether the type of an expression is of some kind."""

    arity = (1, 1)
    kind: ClassVar[type[Type]]

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        return boolean(call, self.holds(sema.expr(call.args[0]).type))

    def holds(self, type_: Type) -> bool:
        """The answer."""
        return isinstance(type_, self.kind)


class IsArray(TypeQuestion):
    name = "is_array"
    signatures = ("bool is_array(any expression)",)
    summary = "Whether an expression is an array."
    kind = Array


class IsInteger(TypeQuestion):
    name = "is_integer"
    signatures = ("bool is_integer(any expression)",)
    summary = "Whether an expression is an integer."
    kind = Integer


class IsUnsignedInteger(TypeQuestion):
    name = "is_unsigned_integer"
    signatures = ("bool is_unsigned_integer(any expression)",)
    summary = "Whether an expression is an unsigned integer."

    def holds(self, type_: Type) -> bool:
        return isinstance(type_, Integer) and not type_.signed


class IsPtr(TypeQuestion):
    name = "is_ptr"
    signatures = ("bool is_ptr(any expression)",)
    summary = "Whether an expression is a pointer."
    kind = Pointer


class IsStr(TypeQuestion):
    name = "is_str"
    signatures = ("bool is_str(any expression)",)
    summary = "Whether an expression is a string."
    kind = String


class IsLiteral(Function):
    name = "is_literal"
    signatures = ("bool is_literal(Expression expr)",)
    summary = "Whether an expression is a literal."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        expr = sema.expr(call.args[0])
        return boolean(call, isinstance(expr, tree.IntegerLiteral | tree.StringLiteral))


class StaticAssert(Function):
    name = "static_assert"
    signatures = ("void static_assert(bool condition, string msg)",)
    summary = "Refuse the script unless a condition holds."
    arity = (2, 2)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        condition = sema.rvalue(call.args[0])
        message = sema.string_literal(call.args[1], "the message of static_assert()")
        if not isinstance(condition, tree.IntegerLiteral):
            raise sema.fail(
                "not-constant", call.args[0].span, "static_assert() expects a constant condition"
            )
        if not condition.value:
            raise sema.fail("static-assert", call.span, message)
        return nothing(call)


def nothing(call: CallSite) -> tree.Expr:
    """An expression without a value that does nothing."""
    return tree.BlockExpr(call.span, VOID, [], None)


class Fail(Function):
    name = "fail"
    signatures = ("void fail(const string fmt, args...)",)
    summary = "Refuse the script with a message, where compilation gets here."
    arity = (1, None)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        format_ = sema.string_literal(call.args[0], "the format of fail()")
        exprs = [sema.rvalue(node) for node in call.args[1:]]
        raise sema.fail("fail", call.span, constant_text(format_, exprs, sema.config))


def constant_text(format_: str, exprs: list[tree.Expr], config: Config) -> str:
    """The format with constant arguments put in; as it is if they don't go with it."""
    values = [_constant(expr) for expr in exprs]
    try:
        conversions = [part for part in parse(format_) if not isinstance(part, str)]
    except FormatError:
        return format_
    if len(conversions) != len(exprs) or None in values:
        return format_
    if not all(accepts(c, e.type) for c, e in zip(conversions, exprs, strict=True)):
        return format_
    known = Format(format_, [expr.type for expr in exprs])
    return known.format(tuple(values), Environment(config))


def _constant(expr: tree.Expr) -> int | str | None:
    if isinstance(expr, tree.StringLiteral):
        return expr.value.decode("utf-8", "surrogateescape")
    return expr.value if isinstance(expr, tree.IntegerLiteral) else None


class ConfigBuiltin(Function):
    name = "config"
    signatures = ("Record config", "Record config()")
    summary = "The configuration, by name."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        from kcap.sema.config import OPTIONS

        elements = []
        for name in OPTIONS:
            value = getattr(sema.config, name)
            if isinstance(value, bool):
                elements.append(boolean(call, value))
            elif isinstance(value, int):
                elements.append(tree.IntegerLiteral(call.span, UINT64, value))
            else:
                elements.append(text(call, str(value or "")))
        type_ = Tuple(tuple(element.type for element in elements), tuple(OPTIONS))
        return tree.TupleExpr(call.span, type_, elements)


class DefaultStrLength(Function):
    name = "default_str_length"
    signatures = ("uint64 default_str_length()",)
    summary = "Bytes of the string that str() without a length yields."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        return tree.IntegerLiteral(call.span, UINT64, sema.config.max_strlen + 1)


_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Getopt(Function):
    name = "getopt"
    signatures = (
        "bool getopt(string arg_name)",
        "bool getopt(string arg_name, bool default_value, [string description])",
        "int getopt(string arg_name, int default_value, [string description])",
        "string getopt(string arg_name, string default_value, [string description])",
    )
    summary = "A named parameter of the command line (after --)."
    arity = (1, 3)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        name = sema.string_literal(call.args[0], "the name of getopt()")
        about = ""
        if len(call.args) > 2:
            about = sema.string_literal(call.args[2], "the description of getopt()")
        given = sema.named.take(name, about)
        if len(call.args) < 2:
            return self._boolean(call, sema, name, given, False)
        default = call.args[1]
        if isinstance(default, ast.Boolean):
            return self._boolean(call, sema, name, given, default.value)
        expr = sema.rvalue(default)
        if isinstance(expr, tree.StringLiteral):
            return expr if given is None else text(call, given)
        if not isinstance(expr, tree.IntegerLiteral):
            raise sema.fail(
                "not-constant", default.span, "getopt() expects a literal as the default value"
            )
        return expr if given is None else self._integer(call, sema, name, given)

    def _boolean(
        self, call: CallSite, sema: Sema, name: str, given: str | None, default: bool
    ) -> tree.Expr:
        if given is None:
            return boolean(call, default)
        if given.lower() not in _BOOLEANS:
            raise self._bad(sema, name, given, "boolean", "true, 1, false or 0")
        return boolean(call, _BOOLEANS[given.lower()])

    def _integer(self, call: CallSite, sema: Sema, name: str, given: str) -> tree.Expr:
        try:
            value = int(given, 0)
        except ValueError:
            value = UINT64.maximum + 1
        if not INT64.minimum <= value <= UINT64.maximum:
            raise self._bad(sema, name, given, "integer", "a number of at most 64 bits")
        return tree.IntegerLiteral(call.span, INT64 if value <= INT64.maximum else UINT64, value)

    def _bad(self, sema: Sema, name: str, given: str, kind: str, wanted: str) -> Exception:
        return sema.fail(
            "parameter-value",
            None,  # what is wrong stands on the command line, not in the script
            f"program command line option --{name} invalid {kind} (value: {given})",
            help=(f"give it {wanted}",),
        )


class AlwaysTrue(Function):
    name = "__always_true"
    signatures = ("int32 __always_true()",)
    summary = "1: what stdlib/test has, to try imports of the standard library with."
    arity = (0, 0)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        return tree.IntegerLiteral(call.span, INT32, 1)


class KfuncExist(Function):
    name = "kfunc_exist"
    signatures = ("bool kfunc_exist(const string kfunc)",)
    summary = "Whether the kernel has a function of this name in BTF."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        from kcap.btf import types as btf_types

        name = sema.string_literal(call.args[0], f"the argument of {self.name}()")
        btf = sema.types.btf
        return boolean(call, btf is not None and btf.find(name, btf_types.Func) is not None)


class KfuncAllowed(KfuncExist):
    name = "kfunc_allowed"
    signatures = ("bool kfunc_allowed(const string kfunc)",)
    summary = "Whether a kernel function may be called here; scripts call none, so never."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        super().check(call, sema)
        return boolean(call, False)


FUNCTIONS: tuple[type[Function], ...] = (
    IsArray,
    IsInteger,
    IsUnsignedInteger,
    IsPtr,
    IsStr,
    IsLiteral,
    StaticAssert,
    Fail,
    ConfigBuiltin,
    DefaultStrLength,
    Getopt,
    AlwaysTrue,
    KfuncExist,
    KfuncAllowed,
)
