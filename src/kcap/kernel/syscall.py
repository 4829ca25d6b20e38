# SPDX-License-Identifier: Apache-2.0
"""The system calls bpf(2), perf_event_open(2) and their buffers, through ctypes.

``bpf`` and ``perf_event_open`` raise OSError; the modules above turn that into an error which says
what was being done. Attributes are packed by ``struct`` in the order of ``union bpf_attr`` in
include/uapi/linux/bpf.h; the kernel takes any size whose unknown rest is zero.
"""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

# bpf, perf_event_open: arch/*/entry/syscalls/*.tbl, include/uapi/asm-generic/unistd.h
_NUMBERS = {"x86_64": (321, 298), "aarch64": (280, 241), "riscv64": (280, 241)}
_machine = os.uname().machine
_NR_BPF, _NR_PERF_EVENT_OPEN = _NUMBERS.get(_machine, (-1, -1))

ENOTSUPP = 524
"""The kernel's own "not supported"; it has no name in user space's errno.h."""


class Buffer:
    """Memory with a fixed address, for the kernel to read or write.

    :param data: initial contents, or a number of zero bytes.
    """

    __slots__ = ("_array", "address", "size")

    def __init__(self, data: bytes | int) -> None:
        # One byte at least: an empty buffer would have no address.
        if isinstance(data, int):
            self._array = ctypes.create_string_buffer(max(data, 1))
            self.size = data
        else:
            self._array = ctypes.create_string_buffer(data, max(len(data), 1))
            self.size = len(data)
        self.address = ctypes.addressof(self._array)

    def view(self) -> memoryview:
        """The contents, writable, as bytes."""
        return memoryview(self._array).cast("B")[: self.size]

    def tobytes(self, length: int | None = None) -> bytes:
        """A copy of the first ``length`` bytes, of all by default."""
        return ctypes.string_at(self.address, self.size if length is None else length)

    def set(self, data: bytes) -> None:
        """Overwrite the beginning."""
        if len(data) > self.size:
            raise ValueError(f"{len(data)} bytes do not fit in a buffer of {self.size}")
        ctypes.memmove(self.address, data, len(data))


def bpf(command: int, attr: Buffer) -> int:
    """bpf(2).

    :param command: BPF_MAP_CREATE and so on.
    :param attr: ``union bpf_attr``; the kernel may write results into it.
    :return: what the call returns: a file descriptor for commands that open something.
    :raises OSError: with the error number.
    """
    while True:
        result: int = _syscall(
            ctypes.c_long(_NR_BPF),
            ctypes.c_long(command),
            ctypes.c_void_p(attr.address),
            ctypes.c_long(attr.size),
        )
        if result >= 0:
            return result
        _raise_unless_again(ctypes.get_errno())


def perf_event_open(attr: Buffer, pid: int, cpu: int, group: int, flags: int) -> int:
    """perf_event_open(2).

    :param attr: ``struct perf_event_attr``.
    :param pid: a process, or -1 for all.
    :param cpu: a CPU, or -1 for all (then with a process).
    :param group: leader's file descriptor, or -1.
    :param flags: PERF_FLAG_*.
    :return: a file descriptor.
    :raises OSError: with the error number.
    """
    result: int = _syscall(
        ctypes.c_long(_NR_PERF_EVENT_OPEN),
        ctypes.c_void_p(attr.address),
        ctypes.c_long(pid),
        ctypes.c_long(cpu),
        ctypes.c_long(group),
        ctypes.c_ulong(flags),
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, strerror(number))
    return result


def _raise_unless_again(number: int) -> None:
    # The verifier returns EAGAIN when a signal interrupts it (kernel/bpf/verifier.c, 4.18).
    if number not in (errno.EAGAIN, errno.EINTR):
        raise OSError(number, strerror(number))


def strerror(number: int) -> str:
    """The text of an error number, the kernel's ENOTSUPP included."""
    return "Operation not supported" if number == ENOTSUPP else os.strerror(number)


def error_name(number: int) -> str:
    """The symbolic name of an error number, such as ``EPERM``."""
    return "ENOTSUPP" if number == ENOTSUPP else errno.errorcode.get(number, str(number))
