# SPDX-License-Identifier: Apache-2.0
"""A BPF virtual machine for tests: runs a program on a picture of memory, with no kernel.

It knows the instructions of BPF v3 (RFC 9669), callbacks, and the helpers that most programs use.
What the kernel's verifier refuses, it may run; what it runs, it runs alike.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

from kcap.kernel.helpers import Helper
from kcap.kernel.spec import MapSpec, MapType, ProgramSpec

MASK = (1 << 64) - 1
KERNEL = 0xFFFF_8000_0000_0000
STACK_TOP = 0x7000_0000_0000
CONTEXT = 0x7100_0000_0000
VALUES = 0x7200_0000_0000
MAPS = 0x7300_0000_0000
RING = 0x7400_0000_0000
ELEMENTS = 0x7500_0000_0000
FUNCTIONS = 0x7600_0000_0000
FRAME = 512
EFAULT = -14 & MASK

_SIZES = {0: 4, 1: 2, 2: 1, 3: 8}


def signed(value: int, bits: int = 64) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


class Memory:
    """Regions of bytes at addresses."""

    def __init__(self) -> None:
        self._regions: list[tuple[int, bytearray]] = []

    def add(self, address: int, data: bytes) -> int:
        self._regions.append((address, bytearray(data)))
        return address

    def find(self, address: int, size: int) -> tuple[bytearray, int] | None:
        for start, data in self._regions:
            if start <= address and address + size <= start + len(data):
                return data, address - start
        return None

    def read(self, address: int, size: int) -> bytes | None:
        found = self.find(address, size)
        return None if found is None else bytes(found[0][found[1] : found[1] + size])

    def write(self, address: int, data: bytes) -> None:
        found = self.find(address, len(data))
        assert found is not None, f"write of {len(data)} bytes at {address:#x}"
        found[0][found[1] : found[1] + len(data)] = data


class Machine:
    """One run's state.

    :param program: what to run.
    :param maps: the program's maps; arrays have their values in memory, zeroed.
    :param memory: what kernel addresses hold; a load from elsewhere there gives 0, as PROBE_MEM's.
    """

    def __init__(self, program: ProgramSpec, maps: Sequence[MapSpec], memory: Memory) -> None:
        self.memory = memory
        self._maps = {spec.name: MAPS + number * 64 for number, spec in enumerate(maps)}
        self.values = {spec.name: VALUES + number * 0x10000 for number, spec in enumerate(maps)}
        for spec in maps:
            memory.add(self.values[spec.name], bytes(spec.value_size))
        self.load(program)
        self._specs = {self._maps[spec.name]: spec for spec in maps}
        #: Map address -> key -> address of the value, for maps that are no arrays.
        self.elements: dict[int, dict[bytes, int]] = {at: {} for at in self._specs}
        self._next_element = ELEMENTS
        #: Address -> size of what is reserved in the ring; finished records.
        self._reserved: dict[int, int] = {}
        self.records: list[bytes] = []
        self._stack = STACK_TOP
        self._helpers: Mapping[int, Callable[..., int]] = {
            Helper.map_lookup_elem: self._lookup,
            Helper.map_update_elem: self._update,
            Helper.map_delete_elem: self._delete,
            Helper.for_each_map_elem: self._for_each,
            Helper.loop: self._loop,
            Helper.ringbuf_reserve: self._reserve,
            Helper.ringbuf_submit: self._submit,
            Helper.probe_read_kernel_str: self._probe_read_string,
            Helper.get_current_uid_gid: lambda *_: self.uid | self.gid << 32,
            Helper.probe_read_kernel: self._probe_read,
            Helper.probe_read_user: self._probe_read,
            Helper.probe_read_user_str: self._probe_read_string,
            Helper.ktime_get_ns: lambda *_: self.mono_ns,
            Helper.ktime_get_boot_ns: lambda *_: self.mono_ns,
            Helper.get_numa_node_id: lambda *_: 0,
            Helper.get_prandom_u32: lambda *_: 4,
            Helper.get_current_task: lambda *_: KERNEL,
            Helper.map_lookup_percpu_elem: lambda map_, key, cpu, *_: (
                self._lookup(map_, key) if cpu == self.cpu else 0
            ),
            Helper.get_smp_processor_id: lambda *_: self.cpu,
            Helper.get_current_pid_tgid: lambda *_: self.pid << 32 | self.tid,
            Helper.get_current_comm: self._comm,
            Helper.skb_output: self._skb_output,
            Helper.perf_event_output: self._perf_event_output,
        }
        self.mono_ns, self.cpu, self.pid, self.tid, self.comm = 0, 0, 0, 0, b""
        self.uid = self.gid = 0
        #: skb address -> (skb->len, the bytes from skb->data on).
        self.skbs: dict[int, tuple[int, bytes]] = {}
        #: What bpf_skb_output and bpf_perf_event_output sent.
        self.samples: list[bytes] = []
        self.full = False

    def load(self, program: ProgramSpec) -> None:
        """Take another program, which has the same maps."""
        self._insns = [
            struct.unpack_from("<BBhi", program.insns, at) for at in range(0, len(program.insns), 8)
        ]
        self._relocated = {
            each.insn: self.values[each.symbol] + each.addend
            if each.kind == "map_value"
            else self._maps[each.symbol]
            for each in program.relocations
        }

    def by_spec(self, maps: Sequence[MapSpec]) -> list[tuple[MapSpec, int]]:
        """The maps with their addresses."""
        return [(spec, self._maps[spec.name]) for spec in maps]

    def element(self, name: str, key: bytes) -> bytes:
        """An array's element; zeros if nobody has looked at it."""
        spec = self._specs[self._maps[name]]
        only = self._array(spec) and spec.max_entries == 1
        address = self.values[name] if only else self.elements[self._maps[name]].get(key, 0)
        return self.memory.read(address, spec.value_size) or bytes(spec.value_size)

    def again(self) -> int:
        """Run once more, in the same memory."""
        return self._call(0, CONTEXT)

    def run(self, *slots: int) -> int:
        """Run with these 8-byte context slots; the program's result."""
        self.memory.add(CONTEXT, struct.pack(f"<{len(slots)}Q", *slots))
        self.memory.add(STACK_TOP - 8 * FRAME, b"\xa5" * 8 * FRAME)
        return self._call(0, CONTEXT)

    def _call(self, at: int, *arguments: int) -> int:
        """Run a function of the program, with a stack frame of its own; its result."""
        regs = [0, *arguments, *[0] * (10 - len(arguments))]
        regs[10] = self._stack
        self._stack -= FRAME
        try:
            return self._execute(at, regs)
        finally:
            self._stack += FRAME

    def _execute(self, at: int, regs: list[int]) -> int:
        while True:
            op, registers, offset, imm = self._insns[at]
            dst, src = registers & 15, registers >> 4
            kind = op & 7
            if op == 0x95:
                return regs[0]
            if op == 0x85:
                regs[0] = self._called(at, src, imm, regs)
                for scratch in range(1, 6):
                    regs[scratch] = 0xDEAD_BEEF_DEAD_BEEF
            elif op == 0x18:
                high = self._insns[at + 1][3]
                constant = (high << 32 | imm & 0xFFFFFFFF) & MASK
                if src == 4:  # BPF_PSEUDO_FUNC
                    constant = FUNCTIONS + at + 1 + imm
                regs[dst] = self._relocated.get(at, constant)
                at += 1
            elif kind in (4, 7):
                value = regs[src] if op & 8 else imm & MASK
                regs[dst] = _alu(op, regs[dst], value, imm, 64 if kind == 7 else 32)
            elif kind in (5, 6):
                value = regs[src] if op & 8 else imm & MASK
                if _taken(op, regs[dst], value, 64 if kind == 5 else 32):
                    at += offset
            else:
                self._memory_access(op, regs, dst, src, offset, imm)
            at += 1

    def _called(self, at: int, kind: int, number: int, regs: list[int]) -> int:
        if kind == 1:  # BPF_PSEUDO_CALL: a function of the program
            return self._call(at + 1 + number, *regs[1:6])
        return self._helpers[number](*regs[1:6]) & MASK

    def _memory_access(
        self, op: int, regs: list[int], dst: int, src: int, offset: int, imm: int
    ) -> None:
        size = _SIZES[op >> 3 & 3]
        if op & 7 == 1:
            address = (regs[src] + offset) & MASK
            data = self.memory.read(address, size)
            if data is None:
                assert address >= KERNEL or address < 65536, f"load from {address:#x}"
                data = bytes(size)
            regs[dst] = int.from_bytes(data, "little")
            return
        address = (regs[dst] + offset) & MASK
        value = regs[src] if op & 7 == 3 else imm
        if op >> 5 == 6:
            assert imm & ~1 == 0, "the only atomic known here is an addition"
            value += int.from_bytes(self.memory.read(address, size) or b"", "little")
        self.memory.write(address, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def _array(self, spec: MapSpec) -> bool:
        return spec.type in (MapType.ARRAY, MapType.PERCPU_ARRAY)

    def _key(self, spec: MapSpec, key: int) -> bytes:
        data = self.memory.read(key, spec.key_size)
        assert data is not None, f"a key of {spec.name} that is not in memory"
        return data

    def _lookup(self, map_: int, key: int, *_: int) -> int:
        spec = self._specs[map_]
        if self._array(spec) and spec.max_entries == 1:
            return self.values[spec.name]
        return self.elements[map_].get(self._key(spec, key)) or self._first(spec, map_, key)

    def _first(self, spec: MapSpec, map_: int, key: int) -> int:
        """An array's element comes into being when it is first looked at; a hash has none."""
        if not self._array(spec):
            return 0
        data = self._key(spec, key)
        if int.from_bytes(data, "little") >= spec.max_entries:
            return 0
        return self._element(map_, data, bytes(spec.value_size))

    def _element(self, map_: int, key: bytes, value: bytes) -> int:
        address = self.memory.add(self._next_element, value)
        self._next_element += len(value) + 16
        self.elements[map_][key] = address
        return address

    def _update(self, map_: int, key: int, value: int, _flags: int, *_: int) -> int:
        spec = self._specs[map_]
        data = self.memory.read(value, spec.value_size)
        assert data is not None
        found = self.elements[map_].get(self._key(spec, key))
        if found is not None:
            self.memory.write(found, data)
        elif len(self.elements[map_]) >= spec.max_entries:
            return -7  # E2BIG
        else:
            self._element(map_, self._key(spec, key), data)
        return 0

    def _delete(self, map_: int, key: int, *_: int) -> int:
        found = self.elements[map_].pop(self._key(self._specs[map_], key), None)
        return -2 if found is None else 0

    def _for_each(self, map_: int, function: int, context: int, _flags: int, *_: int) -> int:
        for count, (key, value) in enumerate(list(self.elements[map_].items())):
            at = self.memory.add(self._next_element, key)
            self._next_element += len(key) + 16
            if self._call(function - FUNCTIONS, map_, at, value, context):
                return count + 1
        return len(self.elements[map_])

    def _loop(self, rounds: int, function: int, context: int, _flags: int, *_: int) -> int:
        for index in range(rounds & 0xFFFFFFFF):
            if self._call(function - FUNCTIONS, index, context):
                return index + 1
        return rounds

    def _reserve(self, _ring: int, size: int, _flags: int, *_: int) -> int:
        if self.full:
            return 0
        address = RING + 0x1000 * (len(self.records) + len(self._reserved))
        self._reserved[address] = size
        return self.memory.add(address, b"\xa5" * size)

    def _submit(self, record: int, _flags: int, *_: int) -> int:
        data = self.memory.read(record, self._reserved.pop(record))
        assert data is not None
        self.records.append(data)
        return 0

    def _readable(self, source: int, size: int) -> bytes | None:
        return self.memory.read(source, size & 0xFFFFFFFF)

    def _probe_read(self, dest: int, size: int, source: int, *_: int) -> int:
        data = self._readable(source, size)
        self.memory.write(dest, bytes(size & 0xFFFFFFFF) if data is None else data)
        return EFAULT if data is None else 0

    def _probe_read_string(self, dest: int, size: int, source: int, *_: int) -> int:
        text = bytearray()
        while len(text) < (size & 0xFFFFFFFF) - 1:
            byte = self._readable(source + len(text), 1)
            if byte is None:
                return EFAULT
            if byte == b"\0":
                break
            text += byte
        self.memory.write(dest, bytes(text) + b"\0")
        return len(text) + 1

    def _comm(self, dest: int, size: int, *_: int) -> int:
        self.memory.write(dest, self.comm.ljust(size, b"\0"))
        return 0

    def _skb_output(self, skb: int, _map: int, flags: int, meta: int, size: int) -> int:
        length, data = self.skbs[skb]
        wanted = flags >> 32
        assert flags & 0xFFFFFFFF == 0xFFFFFFFF, "not BPF_F_CURRENT_CPU"
        if wanted > length:
            return EFAULT
        if self.full:
            return -28 & MASK
        metadata = self.memory.read(meta, size)
        assert metadata is not None
        whole = metadata + data[:wanted]
        assert len(whole) <= 65516
        self.samples.append(whole + bytes(-(len(whole) + 4) % 8))
        return 0

    def _perf_event_output(self, ctx: int, _map: int, flags: int, data: int, size: int) -> int:
        assert ctx == CONTEXT
        assert flags == 0xFFFFFFFF, "not BPF_F_CURRENT_CPU"
        if self.full:
            return -28 & MASK
        sample = self.memory.read(data, size)
        assert sample is not None
        self.samples.append(sample + bytes(-(size + 4) % 8))
        return 0


def _alu(op: int, left: int, right: int, imm: int, bits: int) -> int:
    mask = (1 << bits) - 1
    code = op >> 4
    if code == 13:  # byte order: the width is in imm
        value = (left & (1 << imm) - 1).to_bytes(imm // 8, "little")
        return int.from_bytes(value, "big" if op & 8 else "little")
    left, right = left & mask, right & mask
    shift = right & (bits - 1)
    results: dict[int, Callable[[], int]] = {
        0: lambda: left + right,
        1: lambda: left - right,
        2: lambda: left * right,
        3: lambda: left // right if right else 0,
        4: lambda: left | right,
        5: lambda: left & right,
        6: lambda: left << shift,
        7: lambda: left >> shift,
        8: lambda: -left,
        9: lambda: left % right if right else left,
        10: lambda: left ^ right,
        11: lambda: right,
        12: lambda: signed(left, bits) >> shift,
    }
    return results[code]() & mask


def _taken(op: int, left: int, right: int, bits: int) -> bool:
    mask = (1 << bits) - 1
    left, right = left & mask, right & mask
    a, b = signed(left, bits), signed(right, bits)
    return {
        0: True,
        1: left == right,
        2: left > right,
        3: left >= right,
        4: left & right != 0,
        5: left != right,
        6: a > b,
        7: a >= b,
        10: left < right,
        11: left <= right,
        12: a < b,
        13: a <= b,
    }[op >> 4]
