# SPDX-License-Identifier: Apache-2.0
"""Have the running kernel's verifier refuse small programs, one a family of mistakes, and keep its
logs as test data.

usage (root; in a guest): verifier_logs.py DIRECTORY

    kcap vm run --kernel 6.1 --share tools --share tests/unit/diagnose/logs/6.1 -- \
        python3 tools/verifier_logs.py tests/unit/diagnose/logs/6.1

Writes DIRECTORY/NAME.log for each program that was refused, removes it for one that was taken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import pack

from kcap import btf as b
from kcap.kernel import uapi
from kcap.kernel.errors import SyscallError, VerifierError
from kcap.kernel.helpers import Helper
from kcap.kernel.maps import Map
from kcap.kernel.programs import Program
from kcap.kernel.spec import FunctionSpec, MapSpec, MapType, ProgramSpec, Relocation

LOG_LEVEL = {"too_many_instructions": 4}
"""Messages and figures only, no instructions, where these would be a million."""

LONGEST = 200
"""Lines of a log that are kept: the first and the last ones, half of these each."""


def insn(op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """One instruction."""
    return pack("<BBhi", op, src << 4 | dst, off, imm)


def mov(dst: int, imm: int) -> bytes:
    return insn(0xB7, dst, imm=imm)


def movr(dst: int, src: int) -> bytes:
    return insn(0xBF, dst, src)


def load(dst: int, src: int, off: int) -> bytes:
    return insn(0x79, dst, src, off)


def store(dst: int, off: int, src: int) -> bytes:
    return insn(0x7B, dst, src, off)


def add(dst: int, imm: int) -> bytes:
    return insn(0x07, dst, imm=imm)


def addr(dst: int, src: int) -> bytes:
    return insn(0x0F, dst, src)


def call(helper: int) -> bytes:
    return insn(0x85, imm=helper)


EXIT = insn(0x95)
END = mov(0, 0) + EXIT


@dataclass(frozen=True)
class Code:
    """Instructions, with the places where a map's descriptor goes."""

    data: bytes
    maps: tuple[tuple[int, str], ...] = ()

    def __add__(self, other: bytes | Code) -> Code:
        if isinstance(other, bytes):
            other = Code(other)
        at = len(self.data) // 8
        moved = tuple((at + index, name) for index, name in other.maps)
        return Code(self.data + other.data, self.maps + moved)


def the_map(dst: int, name: str) -> Code:
    """Load a map's address."""
    return Code(insn(0x18, dst) + insn(0), ((0, name),))


def start(data: bytes = b"") -> Code:
    return Code(data)


def lookup() -> Code:
    """r0 = the value of key 0 of the map ``values``, or NULL."""
    key = mov(1, 0) + store(10, -8, 1) + movr(2, 10) + add(2, -8)
    return start(key) + the_map(1, "values") + call(Helper.map_lookup_elem)


def output(skb: bytes) -> Code:
    """skb_output(r1 = skb, …) of 8 bytes of stack."""
    return (
        start(mov(0, 0) + store(10, -16, 0) + skb)
        + the_map(2, "ring")
        + mov(3, 0)
        + movr(4, 10)
        + add(4, -16)
        + mov(5, 8)
        + call(Helper.skb_output)
        + END
    )


KPROBE = (uapi.BPF_PROG_TYPE_KPROBE, 0, "")
FENTRY = (uapi.BPF_PROG_TYPE_TRACING, uapi.BPF_TRACE_FENTRY, "icmp_rcv")

SPILLED = (
    load(3, 1, 0) + store(10, -24, 3) + movr(1, 10) + add(1, -32) + mov(2, 8) + movr(3, 10)
    + add(3, -24) + call(Helper.probe_read_kernel) + load(1, 10, -32)
)  # fmt: skip
RANDOM = call(Helper.get_prandom_u32) + movr(6, 0)
NULL_CHECK = insn(0x55, 0, off=2) + END

