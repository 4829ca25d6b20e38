# SPDX-License-Identifier: Apache-2.0
"""Loading BPF programs.

The verifier writes a log only when asked, and asking costs time: a program is loaded without one,
and again with one when the kernel refuses it.
"""

from __future__ import annotations

import errno
import os
from struct import pack, pack_into, unpack
from typing import TYPE_CHECKING

from kcap.closing import Closing
from kcap.kernel import permissions, uapi
from kcap.kernel.btfs import load_btf, module_btf_fd
from kcap.kernel.errors import CUT, LogSizeError, SyscallError, VerifierError, syscall_error
from kcap.kernel.info import open_program
from kcap.kernel.names import identifier, kernel_name
from kcap.kernel.syscall import Buffer, bpf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kcap.kernel.maps import Map
    from kcap.kernel.spec import ProgramSpec

_FIRST_LOG = 1 << 16
_LARGEST_LOG = 1 << 22  # 30,000 lines; each larger one costs another run of the verifier
_INSTRUCTIONS = 1  # BPF_LOG_LEVEL1: what the verifier follows, and its messages
_MESSAGES = 4  # BPF_LOG_STATS: its messages and figures only

_CALL = 0x85  # BPF_JMP | BPF_CALL
_MOST_INSNS = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS

# offsets in the part of union bpf_attr that BPF_PROG_LOAD uses
_ATTR = "<IIQQIIQII16sIIIIQIIQIIII"
_LOG_AT = 24

# The kernel's answers that a log explains. EPERM is decided before the verifier runs.
_EXPLAINED = (errno.EINVAL, errno.EACCES, errno.E2BIG, errno.ENOSPC, errno.EFAULT, errno.ENOENT)


