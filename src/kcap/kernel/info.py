# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of loaded programs and links: how often they ran, what they missed.

``struct bpf_prog_info`` and ``struct bpf_link_info`` of include/uapi/linux/bpf.h. They only ever
grow at their end: fields that a kernel doesn't know stay 0.
"""

from __future__ import annotations

import errno
import os
from struct import pack, pack_into, unpack_from
from typing import TYPE_CHECKING, NamedTuple

from kcap.closing import Closing
from kcap.kernel import uapi
from kcap.kernel.errors import syscall_error
from kcap.kernel.syscall import Buffer, bpf

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAM_SIZE = 232
_LINK_SIZE = 64
_BTF_ID_AT = 128  # btf_id, func_info_rec_size, func_info, nr_func_info
_RUNS_AT = 192  # run_time_ns, run_cnt, recursion_misses (5.12)
_LINK_TYPE_PERF_EVENT = 7
_LINK_TYPE_KPROBE_MULTI = 8


class ProgramRuns(NamedTuple):
    """How a program has run.

    :param nanoseconds: time spent in it, while statistics were enabled.
    :param runs: how often it ran meanwhile.
    :param missed: how often it was not run because it was running on that CPU already (5.12).
    """

    nanoseconds: int
    runs: int
    missed: int


def program_runs(fd: int) -> ProgramRuns:
    """How the program behind a file descriptor has run.

    :raises SyscallError: the kernel doesn't tell.
    """
    info = _info(fd, _PROGRAM_SIZE, "a program")
    return ProgramRuns(*unpack_from("<QQQ", info, _RUNS_AT))


def link_missed(fd: int) -> int:
    """How many events a kprobe or kprobe_multi link missed (6.7); 0 where the kernel doesn't tell.

    :raises SyscallError: the descriptor is no link.
    """
    info = _info(fd, _LINK_SIZE, "a link")
    (kind,) = unpack_from("<I", info, 0)
    at = {_LINK_TYPE_KPROBE_MULTI: 32, _LINK_TYPE_PERF_EVENT: 48}.get(kind)
    missed: int = unpack_from("<Q", info, at)[0] if at is not None else 0
    return missed


def program_ids() -> Iterator[int]:
    """The ids of all loaded programs.

    :raises SyscallError: the kernel doesn't tell (CAP_SYS_ADMIN).
    """
    return object_ids(uapi.BPF_PROG_GET_NEXT_ID, "BPF programs")


def object_ids(command: int, what: str) -> Iterator[int]:
    """The ids of all objects of a kind, ascending.

    :param command: BPF_…_GET_NEXT_ID.
    :param what: what they are called, for the error.
    :raises SyscallError: the kernel doesn't tell (CAP_SYS_ADMIN).
    """
    current = 0
    while True:
        attr = Buffer(pack("<III", current, 0, 0))
        try:
            bpf(command, attr)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise syscall_error(f"list {what}", error) from error
        (current,) = unpack_from("<I", attr.view(), 4)
        yield current


def open_program(number: int) -> int:
    """A file descriptor of a loaded program, which the caller has to close.

    :param number: its id.
    :raises SyscallError: there is none (ENOENT), or not for this process.
    """
    try:
        return bpf(uapi.BPF_PROG_GET_FD_BY_ID, Buffer(pack("<III", number, 0, 0)))
    except OSError as error:
        raise syscall_error(f"open BPF program {number}", error) from error


def program_functions(fd: int) -> tuple[int, list[int]]:
    """(id of a program's BTF, ids in it of the program's functions); 0 and none without BTF.

    :raises SyscallError: the kernel doesn't tell.
    """
    info = _info(fd, _PROGRAM_SIZE, "a program")
    (btf_id,) = unpack_from("<I", info, _BTF_ID_AT)
    size, _, count = unpack_from("<IQI", info, _BTF_ID_AT + 4)
    if not btf_id or not count:
        return btf_id, []
    records = Buffer(size * count)
    asked = bytearray(_PROGRAM_SIZE)
    pack_into("<IQI", asked, _BTF_ID_AT + 4, size, records.address, count)
    _info(fd, _PROGRAM_SIZE, "a program's functions", bytes(asked))
    return btf_id, [unpack_from("<I", records.view(), size * n + 4)[0] for n in range(count)]


def _info(fd: int, size: int, what: str, asked: bytes = b"") -> bytes:
    info = Buffer(asked or bytes(size))
    try:
        bpf(uapi.BPF_OBJ_GET_INFO_BY_FD, Buffer(pack("<IIQ", fd, size, info.address)))
    except OSError as error:
        raise syscall_error(f"ask for what is known of {what}", error) from error
    return info.tobytes()


class Statistics(Closing):
    """While this context lasts, the kernel counts runs and run time of all programs (5.8).

    :raises SyscallError: it can't (CAP_SYS_ADMIN).
    """

    def __init__(self) -> None:
        try:
            self._fd = bpf(uapi.BPF_ENABLE_STATS, Buffer(pack("<I", 0)))  # BPF_STATS_RUN_TIME
        except OSError as error:
            raise syscall_error("enable statistics of BPF programs", error) from error

    def close(self) -> None:
        """Stop counting."""
        os.close(self._fd)
