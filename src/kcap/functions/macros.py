# SPDX-License-Identifier: Apache-2.0
"""Functions that stand for an expression of the language itself: ``ppid()``, ``find()``,
``assert()``, ``is_err()``, ``container_of()``, ``kptr()``…"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from kcap.codegen.function import Function
from kcap.functions.base import type_name
from kcap.lang import ast
from kcap.lang.source import MacroSpan, Source
from kcap.records import replace
from kcap.sema import tree
from kcap.sema.types import BOOL, UINT64, Integer, Pointer, Space

if TYPE_CHECKING:
    from kcap.lang.source import Span
    from kcap.sema.function import CallSite, Sema


def member(span: Span, object_: ast.Expr, *names: str) -> ast.Expr:
    """``object.a.b``."""
    for name in names:
        object_ = ast.FieldAccess(span, object_, ast.Name(span, name))
    return object_


class TaskField(Function):
    """A field of a relative of a task, the current one if none is given."""

    arity = (0, 1)
    path: ClassVar[tuple[str, ...]]

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        task = call.args[0] if call.args else ast.Identifier(call.span, "curtask")
        return sema.rvalue(member(call.span, task, *self.path))


class Ppid(TaskField):
    name = "ppid"
    signatures = ("uint32 ppid", "uint32 ppid(struct task_struct * task)")
    summary = "Process ID of the parent."
    path = ("real_parent", "pid")


class Pcomm(TaskField):
    name = "pcomm"
    signatures = ("string pcomm", "string pcomm(struct task_struct * task)")
    summary = "Name of the parent."
    path = ("real_parent", "comm")


class LeaderTid(TaskField):
    name = "leader_tid"
    signatures = ("uint32 leader_tid", "uint32 leader_tid(struct task_struct * task)")
    summary = "Thread ID of the leader of the thread group."
    path = ("group_leader", "pid")


class LeaderComm(TaskField):
    name = "leader_comm"
    signatures = ("string leader_comm", "string leader_comm(struct task_struct * task)")
    summary = "Name of the leader of the thread group."
    path = ("group_leader", "comm")


class Find(Function):
    name = "find"
    signatures = ("bool find(map m, mapkey k, mapvalue result)",)
    summary = "Whether a map has a key; if so, the variable is set to its value."
    arity = (3, 3)
    discardable = True

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        """``if (has_key(@m, k)) { $v = @m[k]; true } else { false }``"""
        map_, key, target = call.args
        if not isinstance(target, ast.Variable) or not isinstance(map_, ast.Map):
            raise sema.fail(
                "argument-type", call.span, "find() expects a map, a key and a variable"
            )
        span = call.span
        condition = ast.Call(span, "has_key", call.name_span, [map_, key])
        value = ast.MapAccess(span, map_, key)
        assign = ast.Assign(span, target, "=", span, value)
        then = ast.Block(span, [assign], ast.Boolean(span, True))
        otherwise = ast.Block(span, [], ast.Boolean(span, False))
        return sema.rvalue(ast.If(span, condition, then, otherwise))


#: ``assert()`` as a macro would say it: where the message that it prints comes from.
ASSERT = Source(
    "stdlib/base.bt",
    """\
// Macros of the standard library.

// Ends the trace with a message and status 1 unless a condition holds.
macro assert(condition, msg) {
  if (!condition) {
    errorf("assert failed: %s", msg);
    exit(1);
  }
}
""",
)


class Assert(Function):
    name = "assert"
    signatures = ("void assert(bool condition, string message)",)
    summary = "End the trace with a message and status 1 unless a condition holds."
    arity = (2, 2)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        span, name = call.span, call.name_span
        condition = ast.Unary(span, "!", call.args[0])
        format_ = ast.String(span, "assert failed: %s")
        start = ASSERT.text.index("errorf")
        inside = MacroSpan(ASSERT, start, ASSERT.text.index(";", start), span)
        report = ast.Call(inside, "errorf", name, [format_, call.args[1]])
        leave = ast.Call(span, "exit", name, [ast.Integer(span, 1, "1")])
        statements: list[ast.Stmt] = [
            ast.ExprStatement(span, report),
            ast.ExprStatement(span, leave),
        ]
        then = ast.Block(span, statements)
        failed = ast.If(span, condition, then, None)
        return sema.expr(ast.BlockExpr(span, ast.Block(span, [ast.ExprStatement(span, failed)])))


class IsErr(Function):
    name = "is_err"
    signatures = ("bool is_err(void * ptr)",)
    summary = "Whether a pointer is an error code of the kernel (ERR_PTR)."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        """The last 4095 addresses (include/linux/err.h)."""
        pointer = sema.rvalue(call.args[0])
        if not isinstance(pointer.type, Pointer | Integer):
            raise sema.fail(
                "argument-type",
                call.args[0].span,
                f"is_err() expects a pointer ({type_name(pointer.type)} provided)",
            )
        number = tree.Cast(call.span, UINT64, pointer)
        first = tree.IntegerLiteral(call.span, UINT64, 2**64 - 4095)
        return tree.Binary(call.span, BOOL, ">=", number, first)


class ContainerOf(Function):
    name = "container_of"
    signatures = ("Container* container_of(Member* ptr, Type type, Identifier member)",)
    summary = "The struct whose member a pointer points to."
    arity = (3, 3)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        pointer, type_, field = call.args
        span = call.span
        if not isinstance(type_, ast.Typeof) or not isinstance(field, ast.Identifier):
            raise sema.fail(
                "argument-type",
                call.span,
                "container_of() expects a pointer, typeof(type) and the name of a member",
            )
        known = sema.rvalue(pointer)
        container = ast.TypeofType(span, type_.operand)
        number = ast.Cast(span, ast.NamedType(span, "uint64"), pointer)
        offset = ast.Offsetof(span, container, [ast.Name(field.span, field.name)])
        start = ast.Binary(span, "-", span, number, offset)
        found = sema.expr(ast.Cast(span, ast.PointerType(span, container), start))
        if isinstance(known.type, Pointer) and isinstance(found.type, Pointer):
            found.type = replace(found.type, space=known.type.space)
        return found


class SpaceFunction(Function):
    """``kptr()`` and ``uptr()``: the same pointer in another address space."""

    arity = (1, 1)
    space: ClassVar[str]

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        pointer = sema.rvalue(call.args[0])
        if not isinstance(pointer.type, Pointer | Integer):
            raise sema.fail(
                "argument-type",
                call.args[0].span,
                f"{self.name}() only supports pointer and integer arguments "
                f"({type_name(pointer.type)} provided)",
            )
        space = cast("Space", self.space)
        if isinstance(pointer.type, Integer):
            return tree.Cast(call.span, replace(pointer.type, space=space), pointer)
        return tree.Cast(call.span, Pointer(pointer.type.target, space), pointer)


class Kptr(SpaceFunction):
    name = "kptr"
    signatures = ("T * kptr(T * ptr)",)
    summary = "The pointer, read in kernel memory."
    space = "kernel"


class Uptr(SpaceFunction):
    name = "uptr"
    signatures = ("T * uptr(T * ptr)",)
    summary = "The pointer, read in user memory."
    space = "user"


FUNCTIONS: tuple[type[Function], ...] = (
    Ppid,
    Pcomm,
    LeaderTid,
    LeaderComm,
    Find,
    Assert,
    IsErr,
    ContainerOf,
    Kptr,
    Uptr,
)