class Program(Closing):
    """A loaded program; it closes with its context.

    :param fd: the program's file descriptor, which this object then owns.
    :param spec: what it was loaded from.
    :param log: the verifier's log, if one was asked for.
    """

    def __init__(self, fd: int, spec: ProgramSpec, log: tuple[str, ...] = ()) -> None:
        self._fd = fd
        self.spec = spec
        self.log = log

    @classmethod
    def load(
        cls, spec: ProgramSpec, maps: Mapping[str, Map], log_level: int = 0, log_size: int = 0
    ) -> Program:
        """Load a program.

        :param maps: the maps that its relocations name.
        :param log_level: 0: a log only for an error; 1: the verifier's log in any case, in
            ``Program.log``; 2: a more detailed one; 4: statistics only.
        :param log_size: bytes that a log has to fit, which the kernel refuses the program for
            otherwise; 0: it is made as large as the log.
        :raises LogSizeError: the log doesn't fit ``log_size``.
        :raises VerifierError: the verifier refused it.
        :raises PermissionDeniedError: the process may not load programs of this type.
        :raises SyscallError: any other refusal.
        """
        fds: list[int] = []
        try:
            loading = _Loading(spec, maps, fds)
            try:
                fd = loading.load(log_level, log_size)
            except OSError as error:
                if error.errno in _too_small(log_size):
                    raise LogSizeError(loading.name, log_size, error.errno) from error
                raise loading.explain(error, log_level) from error
            return cls(fd, spec, loading.log)
        finally:
            for fd in fds:
                os.close(fd)

    def fileno(self) -> int:
        """The file descriptor."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor; doing it twice is harmless. Links keep the program alive."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def run(self, data: bytes = b"", context: bytes = b"") -> int:
        """Run the program once (BPF_PROG_TEST_RUN), where its type can.

        :param data: a packet, for networking types.
        :param context: the context, for raw tracepoints (5.10) and SYSCALL programs (5.14).
        :return: what it returned.
        :raises SyscallError: the kernel can't run this type.
        """
        data_in, ctx_in = Buffer(data), Buffer(context)
        attr = Buffer(
            pack(
                "<IIIIQQIIIIQQIIII",
                *(self._fd, 0, len(data), 0, data_in.address if data else 0, 0, 0, 0),
                *(len(context), 0, ctx_in.address if context else 0, 0, 0, 0, 0, 0),
            )
        )
        try:
            bpf(uapi.BPF_PROG_TEST_RUN, attr)
        except OSError as error:
            raise syscall_error(f"run {self.spec.name}", error) from error
        return int.from_bytes(attr.view()[4:8], "little")


def relocate(spec: ProgramSpec, maps: Mapping[str, Map]) -> bytes:
    """A program's instructions with the maps' file descriptors filled in.

    :raises KeyError: a relocation names a map that is not in ``maps``.
    :raises ValueError: a relocation of an unknown kind, or not at a 64-bit load (a call).
    """
    code = bytearray(spec.insns)
    starts = {f.name: f.insn for f in spec.functions}
    constants = dict(spec.constants)
    for relocation in spec.relocations:
        at = relocation.insn * 8
        if relocation.kind == "kfunc":
            _call_kernel(code, at, constants[relocation.symbol])
            continue
        if code[at] != 0x18:
            raise ValueError(f"{spec.name}: instruction {relocation.insn} is no 64-bit load")
        if relocation.kind == "func":
            source, low, high = uapi.BPF_PSEUDO_FUNC, starts[relocation.symbol], 0
            low -= relocation.insn + 1
        elif relocation.symbol in constants:
            source = 0
            low, high = unpack("<ii", pack("<Q", constants[relocation.symbol]))
        elif relocation.kind == "map":
            source, low, high = uapi.BPF_PSEUDO_MAP_FD, maps[relocation.symbol].fileno(), 0
        elif relocation.kind == "map_value":
            source, low = uapi.BPF_PSEUDO_MAP_VALUE, maps[relocation.symbol].fileno()
            high = relocation.addend
        else:
            raise ValueError(f"{spec.name}: relocation of kind {relocation.kind}")
        code[at + 1] = code[at + 1] & 0xF | source << 4
        pack_into("<i", code, at + 4, low)
        pack_into("<i", code, at + 12, high)
    return bytes(code)


def _call_kernel(code: bytearray, at: int, function: int) -> None:
    """Make the call at a place one of a kernel's function, by its id in BTF."""
    if code[at] != _CALL:
        raise ValueError(f"instruction {at // 8} is no call")
    pack_into("<BBhi", code, at, _CALL, uapi.BPF_PSEUDO_KFUNC_CALL << 4, 0, function)


