# SPDX-License-Identifier: Apache-2.0
"""Call stacks: ``kstack()``, ``ustack()``.

The kernel walks the stack into a stack-trace map and the program keeps its id (s64, negative: an
error) and, of user stacks, the process (u64); user space fetches and names the frames when they
are printed.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, ClassVar

from kcap.codegen.function import Function
from kcap.functions.base import made
from kcap.kernel import uapi
from kcap.kernel.helpers import Helper
from kcap.kernel.spec import MapSpec
from kcap.lang import ast
from kcap.lang.diagnostic import Edit
from kcap.records import dataclass
from kcap.sema import tree
from kcap.sema.types import Buffer_, Opaque

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kcap.codegen.emitter import Emitter
    from kcap.codegen.environment import Environment
    from kcap.sema.function import CallSite, Sema

MODES = ("bpftrace", "perf", "raw", "build_id")
DEFAULT_DEPTH = 127
#: PERF_MAX_STACK_DEPTH (include/uapi/linux/perf_event.h): the most frames of a stack.
MAX_DEPTH = 127
STACKS = 131072
BPF_F_USER_STACK = 1 << 8
BPF_F_STACK_BUILD_ID = 1 << 5
"""Flag of a stack-trace map: it holds struct bpf_stack_build_id instead of addresses."""
_BUILD_ID = Struct("<i20sQ")
_BUILD_ID_VALID, _BUILD_ID_IP = 1, 2  # enum bpf_stack_build_id_status
INDENT, KEY_INDENT = " " * 8, " " * 4


@dataclass(frozen=True, slots=True)
class StackType(Opaque):
    """A stack.

    :param user: of user space, else of the kernel.
    :param mode: how it is printed: bpftrace, perf, raw, build_id.
    :param depth: the most frames.
    """

    user: bool
    mode: str
    depth: int

    @property
    def size(self) -> int:
        return 16

    @property
    def align(self) -> int:
        return 8

    @property
    def names_processes(self) -> bool:
        return self.user and self.mode in ("bpftrace", "perf")

    @property
    def map_name(self) -> str:
        """The stack-trace map that holds stacks of this depth."""
        kind = "kernel" if not self.user else "build_id" if self.mode == "build_id" else "user"
        return f"stack_{kind}_{self.depth}"

    @property
    def map_spec(self) -> MapSpec:
        """The map of that name."""
        by_id = self.mode == "build_id"
        return MapSpec(
            self.map_name,
            uapi.BPF_MAP_TYPE_STACK_TRACE,
            key_size=4,
            value_size=(_BUILD_ID.size if by_id else 8) * self.depth,
            max_entries=STACKS,
            flags=BPF_F_STACK_BUILD_ID if by_id else 0,
        )

    def decode(self, data: Buffer_, offset: int = 0) -> tuple[int, int]:
        stack_id = int.from_bytes(data[offset : offset + 8], "little", signed=True)
        return stack_id, int.from_bytes(data[offset + 8 : offset + 12], "little")

    def resolve(self, value: Any, environment: Environment) -> str:
        return self._text(value, environment, INDENT)

    def resolve_key(self, value: Any, environment: Environment) -> str:
        return self._text(value, environment, KEY_INDENT)

    def _text(self, value: Any, environment: Environment, indent: str) -> str:
        stack_id, pid = value
        if environment.stacks is None or stack_id < 0:
            return ""
        data = environment.stacks.read(self.map_name, stack_id)
        if self.mode == "build_id":
            lines = build_id_lines(data)
        else:
            lines = self._lines(addresses(data), pid, environment, indent)
        return "\n" + "".join([f"{line}\n" for line in lines])

    def _lines(
        self, frames: Sequence[int], pid: int, environment: Environment, indent: str
    ) -> list[str]:
        """A line a frame, innermost first, and one for each function inlined in it."""
        if self.mode == "raw":
            return [f"{address:x}" for address in frames]
        perf = self.mode == "perf"
        return [
            f"\t{address:x} {text}" if perf else f"{indent}{text}"
            for index, address in enumerate(frames)
            for text in (
                self._user_frame(pid, address, index > 0, environment)
                if self.user
                else [environment.kernel_symbol(address, offset=True)]
            )
        ]

    def _user_frame(
        self, pid: int, address: int, called: bool, environment: Environment
    ) -> list[str]:
        """What an address of a process stands for: the functions inlined there, and their host."""
        perf = self.mode == "perf"
        name = environment.user_symbol(pid, address, offset=True, path=perf)
        known = environment.source_frames(pid, address, called=called)
        places = ["" if perf or not f.line else f"@{f.file}:{f.line}" for f in known]
        texts = [
            f"{environment.readable(frame.name)} (inlined)"
            if perf
            else f"[inlined] {environment.readable(frame.name)}{place}"
            for frame, place in zip(known[:-1], places, strict=False)
        ]
        return [*texts, f"{name}{places[-1] if places else ''}"]

    def __str__(self) -> str:
        return "ustack" if self.user else "kstack"


def addresses(data: bytes) -> list[int]:
    """The frames of a stack as the map has it, innermost first."""
    words = memoryview(data).cast("Q").tolist()
    return words[: words.index(0)] if 0 in words else words


def build_id_lines(data: bytes) -> list[str]:
    """The same with build ids: the file's and the place in it; the address where there is none."""
    lines = []
    for status, build_id, place in _BUILD_ID.iter_unpack(data):
        if status == _BUILD_ID_VALID:
            lines.append(f"{build_id.hex()} {place:#x}")
        elif status == _BUILD_ID_IP:
            lines.append(f"{place:x}")
    return lines


