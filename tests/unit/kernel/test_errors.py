# SPDX-License-Identifier: Apache-2.0
"""Errors say what went wrong and what to do."""

from __future__ import annotations

import errno

import pytest

from kcap.kernel.errors import (
    CUT,
    AttachError,
    PermissionDeniedError,
    SyscallError,
    VerifierError,
    summarize,
    syscall_error,
)
from kcap.kernel.syscall import ENOTSUPP

# From 6.12, in the kernel's own words
UNKNOWN = (
    "0: R1=ctx() R10=fp0",
    "0: (85) call bpf_skb_output#111",
    "program of this type cannot use helper bpf_skb_output#111",
    "processed 1 insns (limit 1000000)",
)
MAP_VALUE = (
    "12: (7b) *(u64 *)(r0 +8) = r1",
    "invalid access to map value, value_size=8 off=8 size=8",
    "R0 min value is outside of the allowed memory range",
    "processed 13 insns (limit 1000000)",
)


@pytest.mark.parametrize(
    ("log", "summary", "omitted"),
    [
        (UNKNOWN, "program of this type cannot use helper bpf_skb_output#111", 3),
        (
            MAP_VALUE,
            "invalid access to map value, value_size=8 off=8 size=8: "
            "R0 min value is outside of the allowed memory range",
            2,
        ),
        (("0: (79) r0 = *(u64 *)(r3 +0)", "R3 !read_ok", "processed 1 insns"), "R3 !read_ok", 2),
        (
            ("infinite loop detected at insn 4", "cur state: R0_w=scalar()", "old state: R0=0"),
            "infinite loop detected at insn 4",
            2,
        ),
        (("processed 0 insns",), "", 1),
        ((), "", 0),
    ],
)
def test_the_line_that_matters_is_found(log: tuple[str, ...], summary: str, omitted: int) -> None:
    assert summarize(log) == (summary, omitted)


def test_a_verifier_error_keeps_the_log_and_says_how_much_it_left_out() -> None:
    error = VerifierError("probe_1", errno.EINVAL, UNKNOWN)
    assert str(error) == (
        "probe_1: the kernel refused the program: "
        "program of this type cannot use helper bpf_skb_output#111 (3 line(s) of log left out)"
    )
    assert (error.log, error.errno, error.truncated) == (UNKNOWN, errno.EINVAL, False)


def test_without_a_log_the_error_number_is_the_reason() -> None:
    error = VerifierError("probe_1", errno.E2BIG, ())
    assert str(error) == "probe_1: the kernel refused the program: Argument list too long"


def test_a_failed_call_says_what_was_tried() -> None:
    error = syscall_error("create map", OSError(errno.ENOMEM, ""), hint="fewer")
    assert str(error) == "can't create map: Cannot allocate memory (ENOMEM)"
    assert (type(error), error.errno, error.hint) == (SyscallError, errno.ENOMEM, "fewer")


def test_the_kernels_own_error_number_has_a_name() -> None:
    error = syscall_error("attach", OSError(ENOTSUPP, ""), AttachError)
    assert str(error) == "can't attach: Operation not supported (ENOTSUPP)"


def test_eperm_without_capabilities_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from kcap.kernel import permissions

    monkeypatch.setattr(permissions, "effective_capabilities", lambda: 1 << 38)
    monkeypatch.setattr(permissions, "UNPRIVILEGED", "/nonexistent")
    error = syscall_error("load program x", OSError(errno.EPERM, ""))
    assert isinstance(error, PermissionDeniedError)
    assert error.hint == (
        "run as root (sudo), or give the process CAP_BPF (CAP_SYS_ADMIN before Linux 5.8)"
    )


def test_what_stands_in_place_of_missing_lines_is_no_reason() -> None:
    assert summarize(("0: (b7) r0 = 0", CUT, "R3 !read_ok", "processed 9 insns")) == (
        "R3 !read_ok",
        3,
    )
