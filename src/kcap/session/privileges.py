# SPDX-License-Identifier: Apache-2.0
"""Being another user: for the files that are written, and for good once everything is attached."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import struct
from collections.abc import Iterator

from kcap.errors import UsageError

#: include/uapi/linux/capability.h. CAP_BPF and CAP_PERFMON (5.8): to look into maps that are open.
_CAP_PERFMON, _CAP_BPF = 38, 39
_VERSION_3 = 0x20080522
#: Modules of Python that are imported late, too.
_NEEDED = ("fcntl", "traceback", "tempfile", "struct", "json")
#: What has nothing to do with a trace that runs, or would start the program.
_NEVER_NEEDED = ("kcap.vm", "kcap.cli", "kcap.__main__", "kcap.diagnose")
_PR_SET_KEEPCAPS, _SYS_CAPSET = 8, {"x86_64": 126, "aarch64": 91}


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"-Z {name}: there is no such user") from None


def _import_what_may_be_needed() -> None:
    """Others may not be allowed to read the files of this program: import what is imported late."""
    import pkgutil
    from importlib import import_module

    import kcap

    for name in _NEEDED:
        import_module(name)
    for found in pkgutil.walk_packages(kcap.__path__, "kcap."):
        if not found.name.startswith(_NEVER_NEEDED):
            import_module(found.name)


@contextlib.contextmanager
def files_of(name: str) -> Iterator[None]:
    """Open files as another user while the block runs: as what they may, and owned by them.

    :param name: '' for nobody else.
    :raises UsageError: there is no such user, or this is not root.
    """
    if not name:
        yield
        return
    user = _user(name)
    _import_what_may_be_needed()
    before = os.geteuid(), os.getegid(), os.getgroups()
    try:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setegid(user.pw_gid)
        os.seteuid(user.pw_uid)
    except OSError as error:
        raise UsageError(f"-Z {name}: {error.strerror}", hint="it needs root") from error
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])
        os.setgroups(before[2])


def become(name: str) -> None:
    """Be another user from now on, and keep CAP_BPF and CAP_PERFMON only.

    :raises UsageError: there is no such user, or the kernel refuses.
    """
    user = _user(name)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        _check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
        kept = 1 << _CAP_BPF | 1 << _CAP_PERFMON if user.pw_uid else (1 << 64) - 1
        low, high = kept & 0xFFFFFFFF, kept >> 32
        if user.pw_uid:
            header = struct.pack("<Ii", _VERSION_3, 0)
            data = struct.pack("<6I", low, low, 0, high, high, 0)  # effective, permitted, inherited
            _check(libc.syscall(_SYS_CAPSET[os.uname().machine], header, data))
    except OSError as error:
        raise UsageError(f"-Z {name}: {error.strerror}", hint="it needs root") from error


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
