# SPDX-License-Identifier: Apache-2.0
"""Numbers that user space prints as names: ``strerror()``, ``signal_name()``,
``syscall_name()``, ``cgroup_path()``, ``comm(pid)``; and ``cgroupid()``."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from kcap.codegen.function import Function
from kcap.functions.base import integer_argument, made
from kcap.functions.strings import constant_integer
from kcap.records import dataclass
from kcap.sema import tree
from kcap.sema.types import INT32, UINT64, UNRESOLVED, Buffer_, Opaque, OpaqueWord, String

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.environment import Environment
    from kcap.sema.function import CallSite, Sema


def error_name(number: int) -> str:
    """What strerror(3) says of an error; negative numbers are taken as the kernel's."""
    return os.strerror(abs(number))


def signal_text(number: int) -> str:
    """What strsignal(3) says of a signal; ``N/A`` for what no signal can be."""
    import signal

    if not 0 <= number <= 64:
        return "N/A"
    try:
        return signal.strsignal(number) or f"Unknown signal {number}"
    except ValueError:
        return f"Unknown signal {number}"


@cache
def _syscalls(architecture: str) -> dict[int, str]:
    path = os.path.join(os.path.dirname(__file__), "syscalls.tsv")
    found = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if fields[0] == architecture:
                found[int(fields[1])] = fields[2]
    return found


def syscall_text(number: int) -> str:
    """The name of a system call of this architecture."""
    return _syscalls(os.uname().machine).get(number, "Unknown syscall")


def process_comm(pid: int) -> str:
    """The name of a process, now; ``N/A`` if there is none (any more)."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().rstrip(b"\n").decode("utf-8", "surrogateescape")
    except OSError:
        return "N/A"


_TEXTS = {
    "strerror": error_name,
    "signal_name": signal_text,
    "syscall_name": syscall_text,
    "comm": process_comm,
}


@dataclass(frozen=True, slots=True)
class NamedNumber(Opaque):
    """A number (s32) that is printed as a name.

    :param kind: the function that made it.
    """

    kind: str

    @property
    def size(self) -> int:
        return 4

    @property
    def is_scalar(self) -> bool:
        return True

    def decode(self, data: Buffer_, offset: int = 0) -> int:
        return int.from_bytes(data[offset : offset + 4], "little", signed=True)

    def resolve(self, value: Any, environment: Environment) -> str:
        return _TEXTS[self.kind](value)

    def __str__(self) -> str:
        return "string"


class NameFunction(Function):
    """A function that names a number, when it is printed or, of a constant, at once."""

    arity = (1, 1)
    constant: ClassVar[bool] = True

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        number = integer_argument(self, sema, call.args[0], INT32)
        known = constant_integer(number)
        if known is None or not self.constant:
            return made(self, call, NamedNumber(self.name), number)
        text = _TEXTS[self.name](known).encode("utf-8", "surrogateescape")
        return tree.StringLiteral(call.span, String(len(text) + 1), text)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        return gen.value(call.args[0])


class Strerror(NameFunction):
    name = "strerror"
    signatures = ("string strerror(int error)",)
    summary = "What an error number means."


class SignalName(NameFunction):
    name = "signal_name"
    signatures = ("string signal_name(int sig)",)
    summary = "What a signal is called."


class SyscallName(NameFunction):
    name = "syscall_name"
    signatures = ("string syscall_name(int nr_syscall)",)
    summary = "The name of a system call."


class Cgroupid(Function):
    name = "cgroupid"
    lasting = False
    signatures = ("uint64 cgroupid(const string path)",)
    summary = "ID of the cgroup (v2) at a path, looked up when the script is compiled."
    arity = (1, 1)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        """The id of a cgroup is its inode number (kernel: cgroup_id, kernfs)."""
        path = sema.string_literal(call.args[0], "the path of cgroupid()")
        try:
            number = os.stat(path).st_ino
        except OSError as error:
            raise sema.fail(
                "unknown-cgroup",
                call.args[0].span,
                f"cgroupid(): cannot find {path}: {error.strerror}",
            ) from error
        return tree.IntegerLiteral(call.span, UINT64, number)


@dataclass(frozen=True, slots=True)
class CgroupPath(OpaqueWord):
    """A cgroup id (u64) that is printed as its path in every hierarchy that has it.

    :param pattern: names of hierarchies, with wildcards.
    """

    pattern: str

    def resolve(self, value: Any, environment: Environment) -> str:
        from fnmatch import fnmatchcase

        found = []
        for name, root in cgroup_mounts():
            if fnmatchcase(name, self.pattern):
                path = find_cgroup(root, value)
                if path is not None:
                    found.append(f"{name}:{path}")
        return ";".join(found)

    def __str__(self) -> str:
        return "cgroup_path_t"


def cgroup_mounts(mounts: str = "/proc/mounts") -> list[tuple[str, str]]:
    """(name, mount point) of every cgroup hierarchy; ``unified`` is version 2."""
    found = []
    with open(mounts) as file:
        for line in file:
            _, point, kind, options = line.split()[:4]
            if kind == "cgroup2":
                found.append(("unified", point))
            elif kind == "cgroup":
                found.append((os.path.basename(point) or options, point))
    return found


def find_cgroup(root: str, number: int) -> str | None:
    """The path below ``root`` of the cgroup with an id, ``/`` for the root itself."""
    for path, _, _ in os.walk(root):
        try:
            if os.stat(path).st_ino == number & 0xFFFF_FFFF or os.stat(path).st_ino == number:
                return "/" + os.path.relpath(path, root).removeprefix(".")
        except FileNotFoundError:
            continue
    return None


class CgroupPathFunction(Function):
    name = "cgroup_path"
    signatures = ("cgroup_path_t cgroup_path(int cgroupid [, string filter])",)
    named_type = ("cgroup_path_t", UNRESOLVED)
    summary = "The path of a cgroup, looked up when it is printed."
    arity = (1, 2)

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        number = integer_argument(self, sema, call.args[0], UINT64)
        pattern = "*"
        if len(call.args) > 1:
            pattern = sema.string_literal(call.args[1], "the filter of cgroup_path()")
        return made(self, call, CgroupPath(pattern), number)

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        return gen.value64(call.args[0])


FUNCTIONS: tuple[type[Function], ...] = (
    Strerror,
    SignalName,
    SyscallName,
    Cgroupid,
    CgroupPathFunction,
)
