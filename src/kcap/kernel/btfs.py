# SPDX-License-Identifier: Apache-2.0
"""BTF objects in the kernel: loading one, finding those of modules."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from struct import pack, unpack_from

from kcap.kernel import permissions, uapi
from kcap.kernel.errors import SyscallError, syscall_error
from kcap.kernel.info import object_ids
from kcap.kernel.syscall import Buffer, bpf

_NAME_SIZE = 64  # MODULE_NAME_LEN is 56
_LOG_SIZE = 1 << 16


def load_btf(blob: bytes) -> int:
    """Load BTF; returns its file descriptor, which the caller has to close.

    :raises SyscallError: the kernel refused it; the message ends in the log's last line.
    """
    data = Buffer(blob)
    attr = pack("<QQIII", data.address, 0, data.size, 0, 0)
    try:
        try:
            return bpf(uapi.BPF_BTF_LOAD, Buffer(attr))
        except OSError as error:
            # Accounted against RLIMIT_MEMLOCK before 5.11, as maps are.
            if error.errno != errno.EPERM or not permissions.raise_memlock_limit():
                raise
        return bpf(uapi.BPF_BTF_LOAD, Buffer(attr))
    except OSError as error:
        reason = _load_log(data)
        raise syscall_error(f"load BTF{reason}", error) from error


def _load_log(data: Buffer) -> str:
    log = Buffer(_LOG_SIZE)
    attr = pack("<QQIII", data.address, log.address, data.size, log.size, 1)
    with suppress(OSError):  # expected: this call is made for its log
        os.close(bpf(uapi.BPF_BTF_LOAD, Buffer(attr)))
    lines = log.tobytes().split(b"\0", 1)[0].decode("utf-8", "replace").strip().splitlines()
    return f" ({lines[-1]})" if lines else ""


def module_btf_fd(module: str) -> int:
    """File descriptor of a module's BTF (5.11 and later), which the caller has to close.

    :param module: its name.
    :raises SyscallError: the module isn't loaded or has no BTF.
    """
    for btf_id in object_ids(uapi.BPF_BTF_GET_NEXT_ID, "BTF objects"):
        fd = _open(btf_id)
        if fd is None:
            continue
        try:
            if _name(fd) == (module, True):
                return os.dup(fd)
        finally:
            os.close(fd)
    raise SyscallError(
        f"no BTF of module {module} in the kernel",
        errno.ENOENT,
        hint=f"load it: modprobe {module}",
    )


def btf_data(btf_id: int) -> bytes:
    """The contents of a BTF object; empty if it is gone.

    :raises SyscallError: the kernel doesn't give it.
    """
    fd = _open(btf_id)
    if fd is None:
        return b""
    try:
        (size,) = unpack_from("<I", _about(fd, Buffer(0)), 8)
        data = Buffer(size)
        _about(fd, data)
        return data.tobytes()
    finally:
        os.close(fd)


def _about(fd: int, data: Buffer) -> bytes:
    """``struct bpf_btf_info``: btf, btf_size, id; ``data`` is filled with the BTF."""
    info = Buffer(pack("<QII", data.address if data.size else 0, data.size, 0))
    attr = Buffer(pack("<IIQ", fd, info.size, info.address))
    try:
        bpf(uapi.BPF_OBJ_GET_INFO_BY_FD, attr)
    except OSError as error:
        raise syscall_error("read a BTF object", error) from error
    return info.tobytes()


def _open(btf_id: int) -> int | None:
    try:
        return bpf(uapi.BPF_BTF_GET_FD_BY_ID, Buffer(pack("<III", btf_id, 0, 0)))
    except OSError as error:
        if error.errno == errno.ENOENT:  # unloaded meanwhile
            return None
        raise syscall_error(f"open BTF object {btf_id}", error) from error


def _name(fd: int) -> tuple[str, bool]:
    """(name, whether it is the kernel's own) of a BTF object: struct bpf_btf_info."""
    name = Buffer(_NAME_SIZE)
    # btf, btf_size, id, name, name_len, kernel_btf
    info = Buffer(pack("<QIIQII", 0, 0, 0, name.address, name.size, 0))
    attr = Buffer(pack("<IIQ", fd, info.size, info.address))
    try:
        bpf(uapi.BPF_OBJ_GET_INFO_BY_FD, attr)
    except OSError as error:
        raise syscall_error("read about a BTF object", error) from error
    (kernel,) = unpack_from("<I", info.view(), 28)
    return name.tobytes().split(b"\0", 1)[0].decode(), bool(kernel)
