# SPDX-License-Identifier: Apache-2.0
"""What to load: descriptions of maps and programs, without touching the kernel.

The code generator produces a CollectionSpec; ``kcap.kernel.collection`` loads one.
"""

from __future__ import annotations

from typing import Final

from kcap.kernel import uapi
from kcap.records import dataclass, field


class MapType:
    """enum bpf_map_type, of what kcap uses."""

    HASH: Final = uapi.BPF_MAP_TYPE_HASH
    ARRAY: Final = uapi.BPF_MAP_TYPE_ARRAY
    PERF_EVENT_ARRAY: Final = uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY
    PERCPU_HASH: Final = uapi.BPF_MAP_TYPE_PERCPU_HASH
    PERCPU_ARRAY: Final = uapi.BPF_MAP_TYPE_PERCPU_ARRAY
    STACK_TRACE: Final = uapi.BPF_MAP_TYPE_STACK_TRACE
    LRU_HASH: Final = uapi.BPF_MAP_TYPE_LRU_HASH
    LRU_PERCPU_HASH: Final = uapi.BPF_MAP_TYPE_LRU_PERCPU_HASH
    CGROUP_ARRAY: Final = uapi.BPF_MAP_TYPE_CGROUP_ARRAY
    RINGBUF: Final = uapi.BPF_MAP_TYPE_RINGBUF
    TASK_STORAGE: Final = uapi.BPF_MAP_TYPE_TASK_STORAGE


class ProgramType:
    """enum bpf_prog_type, of what kcap uses."""

    SOCKET_FILTER: Final = uapi.BPF_PROG_TYPE_SOCKET_FILTER
    KPROBE: Final = uapi.BPF_PROG_TYPE_KPROBE
    TRACEPOINT: Final = uapi.BPF_PROG_TYPE_TRACEPOINT
    PERF_EVENT: Final = uapi.BPF_PROG_TYPE_PERF_EVENT
    RAW_TRACEPOINT: Final = uapi.BPF_PROG_TYPE_RAW_TRACEPOINT
    TRACING: Final = uapi.BPF_PROG_TYPE_TRACING
    SYSCALL: Final = uapi.BPF_PROG_TYPE_SYSCALL


@dataclass(slots=True, frozen=True)
class MapSpec:
    """A map to create.

    :param name: how relocations refer to it; the kernel keeps the first 15 characters.
    :param type: BPF_MAP_TYPE_*.
    :param key_size: bytes (0 for rings).
    :param value_size: bytes of one value (of one CPU's value in a per-CPU map).
    :param max_entries: entries; bytes for a ring buffer (a power of two times the page size); 0
        for a perf event array means as many as there are possible CPUs.
    :param flags: BPF_F_* flags of BPF_MAP_CREATE.
    :param contents: the values of an array, one behind the other, written after creation, or None.
    :param freeze: no more writing from user space after that (BPF_MAP_FREEZE), so that the
        verifier may take read-only values for constants.
    """

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    contents: bytes | None = None
    freeze: bool = False


@dataclass(slots=True, frozen=True)
class Relocation:
    """A place in a program that has to be filled in at loading.

    :param insn: index of the instruction (in units of 8 bytes; a 64-bit load counts as two).
    :param kind: ``map`` (a map's file descriptor), ``map_value`` (the address of an array's
        first value), ``kfunc`` (a call of a function of the kernel) or ``func`` (a function of the
        same program, already resolved by the linker in ``kcap.kernel.object``; kept for those who
        build a ProgramSpec by hand).
    :param symbol: the map's or function's name.
    :param addend: for ``map_value``, bytes behind the start of the value.
    """

    insn: int
    kind: str
    symbol: str
    addend: int = 0


@dataclass(slots=True, frozen=True)
class FunctionSpec:
    """A function of a program.

    :param name: its symbol.
    :param insn: index of its first instruction in the program.
    """

    name: str
    insn: int


@dataclass(slots=True, frozen=True)
class LineSpec:
    """Where in a source an instruction comes from, for the verifier's log.

    :param insn: index of the instruction; it counts up to the next one that has a line.
    :param file: what the source is called.
    :param text: the line.
    :param line: its number, from 1.
    :param column: from 1.
    """

    insn: int
    file: str
    text: str
    line: int
    column: int


@dataclass(slots=True, frozen=True)
class ProgramSpec:
    """A program to load.

    :param name: for messages; the kernel keeps the first 15 characters of it.
    :param type: BPF_PROG_TYPE_*.
    :param insns: the instructions (``struct bpf_insn``, 8 bytes each): the program itself, then
        the functions it calls.
    :param expected_attach_type: BPF_TRACE_FENTRY and so on; 0 where the type has none.
    :param relocations: what loading has to fill in.
    :param functions: all functions in ``insns``, the program itself first, by whose name the kernel
        lists it; loading then supplies BTF function information. Empty for a single nameless one.
    :param attach_btf_id: id of the function or typedef a TRACING program attaches to.
    :param attach_btf_module: the module whose BTF that id is from; empty for the kernel itself.
    :param attach_program: id of the program whose BTF ``attach_btf_id`` is from, which is then
        traced itself; 0 for the kernel's functions.
    :param license: some helpers need a GPL-compatible one.
    :param flags: BPF_F_SLEEPABLE and so on.
    :param lines: where instructions come from, ascending; the verifier then names lines in its log.
    :param constants: (symbol, number) for relocations that name no map but a number; of a
        ``kfunc`` the function's id in the kernel's BTF.
    """

    name: str
    type: int
    insns: bytes
    expected_attach_type: int = 0
    relocations: tuple[Relocation, ...] = ()
    functions: tuple[FunctionSpec, ...] = ()
    attach_btf_id: int = 0
    attach_btf_module: str = ""
    license: str = "GPL"
    flags: int = 0
    lines: tuple[LineSpec, ...] = ()
    constants: tuple[tuple[str, int], ...] = ()
    attach_program: int = 0


@dataclass(slots=True, frozen=True)
class CollectionSpec:
    """Maps and the programs that share them; names are unique."""

    maps: tuple[MapSpec, ...] = ()
    programs: tuple[ProgramSpec, ...] = ()
    data: tuple[MapSpec, ...] = field(default=())
    """Arrays of one value that hold the object's data sections (.rodata, .data, .bss)."""
