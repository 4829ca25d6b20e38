# SPDX-License-Identifier: Apache-2.0
"""Errors of talking to the kernel."""

from __future__ import annotations

import os

from kcap.errors import KernelError

CUT = "[lines are missing here: the log was longer than what is asked of the kernel]"
"""Stands in a verifier's log in place of what did not fit."""


class ObjectError(KernelError):
    """A BPF object file that is damaged or holds what kcap's own compiler never emits."""


class SyscallError(KernelError):
    """A system call failed.

    :param message: one line: what was tried and how it failed.
    :param errno: the error number.
    """

    def __init__(self, message: str, errno: int, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class PermissionDeniedError(SyscallError):
    """The kernel refuses because of capabilities, lockdown or a limit."""


class VerifierError(SyscallError):
    """The verifier refused a program.

    :param program: the program's name.
    :param errno: what BPF_PROG_LOAD returned.
    :param log: the verifier's whole log, lines without a final newline.
    :param truncated: the log did not fit in the largest buffer that was tried; :data:`CUT` stands
        where lines are missing.
    """

    def __init__(
        self,
        program: str,
        errno: int,
        log: tuple[str, ...],
        truncated: bool = False,
        *,
        hint: str | None = None,
    ) -> None:
        self.program = program
        self.log = log
        self.truncated = truncated
        self.summary, self.omitted = summarize(log)
        cause = self.summary or os.strerror(errno)
        more = f" ({self.omitted} line(s) of log left out)" if self.omitted else ""
        super().__init__(f"{program}: the kernel refused the program: {cause}{more}", errno)
        self.hint = hint


def summarize(log: tuple[str, ...]) -> tuple[str, int]:
    """The line of a verifier log that says why, and how many other lines there are.

    The last line is usually a count ("processed 12 insns ..."); the reason stands before it. A
    reason that is indented or that only closes a report takes the line before it along, as in
    ``invalid access to map value, value_size=8 off=8 size=8`` / ``R1 min value is outside ...``.
    """
    lines = [line for line in log if line.strip()]
    total = len(lines)
    while lines and _is_accounting(lines[-1]):
        lines.pop()
    if not lines:
        return "", total
    shown = [lines[-1].strip()]
    if len(lines) > 1 and lines[-1].startswith(("R", "\t", " ")) and _is_reason(lines[-2]):
        shown.insert(0, lines[-2].strip())
    return ": ".join(shown), total - len(shown)


_ACCOUNTING = (
    "processed ",
    "verification time ",
    "stack depth ",
    "insns processed ",
    "mark_precise:",
    # follow "infinite loop detected at insn N" (6.7 and later)
    "cur state:",
    "old state:",
)


def _is_accounting(line: str) -> bool:
    return line.startswith(_ACCOUNTING)


def _is_reason(line: str) -> bool:
    """Whether a line is text rather than an instruction ("12: (85) call ...") or a state."""
    first = line.split(":", 1)[0].strip()
    other = (CUT, ";", "from ", "func#", "last_idx", "R")
    return not first.isdigit() and not line.startswith(other)


class LogSizeError(SyscallError):
    """A program whose verifier log doesn't fit the buffer that it was given.

    :param program: what the program is called.
    :param size: bytes of the buffer.
    :param errno: the error number.
    """

    def __init__(self, program: str, size: int, errno: int) -> None:
        super().__init__(
            f"Error loading BPF program for {program}. Error code: -{errno} "
            f"({os.strerror(errno)}).\nWARNING: Kernel log seems to be trimmed: "
            f"the setting log_size is {size} bytes",
            errno,
            hint="raise BPFTRACE_LOG_SIZE, or leave it out: then the log gets what it needs",
        )


class AttachError(SyscallError):
    """A program was loaded but can't be attached to its probe."""


def syscall_error(
    what: str, error: OSError, cls: type[SyscallError] = SyscallError, hint: str | None = None
) -> SyscallError:
    """The typed error for a failed call.

    :param what: what was tried, such as ``create map "counts"``.
    :param error: the failure.
    :param cls: the class to use, unless permissions are the reason.
    :param hint: an action, where the caller knows one.
    """
    from kcap.kernel import permissions
    from kcap.kernel.syscall import error_name, strerror

    number = error.errno or 0
    message = f"can't {what}: {strerror(number)} ({error_name(number)})"
    if number in (1, 13):  # EPERM, EACCES
        reason = permissions.explain()
        if reason is not None:
            return PermissionDeniedError(message, number, hint=reason)
    return cls(message, number, hint=hint)
