# SPDX-License-Identifier: Apache-2.0
"""Emits one BPF program: the face that functions see, and the memory behind it.

Scalars are registers; everything else is a :class:`~kcap.codegen.memory.Place`. What is larger
than the setting ``on_stack_limit`` lies in per-CPU scratch memory (:mod:`kcap.codegen.scratch`), so
that the 512-byte stack never is the user's problem.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from kcap.codegen import events, expressions, maps, memory, operators, scratch, statements
from kcap.codegen.ir import IRBuilder, Operand
from kcap.codegen.memory import Place
from kcap.codegen.module import LostCounter, ModuleBuilder
from kcap.codegen.repeats import repeated_reads
from kcap.codegen.site import Site
from kcap.kernel.helpers import Helper
from kcap.sema import tree
from kcap.sema.types import Type, round_up

if TYPE_CHECKING:
    from kcap.kernel.spec import MapSpec
    from kcap.lang.source import Span
    from kcap.sema.config import Config
    from kcap.sema.probe import ProbeContext

#: Probes that concern no process, or that the kernel itself binds to the one of ``-p``.
BOUND_TO_PROCESS = frozenset(
    {"begin", "end", "self", "test", "bench", "interval", "profile", "software", "hardware"}
    | {"uprobe", "uretprobe", "usdt", "watchpoint", "iter"}
)


class Emitter:
    """The state of one program while it is emitted.

    :param module: what the script's programs share.
    :param program: the typed program.
    :param index: its number in the script.
    :param half: it is part of another program, which calls it (:mod:`kcap.codegen.sessions`).
    """

    def __init__(
        self, module: ModuleBuilder, program: tree.Program, index: int, *, half: bool = False
    ) -> None:
        self.module = module
        self.program = program
        self.context: ProbeContext = program.context
        self.config: Config = module.config
        self.index = index
        self.symbol = f"half_{index}" if half else f"prog_{index}"
        self.ctx: Operand = "%ctx"
        self._span: Span | None = None
        self.span = program.context.span
        section = "" if half else f"kcap/{self.symbol}"
        self.ir = IRBuilder(self.symbol, "ptr %ctx", section, module.lines)
        self.result = self.ir.alloca(8)
        self.variables: dict[tree.Variable, Operand] = {}
        self.scratch_variables: dict[tree.Variable, int] = {}
        self.loops: list[statements.Loop] = []
        self.frame: statements.Frame | None = None
        #: A read of a map whose value is at hand (:func:`kcap.codegen.maps.assign`).
        self.known_read: tuple[tree.MapRead, Operand] | None = None
        #: Reads that take the value of an earlier one, and the values that those had.
        self.repeated = {} if module.helper_errors else repeated_reads(program)
        self.read_values: dict[tree.MapRead, tuple[IRBuilder, Operand]] = {}
        self._scratch_used = 0
        self._scratch_peak = 0
        self._zero_size = 0

    @property
    def span(self) -> Span | None:
        """The place of the statement or expression that is being emitted."""
        return self._span

    @span.setter
    def span(self, value: Span | None) -> None:
        self._span = value
        if self.module.lines is not None:
            self.module.lines.now = value

    # --- the whole program ---

    def emit(self) -> str:
        """Emit the program; its LLVM text. Callbacks are added to the module."""
        statements.open_frame(self)
        if events.fires_by_clock(self) and self._ends_the_trace():
            events.leave_after_exit(self)
        self._only_wanted_process()
        self._only_objects()
        if self.program.predicate is not None:
            holds = self.truth(self.program.predicate)
            with self.ir.if_(self.ir.op(f"xor i1 {holds}, true")):
                self.return_()
        statements.emit_block(self, self.program.body)
        self.return_()
        self.ir.label("leave")
        zeros_at = round_up(self._scratch_peak, 8)
        size = zeros_at + self._zero_size
        if size:
            self.module.scratch_size = max(self.module.scratch_size, size)
            lines = [*scratch.prologue(self, zeros_at), *statements.frame_prologue(self)]
            self.ir.prologue_lines(lines)
            if not self.module.features.recursion_guard:
                scratch.leave(self)
        self.ir.ret(self.ir.load("i64", self.result))
        return self.ir.text()

    def _ends_the_trace(self) -> bool:
        """Whether the program calls a function that ends the trace."""
        parts = [self.program.predicate, *self.program.body]
        calls = (node for node in tree.walk(parts) if isinstance(node, tree.Call))
        return any(isinstance(call.data, Site) and call.data.ends_trace for call in calls)

    def _only_wanted_process(self) -> None:
        """``-p``: leave unless the current process is the one, where the probe itself isn't bound
        to a process."""
        if self.module.pid is None or self.context.provider in BOUND_TO_PROCESS:
            return
        process = self.ir.op(f"lshr i64 {self.process_ids()}, 32")
        with self.ir.if_(self.ir.compare("ne", "i64", process, str(self.module.pid))):
            self.return_()

    def _only_objects(self) -> None:
        """Iterators: leave at the last call, which has no object."""
        offset = self.context.extra.get("ctx_object")
        if offset is None:
            return
        found = self.ir.load("i64", self.ir.offset(self.ctx, offset), volatile=True)
        with self.ir.if_(self.ir.compare("eq", "i64", found, "0")):
            self.return_()

    # --- values ---

    @staticmethod
    def llvm_type(type_: Type) -> str:
        """The LLVM type of a scalar: i8, i16, i32 or i64."""
        return f"i{8 * type_.size}"

    def value(self, expr: tree.Expr) -> Operand:
        """A scalar expression's value, of ``llvm_type(expr.type)``; '' for Void."""
        return expressions.value(self, expr)

    def value64(self, expr: tree.Expr) -> Operand:
        """A scalar's value as an i64, extended by its signedness."""
        return operators.widen(self, self.value(expr), expr.type)

    def truth(self, expr: tree.Expr) -> Operand:
        """Whether a scalar isn't zero, as an i1."""
        return operators.truth(self, expr)

    def place(self, expr: tree.Expr) -> Place:
        """Where the value of a memory-typed expression stands."""
        return expressions.place(self, expr)

    def address(self, expr: tree.Expr) -> Operand:
        """A pointer to the expression's value in BPF memory, copied there if need be."""
        return memory.address(self, expr)

    def store(self, expr: tree.Expr, dest: Operand, *, canonical: bool = False) -> None:
        """Evaluate and write ``expr.type.size`` bytes to ``dest``.

        :param canonical: every byte is determined by the value (padding and what follows a
            string's NUL are zero), as a map's key has to be.
        """
        memory.store(self, expr, dest, canonical=canonical)

    # --- memory ---

    def alloc(self, size: int, align: int = 8) -> Operand:
        """Memory for a temporary of ``size`` bytes, valid until the statement ends; not zeroed."""
        if size <= self.config.on_stack_limit:
            return self.ir.temporary(size)
        offset = round_up(self._scratch_used, 8)
        self._scratch_used = offset + size
        self._scratch_peak = max(self._scratch_peak, self._scratch_used)
        return self.ir.offset("%scratch", offset)

    def zeros(self, size: int) -> Operand:
        """A pointer to ``size`` zero bytes that nobody writes."""
        self._zero_size = max(self._zero_size, round_up(size, 8))
        return "%zeros"

    def scratch_mark(self) -> int:
        """How much scratch is taken, for :meth:`scratch_release`."""
        return self._scratch_used

    def scratch_release(self, mark: int) -> None:
        """Give back the temporaries allocated since the mark."""
        self._scratch_used = mark

    def zero(self, pointer: Operand, size: int) -> None:
        """Fill with zeros."""
        memory.zero(self, pointer, size)

    def copy(self, dest: Operand, source: Operand, size: int) -> None:
        """Copy within BPF memory."""
        memory.copy(self, dest, source, size)

    def read(self, dest: Operand, size: int | Operand, address: Operand, space: str) -> Operand:
        """Read kernel or user memory at an i64 address; 0 or a negative error (dest is zeroed)."""
        return memory.read(self, dest, size, address, space)

    def read_string(
        self, dest: Operand, size: int | Operand, address: Operand, space: str
    ) -> Operand:
        """Read a NUL-terminated string; its length with the NUL, or a negative error."""
        return memory.read_string(self, dest, size, address, space)

    # --- helpers and control flow ---

    def helper(self, number: int, *arguments: Operand) -> Operand:
        """Call a BPF helper; arguments as ``type value``; its result as an i64."""
        return self.ir.call(number, *arguments)

    def process_ids(self) -> Operand:
        """The current process and thread, ``tgid << 32 | tid``, as /proc here numbers them.

        That is the PID namespace that kcap runs in; both are 0 for threads outside of it.
        """
        namespace = self.module.features.pid_namespace
        if namespace is None:
            return self.helper(Helper.get_current_pid_tgid)
        device, inode = namespace
        ids = self.alloc(8)  # struct bpf_pidns_info: u32 pid (the thread's), u32 tgid
        self.ir.store("i64", "0", ids)
        self.helper(
            Helper.get_ns_current_pid_tgid,
            f"i64 {device}",
            f"i64 {inode}",
            f"ptr {ids}",
            "i32 8",
        )
        return self.ir.load("i64", ids)

    def if_(self, condition: Operand) -> AbstractContextManager[None]:
        """``with gen.if_(i1):`` the code within runs where it holds."""
        return self.ir.if_(condition)

    def return_(self, value: Operand = "0") -> None:
        """Leave the program."""
        statements.leave(self, value)

    # --- maps and events ---

    def map(self, map_: tree.Map) -> Operand:
        """The operand of a map of the script."""
        return maps.operand(self, map_)

    def map_key(self, map_: tree.Map, key: tree.Expr | None) -> Operand:
        """A pointer to the key in BPF memory, as the map's layout wants it."""
        return maps.key(self, map_, key)

    def auxiliary_map(self, spec: MapSpec) -> Operand:
        """Declare a map that the script doesn't name (once by name); its operand."""
        return self.module.map(spec)

    def lookup(self, map_: Operand, key: Operand) -> Operand:
        """bpf_map_lookup_elem: a pointer to the value, or null."""
        return self.ir.op(
            f"call ptr inttoptr (i64 {Helper.map_lookup_elem} to ptr)(ptr {map_}, ptr {key})"
        )

    def event(self, site: Site, exprs: list[tree.Expr]) -> None:
        """Send one event to user space; one that finds the ring full is counted."""
        events.emit(self, site, exprs)

    def count_lost(self, kind: str, subject: str, site: object = None) -> None:
        """Add one to a loss counter, exactly; see :class:`LostCounter`."""
        events.count_lost(self, LostCounter(kind, subject, site))