class StackFunction(Function):
    """``kstack`` and ``ustack``."""

    arity = (0, 2)
    helpers = frozenset({Helper.get_stackid})
    user: ClassVar[bool]

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        mode, depth = sema.config.stack_mode, DEFAULT_DEPTH
        nodes = list(call.args)
        if nodes and isinstance(nodes[0], ast.Identifier) and nodes[0].name in MODES:
            mode = nodes.pop(0).name  # type: ignore[attr-defined]
        if mode == "build_id" and not self.user:
            if len(nodes) < len(call.args):
                title = "the kernel has no build ids: build_id is a mode of ustack() only"
                raise sema.fail("argument-value", call.args[0].span, title)
            mode = "raw"  # the setting is meant for user stacks
        if nodes and isinstance(nodes[0], ast.String) and nodes[0].value in MODES:
            raise sema.fail(
                "argument-type",
                nodes[0].span,
                f"the mode of {self.name}() is a word, no string",
                edits=[Edit(nodes[0].span, nodes[0].value)],
            )
        if nodes:
            depth = sema.integer_literal(nodes[0], f"the limit of {self.name}()")
        if len(nodes) > 1 or not 0 < depth <= MAX_DEPTH:
            raise sema.fail(
                "argument-value",
                (nodes[-1]).span,
                f"{self.name}([StackMode mode, ][int limit]): the limit must be between 1 and "
                f"{MAX_DEPTH}, the mode one of {', '.join(MODES)}",
            )
        return made(self, call, StackType(self.user, mode, depth))

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        type_ = call.type
        assert isinstance(type_, StackType)
        stacks = gen.auxiliary_map(type_.map_spec)
        flags = BPF_F_USER_STACK if self.user else 0
        stack_id = gen.helper(Helper.get_stackid, f"ptr {gen.ctx}", f"ptr {stacks}", f"i64 {flags}")
        pid = "0"
        if self.user:
            pid = gen.ir.op(f"lshr i64 {gen.process_ids()}, 32")
        gen.ir.store("i64", stack_id, dest)
        gen.ir.store("i64", pid, gen.ir.offset(dest, 8))


class Kstack(StackFunction):
    name = "kstack"
    signatures = ("kstack_t kstack([StackMode mode, ][int limit])",)
    summary = "The kernel's call stack."
    user = False


class Ustack(StackFunction):
    name = "ustack"
    signatures = ("ustack_t ustack([StackMode mode, ][int limit])",)
    summary = "The user-space call stack."
    user = True


class StackLength(Function):
    """``len()`` of a stack: the frames that bpf_get_stack finds; not a function of scripts."""

    name = "len"
    helpers = frozenset({Helper.get_stack})

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        raise NotImplementedError

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        """The stack at hand is the one that was asked for, so it is walked again."""
        type_ = call.args[0].type
        assert isinstance(type_, StackType)
        size = 8 * type_.depth
        buffer = gen.alloc(size)
        flags = BPF_F_USER_STACK if type_.user else 0
        got = gen.helper(
            Helper.get_stack, f"ptr {gen.ctx}", f"ptr {buffer}", f"i32 {size}", f"i64 {flags}"
        )
        failed = gen.ir.compare("slt", "i64", got, "0")
        return gen.ir.op(f"lshr i64 {gen.ir.select(failed, 'i64', '0', got)}, 3")


FUNCTIONS: tuple[type[Function], ...] = (Kstack, Ustack)
