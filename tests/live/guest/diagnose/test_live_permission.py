# SPDX-License-Identifier: Apache-2.0
"""What is said when the kernel does not let a process trace, or has no types: seen from child
processes that gave up what it takes."""

from __future__ import annotations

import ctypes
import json
import os
import resource
from collections.abc import Callable
from typing import NamedTuple

import pytest

from kcap.errors import KcapError
from kcap.kernel import permissions
from kcap.lang.diagnostic import ScriptError
from kcap.session.preparation import Preparation
from kcap.session.script import Options

BPF, PERFMON, NET_ADMIN = (
    1 << number
    for number in (permissions.CAP_BPF, permissions.CAP_PERFMON, permissions.CAP_NET_ADMIN)
)
KPROBE = "kprobe:icmp_rcv { @[pid] = count(); }"
FENTRY = "fentry:icmp_rcv { @ = sum(args.skb->len); }"

LIBC = ctypes.CDLL(None, use_errno=True)
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_NEW_MOUNTS, _PRIVATE = 0x20000, 1 << 18 | 1 << 14  # CLONE_NEWNS; MS_PRIVATE | MS_REC


class Said(NamedTuple):
    """What a child's attempt came to.

    :ivar error: the error's class, '' if the probe was attached.
    :ivar text: what is wrong, and the hint.
    :ivar line: the line of the script that is named, or 0.
    """

    error: str
    text: str
    line: int


def keep_only(capabilities: int) -> None:
    """Give up all other capabilities."""
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    head = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    assert LIBC.capset(head, data) == 0


def attempt(text: str) -> Said:
    """Load and attach a script."""
    try:
        with Preparation(Options(cached=False)) as preparation:
            checked = preparation.check(text, "test.bt")
            with preparation.trace(checked, packets=False) as trace:
                trace.attach()
    except ScriptError as error:
        found = error.errors[0]
        words = "\n".join((found.title, *found.notes, *found.help))
        return Said(type(error).__name__, words, found.span.line if found.span else 0)
    except KcapError as error:
        return Said(type(error).__name__, f"{error}\n{error.hint}", 0)
    return Said("", "", 0)


def in_child(prepare: Callable[[], None], text: str) -> Said:
    """The same in a child that prepares itself first."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            prepare()
            os.write(writer, json.dumps(attempt(text)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    return Said(*json.loads(data))


@pytest.fixture(scope="module", autouse=True)
def _compiler() -> None:
    import llvmlite.binding  # noqa: F401 - loaded once, so that each child need not


@pytest.mark.parametrize(
    ("kept", "missing"),
    [
        (0, "CAP_BPF and CAP_PERFMON"),
        (BPF | NET_ADMIN, "CAP_PERFMON"),
        (PERFMON | NET_ADMIN, "CAP_BPF"),
    ],
)
def test_the_missing_capabilities_are_named(kept: int, missing: str) -> None:
    said = in_child(lambda: keep_only(kept), KPROBE)
    assert said.error == "PermissionDeniedError"
    assert f"give the process {missing} (CAP_SYS_ADMIN before" in said.text
    with open(permissions.UNPRIVILEGED, encoding="ascii") as file:
        setting = file.read().strip()
    told = f"kernel.unprivileged_bpf_disabled is {setting}" in said.text
    assert told is (setting != "0" and not kept & BPF)


def test_the_limit_of_locked_memory_is_named_where_it_counts(kernel: str) -> None:
    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))
        keep_only(BPF | PERFMON | NET_ADMIN)

    said = in_child(prepare, "begin { @ = 1; }")
    if kernel == "5.10":
        assert said.error == "PermissionDeniedError"
        assert "raise the limit of locked memory, 4 KiB (ulimit -l unlimited)" in said.text
    else:
        assert said == Said("", "", 0)


def test_missing_types_are_named_with_what_provides_them() -> None:
    def prepare() -> None:
        assert LIBC.unshare(_NEW_MOUNTS) == 0
        assert LIBC.mount(None, b"/", None, _PRIVATE, None) == 0
        assert LIBC.mount(b"none", b"/sys/kernel/btf", b"tmpfs", 0, None) == 0

    said = in_child(prepare, f"begin {{ }}\n{FENTRY}")
    assert said.error == "ScriptError"
    assert "BTF" in said.text
    assert said.line == 2


@pytest.mark.parametrize("event", ["sched_process_exit", "sched_process_*"])
def test_a_tracefs_that_is_not_mounted_is_named_with_how_to_mount_it(event: str) -> None:
    def prepare() -> None:
        assert LIBC.unshare(_NEW_MOUNTS) == 0
        assert LIBC.mount(None, b"/", None, _PRIVATE, None) == 0
        for place in (b"/sys/kernel/debug", b"/sys/kernel/tracing"):
            assert LIBC.mount(b"none", place, b"tmpfs", 0, None) == 0

    said = in_child(prepare, f"begin {{ }}\ntracepoint:sched:{event} {{ @ = count(); }}")
    assert said.error in ("ScriptError", "NotAttachedError")
    assert "tracefs is not mounted" in said.text
    assert "mount -t tracefs tracefs /sys/kernel/tracing" in said.text
    assert said.line == 2