RANDOM_WITH_CTX = movr(7, 1) + call(Helper.get_prandom_u32)

CASES: dict[str, tuple[tuple[int, int, str], Callable[[], Code]]] = {
    "helper_of_other_type": (KPROBE, lambda: start(call(Helper.skb_output) + END)),
    "helper_unknown": (KPROBE, lambda: start(call(9999) + END)),
    "helper_sleeps": (KPROBE, lambda: start(movr(1, 10) + add(1, -8) + mov(2, 8) + mov(3, 0)
                                            + call(Helper.copy_from_user) + END)),
    "helper_not_here": (FENTRY, lambda: start(load(1, 1, 0) + movr(2, 10) + add(2, -8) + mov(3, 8)
                                              + call(Helper.d_path) + END)),
    "skb_scalar": (FENTRY, lambda: output(SPILLED)),
    "skb_walked": (FENTRY, lambda: output(load(1, 1, 0) + load(1, 1, 0))),
    "skb_from_map": (FENTRY, lambda: lookup() + NULL_CHECK + movr(6, 0)
                     + output(load(1, 6, 0))),
    "skb_or_null": (FENTRY, lambda: lookup() + movr(6, 0) + output(movr(1, 6))),
    "stack_as_map": (KPROBE, lambda: start(movr(1, 10) + movr(2, 10) + add(2, -8)
                                           + call(Helper.map_lookup_elem) + END)),
    "no_null_check": (KPROBE, lambda: lookup() + load(1, 0, 0) + END),
    "scalar_dereferenced": (KPROBE, lambda: start(load(1, 1, 112) + load(2, 1, 0) + END)),
    "map_value_bounds": (KPROBE, lambda: lookup() + NULL_CHECK + load(1, 0, 8) + END),
    "map_value_unbounded": (KPROBE, lambda: start(RANDOM) + lookup() + NULL_CHECK + addr(0, 6)
                            + load(1, 0, 0) + END),
    "size_unbounded": (KPROBE, lambda: start(RANDOM + movr(1, 10) + add(1, -8) + movr(2, 6)
                                             + mov(3, 0) + call(Helper.probe_read_kernel) + END)),
    "size_negative": (KPROBE, lambda: start(movr(1, 10) + add(1, -8) + mov(2, -1) + mov(3, 0)
                                            + call(Helper.probe_read_kernel) + END)),
    "size_zero": (KPROBE, lambda: start(movr(1, 10) + add(1, -8) + mov(2, 0)
                                        + call(Helper.get_current_comm) + END)),
    "stack_bounds": (KPROBE, lambda: start(mov(1, 0) + store(10, -520, 1) + END)),
    "stack_of_calls": (KPROBE, lambda: start(mov(1, 0) + store(10, -400, 1)
                                             + insn(0x85, 0, 1, imm=1) + EXIT
                                             + mov(1, 0) + store(10, -400, 1) + END)),
    "stack_unwritten": (KPROBE, lambda: start(load(1, 10, -8) + END)),
    "register_unwritten": (KPROBE, lambda: start(movr(1, 7) + END)),
    "no_result": (KPROBE, lambda: start(EXIT)),
    "too_many_instructions": (KPROBE, lambda: start(mov(1, 0) + add(1, 1)
                                                    + insn(0xA5, 1, off=-2, imm=100_000_000)
                                                    + END)),
    "infinite_loop": (KPROBE, lambda: start(mov(0, 0) + insn(0x15, off=-1) + EXIT)),
    "unreachable": (KPROBE, lambda: start(mov(0, 0) + EXIT + mov(0, 1) + EXIT)),
    "context_bounds": (KPROBE, lambda: start(load(1, 1, 1000) + END)),
    "context_misaligned": (FENTRY, lambda: start(load(1, 1, 4) + END)),
    "too_many_arguments": (FENTRY, lambda: start(load(1, 1, 32) + END)),
    "not_a_pointer": ((*FENTRY[:2], "skb_put"), lambda: start(load(1, 1, 8) + load(2, 1, 0)
                                                              + END)),
    "struct_bounds": (FENTRY, lambda: start(load(1, 1, 0) + load(2, 1, 5000) + END)),
    "struct_written": (FENTRY, lambda: start(load(1, 1, 0) + mov(2, 1) + store(1, 0, 2) + END)),
    "pointer_arithmetic": (FENTRY, lambda: start(load(1, 1, 0) + insn(0x57, 1, imm=-8)
                                                 + END)),
    "context_arithmetic": (KPROBE, lambda: start(RANDOM_WITH_CTX + addr(7, 0) + load(1, 7, 0)
                                                 + END)),
    "kfunc_not_allowed": (FENTRY, lambda: start(insn(0x85, 0, 2, imm=function_id("vfs_read"))
                                                + END)),
    "kfunc_unknown": (FENTRY, lambda: start(insn(0x85, 0, 2, imm=0x7FFFFFF) + END)),
    "no_target": ((*FENTRY[:2], ""), lambda: start(END)),
    "target_is_no_function": ((*FENTRY[:2], "struct sk_buff"), lambda: start(END)),
    "target_not_traceable": ((*FENTRY[:2], "__bpf_prog_enter"), lambda: start(END)),
    "gpl_only": (KPROBE, lambda: start(mov(1, 0) + call(Helper.ktime_get_ns) + movr(3, 10)
                                       + movr(1, 10) + add(1, -8) + mov(2, 8)
                                       + call(Helper.probe_read_kernel) + END)),
    "jump_outside": (KPROBE, lambda: start(mov(0, 0) + insn(0x05, off=7) + EXIT)),
    "no_exit": (KPROBE, lambda: start(mov(0, 0) + mov(1, 0))),
}  # fmt: skip


