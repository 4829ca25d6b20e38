# SPDX-License-Identifier: Apache-2.0
"""What all programs of one script share while they are generated: maps, event sites, counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.kernel import cpus, uapi
from kcap.kernel.spec import MapSpec
from kcap.records import dataclass

if TYPE_CHECKING:
    from kcap.codegen.ir import Operand
    from kcap.codegen.lines import SourceLines
    from kcap.codegen.site import Site
    from kcap.sema.config import Config

EVENTS = "kcap_events"
SCRATCH = "kcap_scratch"
DEPTH = "kcap_depth"
#: The loss counters, each a u64: one value that programs address directly (BPF_PSEUDO_MAP_VALUE,
#: 5.2), without a look-up.
LOST = "kcap_lost"
#: Whether ``exit()`` was called, a u64; likewise.
EXITED = "kcap_exited"
#: The number of the target that a program was loaded for; see :meth:`ModuleBuilder.constant`.
TARGET_INDEX = "kcap_target_index"
#: The address of the function that a program was loaded for.
TARGET_ADDRESS = "kcap_target_address"
#: Of the moment of loading: CLOCK_BOOTTIME, and CLOCK_TAI minus CLOCK_MONOTONIC, nanoseconds.
START_TIME, TAI_OFFSET = "kcap_start_time", "kcap_tai_offset"
#: Maps that every loaded program gets for itself (see :mod:`kcap.codegen.scratch`).
OWN_MAPS = (SCRATCH, DEPTH)
PAGE = 4096
#: Tells the compiler to leave basic blocks in their order. Up to 5.16 (which have no bpf_loop) the
#: verifier takes the way back of a loop only if it is a jump, not if a block falls through to it.
KEEP_BLOCK_ORDER = "!kcap.keep_block_order = !{}"
#: Tells the compiler to use whole registers only, none of 32 bits.
NO_SUBREGISTERS = "!kcap.no_subregisters = !{}"
#: How deep programs can interrupt each other: task, softirq, interrupt, NMI.
LEVELS = 4
#: The largest value of a per-CPU map: PCPU_MIN_UNIT_SIZE (include/linux/percpu.h).
PERCPU_LIMIT = 32 << 10
#: Pages of the event ring (shared by all CPUs) unless perf_rb_pages says otherwise.
DEFAULT_RING_PAGES = 1024


@dataclass(frozen=True, slots=True)
class LostCounter:
    """What one slot of the counter map counts.

    :param kind: 'event' (a full ring), 'packet' (a capture that the ring had no room for), 'map'
        (an update that the map refused) or 'filter' (a packet that could not be judged).
    :param subject: the probe's or the map's name.
    :param site: what in particular, where that matters: the skboutput() call.
    """

    kind: str
    subject: str
    site: object = None


@dataclass(frozen=True, slots=True)
class Features:
    """What the kernel that the programs are for can do; probed, not inferred from versions.

    :param loop: bpf_loop (5.17).
    :param for_each: bpf_for_each_map_elem (5.13).
    :param subregisters: programs of 32-bit registers are as easy to verify as others (6.12).
    :param recursion_guard: the kernel never runs a program of this script's types while the same
        program is under way on the CPU (fentry and fexit: 5.12, raw tracepoints: 6.1).
    :param kprobe_session: the id in the kernel's BTF of the function that kprobe sessions (6.10)
        call, if the script has use for them; 0: none are made (:mod:`kcap.codegen.sessions`).
    :param pid_namespace: that of kcap as :func:`kcap.kernel.pidns.own` tells it; None for the
        initial one.
    """

    loop: bool = True
    for_each: bool = True
    subregisters: bool = True
    recursion_guard: bool = True
    func_ip: bool = True
    kprobe_session: int = 0
    pid_namespace: tuple[int, int] | None = None


class ModuleBuilder:
    """Collects the functions, maps, sites and counters of a script's programs.

    :param pid: only events of this process count (``-p``), or None.
    :param helper_errors: report helpers that fail (``-k``).
    :ivar scratch_by_cpu: scratch memory is too large for a per-CPU array: it is a plain array with
        an element for each CPU.
    :param lines: collects where instructions come from, or None.
    """

    def __init__(
        self,
        config: Config,
        features: Features,
        pid: int | None = None,
        *,
        helper_errors: bool = False,
        lines: SourceLines | None = None,
    ) -> None:
        self.lines = lines
        self.config = config
        self.pid = pid
        self.helper_errors = helper_errors
        self.features = features
        self.functions: list[str] = []
        self.maps: dict[str, MapSpec] = {}
        self.sites: list[Site] = []
        self._numbers: dict[int, int] = {}
        self.collected: dict[str, list[object]] = {}
        self.lost: dict[LostCounter, int] = {}
        pages = config.perf_rb_pages or DEFAULT_RING_PAGES
        self.ring_size = PAGE << (pages - 1).bit_length()
        self.scratch_size = 0
        self.scratch_by_cpu = False
        self._constants: dict[str, None] = {}
        self._kernel_functions: dict[str, None] = {}
        self._callbacks = 0
        self._exits = False

    def map(self, spec: MapSpec) -> Operand:
        """Declare a map, once by name; the operand that helpers take for it."""
        self.maps.setdefault(spec.name, spec)
        return f"@{spec.name}"

    def constant(self, name: str) -> Operand:
        """Declare a number that loading puts in (``ProgramSpec.constants``); the operand whose
        address it is."""
        self._constants[name] = None
        return f"@{name}"

    def kernel_function(self, name: str, result: str, arguments: str) -> None:
        """Declare a function of the kernel that programs call.

        :param result: its LLVM type.
        :param arguments: theirs, separated by commas.
        """
        self._kernel_functions[f"declare {result} @{name}({arguments})"] = None

    def site(self, site: Site) -> int:
        """The number of an event site; the same object has one number."""
        number = self._numbers.setdefault(id(site), len(self.sites))
        if number == len(self.sites):
            self.sites.append(site)
        return number

    def collect(self, kind: str, item: object) -> int:
        """Note something that user space needs, under a name; its number among its kind."""
        items = self.collected.setdefault(kind, [])
        if item not in items:
            items.append(item)
        return items.index(item)

    def lost_counter(self, counter: LostCounter) -> Operand:
        """A pointer to the u64 of a loss counter."""
        slot = self.lost.setdefault(counter, len(self.lost))
        return f"getelementptr (i8, ptr @lost, i64 {8 * slot})"

    def exited(self) -> Operand:
        """A pointer to the u64 that is not 0 once ``exit()`` was called."""
        self._exits = True
        return "@exited"

    def callback_name(self) -> str:
        """A symbol for the next callback."""
        self._callbacks += 1
        return f"callback_{self._callbacks}"

    def finish(self) -> None:
        """Declare the maps whose size is known only now."""
        if self.scratch_size:
            kind = uapi.BPF_MAP_TYPE_PERCPU_ARRAY
            levels = 1 if self.features.recursion_guard else LEVELS
            if self.scratch_by_cpu:
                entries = levels * (max(cpus.possible()) + 1)
                array = uapi.BPF_MAP_TYPE_ARRAY
                self.map(MapSpec(SCRATCH, array, 4, self.scratch_size, entries))
            else:
                self.map(MapSpec(SCRATCH, kind, 4, self.scratch_size, levels))
            if levels > 1:
                self.map(MapSpec(DEPTH, kind, 4, 8, 1))
        for name, (_, size) in self._values().items():
            self.map(MapSpec(name, uapi.BPF_MAP_TYPE_ARRAY, 4, size, 1))

    def _values(self) -> dict[str, tuple[str, int]]:
        """Maps of one value that programs address directly: its symbol, and its bytes."""
        found = {LOST: ("lost", 8 * len(self.lost)), EXITED: ("exited", 8 * self._exits)}
        return {name: (symbol, size) for name, (symbol, size) in found.items() if size}

    def text(self) -> str:
        """The LLVM module."""
        symbols = (*self.maps, *self._constants)
        maps = [f'@{name} = external global i8, section ".maps"' for name in symbols]
        for name, (symbol, size) in self._values().items():
            maps[[*self.maps].index(name)] = (
                f'@{symbol} = global [{size} x i8] zeroinitializer, section "{name}", align 8'
            )
        return "\n".join(
            [
                'target triple = "bpfel"',
                'target datalayout = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"',
                *([] if self.features.loop else [KEEP_BLOCK_ORDER]),
                *([] if self.features.subregisters else [NO_SUBREGISTERS]),
                *maps,
                *self._kernel_functions,
                *self.functions,
                "declare void @llvm.memset.inline.p0.i64(ptr, i8, i64, i1)",
                "declare void @llvm.memcpy.inline.p0.p0.i64(ptr, ptr, i64, i1)",
                "declare i16 @llvm.bswap.i16(i16)",
                "declare i32 @llvm.bswap.i32(i32)",
                "declare i64 @llvm.bswap.i64(i64)",
                "attributes #0 = { nounwind }",
                self.lines.metadata() if self.lines is not None else "",
                "",
            ]
        )
