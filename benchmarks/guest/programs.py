# SPDX-License-Identifier: Apache-2.0
"""The BPF programs that are loaded now, whoever owns them: their size, what running them took."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kcap.kernel.syscall import Buffer, bpf

_GET_FD_BY_ID, _GET_NEXT_ID, _GET_INFO = 13, 11, 15
_STATISTICS = "/proc/sys/kernel/bpf_stats_enabled"
# struct bpf_prog_info: type, id, tag[8], jited_prog_len, xlated_prog_len; … run_time_ns at 192,
# attach_btf_id at 224
_INFO_SIZE = 232
_RUN_TIME, _ATTACH_BTF_ID = 192, 224


class LoadedProgram(NamedTuple):
    """A program in the kernel.

    :ivar type: BPF_PROG_TYPE_*.
    :ivar function: BTF id of the function that it is loaded for (fentry; told since 5.18), or 0.
    :ivar xlated: instructions after the verifier rewrote them.
    :ivar native: bytes of machine code.
    :ivar time: nanoseconds of all its runs, while statistics were on.
    :ivar runs: how many these were.
    """

    number: int
    name: str
    type: int
    function: int
    xlated: int
    native: int
    time: int
    runs: int


def loaded() -> dict[int, LoadedProgram]:
    """All programs, by id."""
    found = {}
    for number in _ids():
        with contextlib.suppress(FileNotFoundError):  # unloaded meanwhile
            fd = bpf(_GET_FD_BY_ID, Buffer(struct.pack("<III", number, 0, 0)))
            try:
                found[number] = _info(fd)
            finally:
                os.close(fd)
    return found


@contextlib.contextmanager
def statistics() -> Iterator[None]:
    """Let the kernel measure how long programs run (kernel.bpf_stats_enabled, 5.1)."""
    with open(_STATISTICS, "w", encoding="ascii") as file:
        file.write("1")
    try:
        yield
    finally:
        with open(_STATISTICS, "w", encoding="ascii") as file:
            file.write("0")


def _ids() -> Iterator[int]:
    number = 0
    while True:
        attr = Buffer(struct.pack("<III", number, 0, 0))
        try:
            bpf(_GET_NEXT_ID, attr)
        except FileNotFoundError:
            return
        number = struct.unpack_from("<II", attr.tobytes())[1]
        yield number


def _info(fd: int) -> LoadedProgram:
    info = Buffer(_INFO_SIZE)
    bpf(_GET_INFO, Buffer(struct.pack("<IIQ", fd, _INFO_SIZE, info.address)))
    data = info.tobytes()
    type_, number, _, native, xlated = struct.unpack_from("<II8sII", data)
    time, runs = struct.unpack_from("<QQ", data, _RUN_TIME)
    name = data[64:80].partition(b"\0")[0].decode()
    (function,) = struct.unpack_from("<I", data, _ATTACH_BTF_ID)
    return LoadedProgram(number, name, type_, function, xlated // 8, native, time, runs)
