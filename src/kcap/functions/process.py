# SPDX-License-Identifier: Apache-2.0
"""Builtins about the current process: ``pid``, ``tid``, ``uid``, ``comm``, ``cgroup``…"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kcap.codegen.function import Function
from kcap.functions.base import HelperBuiltin, ScalarBuiltin, integer_argument, made
from kcap.functions.names import NamedNumber
from kcap.kernel.helpers import Helper
from kcap.lang import ast
from kcap.sema import tree
from kcap.sema.types import INT32, UINT32, UINT64, VOID, OpaqueWord, Pointer, String, Type

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.environment import Environment
    from kcap.sema.function import CallSite, Sema

TASK_COMM_LEN = 16


class PidFunction(Function):
    """``pid`` and ``tid``: in the PID namespace that kcap runs in, or in the initial one."""

    arity = (0, 1)
    helpers = frozenset({Helper.get_current_pid_tgid})
    shift: ClassVar[int]

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        return made(self, call, UINT32, data=self._namespace(call, sema))

    def _namespace(self, call: CallSite, sema: Sema) -> str:
        if not call.args:
            return "curr_ns"
        node = call.args[0]
        if isinstance(node, ast.Identifier) and node.name in ("curr_ns", "init"):
            return node.name
        raise sema.fail(
            "argument-value",
            node.span,
            f"{self.name}() only supports curr_ns and init as the argument",
            help=(f"write {self.name} for the PID namespace that kcap runs in",),
        )

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        initial = call.data == "init"
        both = gen.helper(Helper.get_current_pid_tgid) if initial else gen.process_ids()
        half = gen.ir.op(f"lshr i64 {both}, 32") if self.shift else both
        return gen.ir.resize(half, 64, 32, False)


class Pid(PidFunction):
    name = "pid"
    signatures = ("uint32 pid", "uint32 pid([curr_ns|init])")
    summary = "Process ID of the current thread (its thread group)."
    shift = 32


class Tid(PidFunction):
    name = "tid"
    signatures = ("uint32 tid", "uint32 tid([curr_ns|init])")
    summary = "Thread ID of the current thread."
    shift = 0


class IdBuiltin(ScalarBuiltin):
    """``uid`` and ``gid``: halves of bpf_get_current_uid_gid."""

    helpers = frozenset({Helper.get_current_uid_gid})
    result: Type = UINT64
    shift: ClassVar[int]

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        both = gen.helper(Helper.get_current_uid_gid)
        if self.shift:
            return gen.ir.op(f"lshr i64 {both}, 32")
        return gen.ir.op(f"and i64 {both}, 4294967295")


class Uid(IdBuiltin):
    name = "uid"
    signatures = ("uint64 uid",)
    summary = "User ID of the current thread, as seen from the init namespace."
    shift = 0


class Gid(IdBuiltin):
    name = "gid"
    signatures = ("uint64 gid",)
    summary = "Group ID of the current thread, as seen from the init namespace."
    shift = 32


class UserName(OpaqueWord):
    """A user id that is printed as the user's name."""

    __slots__ = ()

    def resolve(self, value: Any, environment: Environment) -> str:
        return environment.user_name(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UserName)

    def __hash__(self) -> int:
        return hash(UserName)

    def __str__(self) -> str:
        return "username_t"


class Username(Uid):
    name = "username"
    signatures = ("username_t username",)
    named_type = ("username_t", UserName())
    summary = "Name of the current user, looked up when it is printed."
    result = UserName()


class Comm(Function):
    name = "comm"
    signatures = ("string comm", "string comm(uint32 pid)")
    summary = "Name of the current thread, or of a process (looked up when it is printed)."
    arity = (0, 1)
    direct = True

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        if call.args:
            pid = integer_argument(self, sema, call.args[0], INT32)
            return made(self, call, NamedNumber("comm"), pid)
        return made(self, call, String(TASK_COMM_LEN))

    def needs(self, call: tree.Call) -> frozenset[int]:
        return frozenset() if call.args else frozenset({Helper.get_current_comm})

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        return gen.value(call.args[0])

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        gen.helper(Helper.get_current_comm, f"ptr {dest}", f"i32 {TASK_COMM_LEN}")


class Curtask(Function):
    name = "curtask"
    signatures = ("struct task_struct * curtask",)
    summary = "The current task."
    helpers = frozenset({Helper.get_current_task})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        task = sema.types.struct("task_struct")
        return made(self, call, Pointer(task if task is not None else VOID, "kernel"))

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        return gen.helper(Helper.get_current_task)


class Cgroup(HelperBuiltin):
    name = "cgroup"
    signatures = ("uint64 cgroup",)
    summary = "ID of the cgroup (v2) that the current process belongs to."
    helper = Helper.get_current_cgroup_id
    helpers = frozenset({helper})
    result = UINT64


class Cpid(Function):
    name = "cpid"
    lasting = False
    signatures = ("uint32 cpid",)
    summary = "Process ID of the command that -c started, 0 without one."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        pid = sema.child_pid
        if not pid:
            sema.warn("no-child", call.span, "No child command (`-c`); cpid is zero")
        return tree.IntegerLiteral(call.span, UINT32, pid)


class HasCpid(Function):
    name = "has_cpid"
    lasting = False
    signatures = ("bool has_cpid",)
    summary = "Whether -c started a command."

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        from kcap.sema.types import BOOL

        return tree.IntegerLiteral(call.span, BOOL, int(sema.child_pid != 0))


FUNCTIONS: tuple[type[Function], ...] = (
    Pid,
    Tid,
    Uid,
    Gid,
    Username,
    Comm,
    Curtask,
    Cgroup,
    Cpid,
    HasCpid,
)