def function_id(name: str) -> int:
    """The BTF id of a function or (``struct x``) type of the kernel; 0 for ''."""
    if not name:
        return 0
    btf = b.Btf.kernel()
    if name.startswith("struct "):
        return btf.get(name[7:], b.Struct).id
    found = btf.find(name, b.Func)
    return found.id if found is not None else 0


def spec_of(name: str) -> ProgramSpec:
    """The program of a case."""
    (kind, attach, target), make = CASES[name]
    code = make()
    functions: tuple[FunctionSpec, ...] = ()
    if name == "stack_of_calls":
        functions = (FunctionSpec(name, 0), FunctionSpec("callee", 4))
    return ProgramSpec(
        name,
        kind,
        code.data,
        expected_attach_type=attach,
        relocations=tuple(Relocation(at, "map", symbol) for at, symbol in code.maps),
        functions=functions,
        attach_btf_id=function_id(target),
        license="Proprietary" if name == "gpl_only" else "GPL",
    )


def logs() -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, log) of each program; the log is empty if it was taken."""
    maps = {
        "values": Map.create(MapSpec("values", MapType.ARRAY, 4, 8, 1)),
        "ring": Map.create(MapSpec("ring", MapType.PERF_EVENT_ARRAY, 4, 4, 0)),
    }
    for name in CASES:
        try:
            Program.load(spec_of(name), maps, LOG_LEVEL.get(name, 0)).close()
        except VerifierError as error:
            yield name, error.log
        except SyscallError as error:
            yield name, (f"errno {error.errno}: {error}",)
        else:
            yield name, ()


def shortened(log: tuple[str, ...]) -> tuple[str, ...]:
    """A log without its middle, if it is long."""
    if len(log) <= LONGEST:
        return log
    half = LONGEST // 2
    return (*log[:half], f"[{len(log) - LONGEST} lines left out]", *log[-half:])


def main(directory: Path) -> int:
    """Write the logs."""
    for name, log in logs():
        path = directory / f"{name}.log"
        if log:
            path.write_text("\n".join(shortened(log)) + "\n", "utf-8")
        else:
            path.unlink(missing_ok=True)
        print(f"{name}: {'refused' if log else 'taken'}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
