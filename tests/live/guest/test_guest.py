# SPDX-License-Identifier: Apache-2.0
"""The guest is what the live tests take it for."""

from __future__ import annotations

import os
from pathlib import Path


def test_the_guest_runs_the_kernel_that_was_asked_for(kernel: str) -> None:
    assert os.uname().release.startswith(f"{kernel}.")


def test_commands_run_as_root() -> None:
    assert os.geteuid() == 0


def test_the_kernel_describes_its_types() -> None:
    assert Path("/sys/kernel/btf/vmlinux").read_bytes()[:2] == b"\x9f\xeb"


def test_tracing_is_mounted() -> None:
    assert "kfree_skb" in Path("/sys/kernel/tracing/available_filter_functions").read_text()


def test_dev_fd_is_there() -> None:
    read, write = os.pipe()
    os.write(write, b"x")
    with open(f"/dev/fd/{read}", "rb", buffering=0) as file:
        assert file.read(1) == b"x"
    os.close(write)
    os.close(read)
