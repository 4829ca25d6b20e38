# SPDX-License-Identifier: Apache-2.0
"""``dw_ustack()``: user stacks by ``.eh_frame``, for programs without frame pointers.

User space reads the frame tables of the files that the traced processes run, before the probes
are attached, and puts them into one BPF array: up to ``FILES`` pairs of inode and place, then the
rows (:mod:`kcap.symbols.callframes`). For each frame the program asks bpf_find_vma which file the
address is in, finds the row, and from it the caller's registers. So it does not matter where a
file is mapped, nor when. The frames go into a hash map of their own under a hash of them, which
keeps a stack's place in other maps' keys as small as ``ustack``'s.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING

from kcap.codegen.ir import IRBuilder
from kcap.errors import FileError
from kcap.functions import registers
from kcap.functions.base import made
from kcap.functions.format import Format
from kcap.functions.sites import WarnfSite
from kcap.functions.stacks import StackFunction, StackType
from kcap.kernel import uapi
from kcap.kernel.helpers import Helper
from kcap.kernel.spec import MapSpec
from kcap.records import dataclass
from kcap.sema import tree
from kcap.sema.function import unstable_feature
from kcap.symbols.callframes import FROM_BP, FROM_SP, IN_PLT, ROW, SAVED, table
from kcap.symbols.perfile import kept_per_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from kcap.codegen.emitter import Emitter
    from kcap.lang.source import Span
    from kcap.sema.function import CallSite, Sema

FILES = 64
TABLE, STATE = "unwind_table", "unwind_state"
STACKS = 8192
_FILE = Struct("<QII")  # inode, first row, number of rows
#: Rounds of the binary search: as many rows as 32-bit places could have.
_ROUNDS = 26
_NO_DATA = "No DWARF unwind data available for this process."

# The state of one walk (STATE's value): registers, then what the callbacks hand to each other.
_IP, _SP, _BP, _COUNT, _HASH, _INODE, _PLACE, _BUFFER, _FIRST, _ROWS, _FOUND, _FRAMES = range(
    0, 96, 8
)
_MAX_FRAMES = 128
_STATE_SIZE = _FRAMES + 8 * _MAX_FRAMES


@dataclass(frozen=True, slots=True)
class DwarfStackType(StackType):
    """A stack that was walked by ``.eh_frame``."""

    @property
    def map_name(self) -> str:
        return f"stack_dwarf_{self.depth}"

    @property
    def map_spec(self) -> MapSpec:
        size = 8 * self.depth
        return MapSpec(self.map_name, uapi.BPF_MAP_TYPE_HASH, 8, size, STACKS)


@dataclass(frozen=True, slots=True)
class Unwinding:
    """What a call needs at emission.

    :param table: the array's contents.
    :param offsets: of members of kernel structs: vm_start, vm_pgoff, vm_file, f_inode, i_ino; and
        ip, sp, bp of struct pt_regs.
    :param span: the call, for the warning.
    """

    table: bytes
    offsets: dict[str, int]
    span: Span


class DwUstack(StackFunction):
    name = "dw_ustack"
    lasting = False
    signatures = ("ustack_t dw_ustack([StackMode mode, ][int limit])",)
    summary = "The user-space call stack, by DWARF, for code without frame pointers (x86-64, 5.17)."
    helpers = frozenset(
        {Helper.find_vma, Helper.loop, Helper.task_pt_regs, Helper.get_current_task_btf}
    )
    user = True

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        found = super().check(call, sema)
        plain = found.type
        assert isinstance(plain, StackType)
        if registers.current() is not registers.X86_64:
            raise sema.fail("architecture", call.span, "dw_ustack is only supported on x86_64")
        if plain.mode == "build_id":
            title = "dw_ustack has no build ids: use the mode bpftrace, perf or raw"
            raise sema.fail("argument-value", call.span, title)
        feature = "dw_ustack (DWARF stack unwinding)"
        unstable_feature(sema, call.span, feature, "unstable_dw_ustack")
        if sema.unwound_files is None:
            raise sema.fail(
                "no-process",
                call.span,
                "dw_ustack requires a target process",
                label="its files tell how to walk the stack",
                help=("name processes with -p or --dwarf-pid, or a command with -c",),
            )
        data = Unwinding(unwind_table(sema.unwound_files()), self._offsets(call, sema), call.span)
        return made(self, call, DwarfStackType(True, plain.mode, plain.depth), data=data)

    @staticmethod
    def _offsets(call: CallSite, sema: Sema) -> dict[str, int]:
        found = {}
        for struct, names in (
            ("vm_area_struct", ("vm_start", "vm_pgoff", "vm_file")),
            ("file", ("f_inode",)),
            ("inode", ("i_ino",)),
        ):
            type_ = sema.types.struct(struct)
            for name in names:
                field = type_.find(name) if type_ is not None else None
                if field is None:
                    title = f"dw_ustack needs the kernel's BTF: no {name} in struct {struct}"
                    raise sema.fail("no-btf", call.span, title)
                found[name] = field.offset
        known = registers.X86_64.offsets
        return {**found, "ip": known["ip"], "sp": known["sp"], "bp": known["bp"]}

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        type_, data = call.type, call.data
        assert isinstance(type_, DwarfStackType)
        _Walk(gen, data).emit(type_, dest)


@kept_per_file
def unwind_table(paths: tuple[str, ...]) -> bytes:
    """The array's contents for some files; those that can't be read are left out."""
    files, tables, first = [], [], 0
    for path in paths[:FILES]:
        try:
            found = table(path)
            inode = os.stat(path).st_ino
        except (FileError, OSError):  # what is mapped need not be an ELF file
            continue
        count = len(found) // ROW.size
        files.append(_FILE.pack(inode, first, count))
        tables.append(found)
        first += count
    return b"".join(files).ljust(FILES * _FILE.size, b"\0") + b"".join(tables)


class _Walk:
    """Emits the walk: the program's part, and two callbacks that all calls share."""

    def __init__(self, gen: Emitter, data: Unwinding) -> None:
        self._gen = gen
        self._data = data
        self._rows = (len(data.table) - FILES * _FILE.size) // ROW.size

    def emit(self, type_: DwarfStackType, dest: str) -> None:
        """Walk the current task's stack and write (id, pid) to ``dest``."""
        gen, ir, table = self._gen, self._gen.ir, self._data.table
        stacks = gen.auxiliary_map(type_.map_spec)
        states = gen.auxiliary_map(
            MapSpec(STATE, uapi.BPF_MAP_TYPE_PERCPU_ARRAY, 4, _STATE_SIZE, 1)
        )
        size = max(len(table), 1)
        gen.auxiliary_map(MapSpec(TABLE, uapi.BPF_MAP_TYPE_ARRAY, 4, size, 1, contents=table))
        ir.store("i64", "-1", dest)
        ir.store("i64", ir.op(f"lshr i64 {gen.process_ids()}, 32"), ir.offset(dest, 8))
        zero = gen.alloc(4)
        ir.store("i32", "0", zero)
        state = gen.lookup(states, zero)
        with ir.if_(ir.compare("ne", "ptr", state, "null")):
            self._begin(state)
            slot = gen.alloc(8)  # callbacks are only given what is on the stack
            ir.store("ptr", state, slot)
            step = self._step()
            gen.helper(Helper.loop, f"i32 {type_.depth}", f"ptr @{step}", f"ptr {slot}", "i64 0")
            self._keep(state, stacks, dest)

    def _begin(self, state: str) -> None:
        """Begin at the registers with which the task entered the kernel, without frames."""
        gen, ir = self._gen, self._gen.ir
        task = gen.helper(Helper.get_current_task_btf)
        regs = gen.helper(Helper.task_pt_regs, f"i64 {task}")
        for name, at in (("ip", _IP), ("sp", _SP), ("bp", _BP)):
            address = ir.op(f"add i64 {regs}, {self._data.offsets[name]}")
            gen.read(ir.offset(state, at), 8, address, "kernel")
        for at in (_COUNT, _HASH, _INODE):
            ir.store("i64", "0", ir.offset(state, at))
        gen.zero(ir.offset(state, _FRAMES), 8 * _MAX_FRAMES)

    def _keep(self, state: str, stacks: str, dest: str) -> None:
        """Put the frames into the map of stacks and their hash, the id, to ``dest``; warn if there
        are none."""
        gen, ir = self._gen, self._gen.ir
        count = ir.load("i64", ir.offset(state, _COUNT), volatile=True)
        known, unknown, end = (ir.fresh(s) for s in ("walked", "no_table", "unwound"))
        ir.branch(ir.compare("ne", "i64", count, "0"), known, unknown)
        ir.label(known)
        stack_id = gen.alloc(8)
        # The sign bit is left clear: negative ids are errors.
        hash_ = ir.load("i64", ir.offset(state, _HASH), volatile=True)
        ir.store("i64", ir.op(f"lshr i64 {hash_}, 1"), stack_id)
        frames = ir.offset(state, _FRAMES)
        done = gen.helper(
            Helper.map_update_elem,
            *(f"ptr {stacks}", f"ptr {stack_id}", f"ptr {frames}", "i64 0"),
        )
        with ir.if_(ir.compare("eq", "i64", done, "0")):
            ir.store("i64", ir.load("i64", stack_id), dest)
        ir.jump(end)
        ir.label(unknown)
        gen.event(WarnfSite(Format(_NO_DATA, []), self._data.span), [])
        ir.label(end)

    # The callbacks; each is emitted once for the module.

    def _step(self) -> str:
        """One frame: note it, find its row, go to the caller. Returns 1 at the last one."""
        name = "unwind_step"
        if not any(f"@{name}(" in text.partition("\n")[0] for text in self._gen.module.functions):
            others = self._mapping(), self._find_file(), self._find_row()
            self._in_function(name, "i32 %index, ptr %slot", lambda: self._step_body(*others))
        return name

    def _in_function(self, name: str, signature: str, body: Callable[[], None]) -> None:
        gen = self._gen
        outer, gen.ir = gen.ir, IRBuilder(name, signature, lines=gen.module.lines)
        gen.ir.prologue_lines(["  %state = load ptr, ptr %slot"])
        body()
        gen.module.functions.append(gen.ir.text())
        gen.ir = outer

    def _mapping(self) -> str:
        """The callback of bpf_find_vma: the file's inode, and the address' place in it."""
        name = "unwind_mapping"

        def body() -> None:
            gen, ir, offsets = self._gen, self._gen.ir, self._data.offsets
            buffer = ir.offset("%state", _BUFFER)

            def member(base: str, field: str) -> str:
                address = ir.op(f"add i64 {base}, {offsets[field]}")
                gen.read(buffer, 8, address, "kernel")
                return ir.load("i64", buffer, volatile=True)

            vma = ir.address("%vma")
            start, pages = member(vma, "vm_start"), member(vma, "vm_pgoff")
            inode = member(member(vma, "vm_file"), "f_inode")
            ir.store("i64", member(inode, "i_ino"), ir.offset("%state", _INODE))
            place = ir.load("i64", ir.offset("%state", _PLACE))
            inside = ir.op(f"sub i64 {place}, {start}")
            place = ir.op(f"add i64 {inside}, {ir.op(f'shl i64 {pages}, 12')}")
            ir.store("i64", place, ir.offset("%state", _PLACE))
            ir.ret("0")

        self._in_function(name, "ptr %task, ptr %vma, ptr %slot", body)
        return name

    def _get(self, at: int) -> str:
        """A member of the state, in a callback."""
        ir = self._gen.ir
        return ir.load("i64", ir.offset("%state", at), volatile=True)

    def _put(self, at: int, value: str) -> None:
        ir = self._gen.ir
        ir.store("i64", value, ir.offset("%state", at))

    def _stop_if(self, condition: str) -> None:
        """End the loop that the callback is a round of."""
        with self._gen.ir.if_(condition):
            self._gen.ir.ret("1")

    def _step_body(self, mapping: str, find_file: str, find_row: str) -> None:
        gen, ir = self._gen, self._gen.ir
        index = ir.resize("%index", 32, 64, False)
        ip = self._get(_IP)
        count = self._rows_at(index, ip, mapping, find_file)
        # The innermost frame of a process that nothing is known of makes no stack at all.
        unknown = ir.compare("eq", "i64", count, "0")
        innermost = ir.compare("eq", "i64", index, "0")
        self._stop_if(ir.op(f"and i1 {unknown}, {innermost}"))
        self._note_frame(index, ip)
        self._stop_if(unknown)
        gen.helper(Helper.loop, f"i32 {_ROUNDS}", f"ptr @{find_row}", "ptr %slot", "i64 0")
        found = self._get(_FOUND)  # the row's number and 1, 0 for none
        self._stop_if(ir.compare("eq", "i64", found, "0"))
        table = self._table()
        self._stop_if(ir.compare("eq", "ptr", table, "null"))
        number = ir.opaque(ir.op(f"sub i64 {found}, 1"))
        self._stop_if(ir.compare("uge", "i64", number, str(self._rows)))
        self._to_caller(self._row(table, number))
        ir.ret("0")

    def _rows_at(self, index: str, ip: str, mapping: str, find_file: str) -> str:
        """Find the file that an address is in; returns how many rows it has, 0 if it is none."""
        gen, ir = self._gen, self._gen.ir
        # Behind a call that never returns the next function begins: look one byte before.
        called = ir.op(f"zext i1 {ir.compare('ne', 'i64', index, '0')} to i64")
        self._put(_PLACE, ir.op(f"sub i64 {ip}, {called}"))
        self._put(_INODE, "0")
        task = gen.helper(Helper.get_current_task_btf)
        address = self._get(_PLACE)
        gen.helper(
            Helper.find_vma,
            *(f"i64 {task}", f"i64 {address}", f"ptr @{mapping}", "ptr %slot", "i64 0"),
        )
        for at in (_ROWS, _FOUND):
            self._put(at, "0")
        gen.helper(Helper.loop, f"i32 {FILES}", f"ptr @{find_file}", "ptr %slot", "i64 0")
        return self._get(_ROWS)

    def _note_frame(self, index: str, ip: str) -> None:
        """Append a frame, and mix it into the hash."""
        ir = self._gen.ir
        bounded = ir.op(f"and i64 {ir.opaque(index)}, {_MAX_FRAMES - 1}")
        where = ir.op(f"shl i64 {bounded}, 3")
        ir.store("i64", ip, ir.offset(ir.offset("%state", _FRAMES), where))
        self._put(_COUNT, ir.op(f"add i64 {index}, 1"))
        mixed = ir.op(f"xor i64 {self._get(_HASH)}, {ip}")
        mixed = ir.op(f"mul i64 {mixed}, -7046029254386353131")
        self._put(_HASH, ir.op(f"xor i64 {mixed}, {ir.op(f'lshr i64 {mixed}, 29')}"))

    def _table(self) -> str:
        """The array's value; the verifier wants to see it compared with NULL."""
        gen, ir = self._gen, self._gen.ir
        key = gen.alloc(4)
        ir.store("i32", "0", key)
        return gen.lookup(f"@{TABLE}", key)

    def _row(self, table: str, number: str) -> str:
        """A row by its number, which is known to be in bounds."""
        ir = self._gen.ir
        behind = ir.op(f"mul i64 {number}, {ROW.size}")
        return ir.offset(table, ir.op(f"add i64 {behind}, {FILES * _FILE.size}"))

    def _find_file(self) -> str:
        """A round of looking for the inode among the files; 1 ends it."""
        name = "unwind_file"

        def body() -> None:
            ir = self._gen.ir
            table = self._table()
            self._stop_if(ir.compare("eq", "ptr", table, "null"))
            index = ir.op(f"and i64 {ir.opaque(ir.resize('%index', 32, 64, False))}, {FILES - 1}")
            file = ir.offset(table, ir.op(f"mul i64 {index}, {_FILE.size}"))
            wanted = self._get(_INODE)
            with ir.if_(ir.compare("ne", "i64", ir.load("i64", file), wanted)):
                ir.ret("0")
            for behind, at in ((8, _FIRST), (12, _ROWS)):
                value = ir.load("i32", ir.offset(file, behind))
                self._put(at, ir.resize(value, 32, 64, False))
            ir.ret("1")

        self._in_function(name, "i32 %index, ptr %slot", body)
        return name

    def _find_row(self) -> str:
        """A round of the binary search for the last row that begins at or before the place."""
        name = "unwind_row"

        def body() -> None:
            ir = self._gen.ir
            left, first = self._get(_ROWS), self._get(_FIRST)
            self._stop_if(ir.compare("eq", "i64", left, "0"))
            half = ir.op(f"lshr i64 {left}, 1")
            middle = ir.opaque(ir.op(f"add i64 {first}, {half}"))
            self._stop_if(ir.compare("uge", "i64", middle, str(self._rows)))
            table = self._table()
            self._stop_if(ir.compare("eq", "ptr", table, "null"))
            begins = ir.resize(ir.load("i32", self._row(table, middle)), 32, 64, False)
            with ir.if_(ir.compare("ugt", "i64", begins, self._get(_PLACE))):
                self._put(_ROWS, half)
                ir.ret("0")
            following = ir.op(f"add i64 {middle}, 1")
            self._put(_FOUND, following)
            self._put(_FIRST, following)
            self._put(_ROWS, ir.op(f"sub i64 {ir.op(f'sub i64 {left}, {half}')}, 1"))
            ir.ret("0")

        self._in_function(name, "i32 %index, ptr %slot", body)
        return name

    def _to_caller(self, row: str) -> None:
        """Change the registers to the caller's; end where that can't be."""
        gen, ir = self._gen, self._gen.ir

        def number(behind: int) -> str:
            return ir.resize(ir.load("i32", ir.offset(row, behind)), 32, 64, True)

        cfa_kind = ir.resize(ir.load("i8", ir.offset(row, 12)), 8, 64, False)
        bp_kind = ir.resize(ir.load("i8", ir.offset(row, 13)), 8, 64, False)
        cfa_offset, bp_offset = number(4), number(8)
        sp, bp = self._get(_SP), self._get(_BP)
        low = ir.op(f"and i64 {self._get(_IP)}, 15")
        pushed = ir.op(f"zext i1 {ir.compare('uge', 'i64', low, '11')} to i64")
        in_plt = ir.op(f"add i64 {ir.op(f'shl i64 {pushed}, 3')}, 8")
        is_plt = ir.compare("eq", "i64", cfa_kind, str(IN_PLT))
        offset = ir.select(is_plt, "i64", in_plt, cfa_offset)
        is_bp = ir.compare("eq", "i64", cfa_kind, str(FROM_BP))
        known = ir.compare("uge", "i64", cfa_kind, str(FROM_SP))
        self._stop_if(ir.op(f"xor i1 {known}, true"))
        cfa = ir.op(f"add i64 {ir.select(is_bp, 'i64', bp, sp)}, {offset}")
        buffer = ir.offset("%state", _BUFFER)
        with ir.if_(ir.compare("eq", "i64", bp_kind, str(SAVED))):
            gen.read(buffer, 8, ir.op(f"add i64 {cfa}, {bp_offset}"), "user")
            self._put(_BP, ir.load("i64", buffer, volatile=True))
        failed = gen.read(buffer, 8, ir.op(f"sub i64 {cfa}, 8"), "user")
        self._stop_if(ir.compare("ne", "i64", failed, "0"))
        caller = ir.load("i64", buffer, volatile=True)
        self._stop_if(ir.compare("eq", "i64", caller, "0"))
        self._put(_IP, caller)
        self._put(_SP, cfa)


FUNCTIONS = (DwUstack,)