class _Loading:
    """One program on its way into the kernel: its attribute and what that points to."""

    def __init__(self, spec: ProgramSpec, maps: Mapping[str, Map], fds: list[int]) -> None:
        self.spec = spec
        self.log: tuple[str, ...] = ()
        self.truncated = False
        code = relocate(spec, maps)
        self._insns = Buffer(code)
        self._license = Buffer(spec.license.encode() + b"\0")
        btf_fd, info, count, lines = _function_info(spec, fds)
        self._info, self._lines = Buffer(info), Buffer(lines)
        module_fd = 0
        if spec.attach_btf_module:
            module_fd = module_btf_fd(spec.attach_btf_module)
            fds.append(module_fd)
        elif spec.attach_program:  # attach_prog_fd, in a union with attach_btf_obj_fd
            module_fd = open_program(spec.attach_program)
            fds.append(module_fd)
        self._attr = Buffer(
            pack(
                _ATTR,
                *(spec.type, len(code) // 8, self._insns.address, self._license.address),
                *(0, 0, 0, 0, spec.flags, kernel_name(self.name)),
                *(0, spec.expected_attach_type, btf_fd),
                *(8 if count else 0, self._info.address if count else 0, count),
                *(16 if lines else 0, self._lines.address if lines else 0, len(lines) // 16),
                *(spec.attach_btf_id, module_fd, 0),
            )
        )

    @property
    def name(self) -> str:
        """What the kernel is told that the program is called, at full length."""
        return self.spec.functions[0].name if self.spec.functions else self.spec.name

    def load(self, log_level: int, log_size: int = 0) -> int:
        """Load; before 5.11 EPERM may be RLIMIT_MEMLOCK, which is then raised."""
        try:
            return self._load(log_level, log_size)
        except OSError as error:
            if error.errno != errno.EPERM or not permissions.raise_memlock_limit():
                raise
        return self._load(log_level, log_size)

    def _load(self, log_level: int, log_size: int) -> int:
        if not log_level:
            return self._call(0, None)
        size = log_size or _FIRST_LOG
        while True:
            log = Buffer(size)
            try:
                return self._call(log_level, log)
            except OSError as error:
                # ENOSPC: the log did not fit.
                self.truncated = error.errno == errno.ENOSPC
                if not self.truncated or log_size or size >= _LARGEST_LOG:
                    raise
            finally:
                self.log = _lines(log)
            size = _LARGEST_LOG

    def _call(self, log_level: int, log: Buffer | None) -> int:
        size, address = (log.size, log.address) if log is not None else (0, 0)
        pack_into("<IIQ", self._attr.view(), _LOG_AT, log_level, size, address)
        return bpf(uapi.BPF_PROG_LOAD, self._attr)

    def explain(self, error: OSError, log_level: int) -> SyscallError:
        """The error to raise, with the verifier's log where it has one."""
        number = error.errno or 0
        if number in _EXPLAINED and not log_level:
            # E2BIG: a million instructions were followed. To have them all told takes minutes, and
            # the last ones are as good as any others.
            number = self._ask(_MESSAGES if number == errno.E2BIG else _INSTRUCTIONS, number)
        if self.truncated:
            self._complete(number)
        if self.log and number != errno.EPERM:
            return VerifierError(self.spec.name, number, self.log, self.truncated)
        hint = None
        if number == errno.E2BIG:
            count = len(self.spec.insns) // 8
            hint = f"it has {count} instructions, the kernel takes {_MOST_INSNS}: split the script"
        return syscall_error(f"load program {self.spec.name}", error, hint=hint)

    def _ask(self, log_level: int, number: int) -> int:
        """Load once more for the log; the error's number (the given one, if it has no other)."""
        try:
            # It can't succeed the second time, except by a race: then nothing is left open.
            os.close(self.load(log_level))
        except OSError as error:
            if error.errno not in (None, errno.ENOSPC):
                return error.errno
        return number

    def _complete(self, number: int) -> None:
        """Mark where lines of a log are missing that did not fit. From 6.4 on the kernel keeps its
        end, before that its beginning: then the last words are asked for alone."""
        kept = self.log
        self._ask(_MESSAGES, number)
        self.truncated = True
        self.log = (CUT, *kept) if kept[-1:] == self.log[-1:] else (*kept, CUT, *self.log)


def _function_info(spec: ProgramSpec, fds: list[int]) -> tuple[int, bytes, int, bytes]:
    """BTF that names the functions: (its descriptor, also put in ``fds``, records, number, records
    of lines)."""
    if not spec.functions and not spec.lines:
        return 0, b"", 0, b""
    from kcap.btf.build import BtfBuilder, func_info, functions_btf, line_info

    builder = BtfBuilder()
    lines = line_info(
        [(at.insn, at.file, at.text, at.line, at.column) for at in spec.lines],
        [f.insn for f in spec.functions] or [0],
        builder,
    )
    blob, ids = functions_btf([identifier(f.name) for f in spec.functions], builder)
    fd = load_btf(blob)
    fds.append(fd)
    starts = [f.insn for f in spec.functions]
    return fd, func_info(zip(starts, ids, strict=True)), len(ids), lines


def _too_small(log_size: int) -> tuple[int, ...]:
    """How the kernel says that a log does not fit; up to 6.3 a buffer had to have 128 bytes."""
    if not log_size:
        return ()
    return (errno.ENOSPC, errno.EINVAL) if log_size < 128 else (errno.ENOSPC,)


def _lines(log: Buffer) -> tuple[str, ...]:
    text = log.tobytes().split(b"\0", 1)[0].decode("utf-8", "replace")
    return tuple(text.rstrip("\n").split("\n")) if text else ()
