# SPDX-License-Identifier: Apache-2.0
"""The process in which LLVM runs: what it leaves behind, and what is said where there is none."""

from __future__ import annotations

import errno
import os
from typing import NoReturn

import pytest

from kcap.codegen.llvm import CodegenError, Compiler

IR = 'target triple = "bpfel"\ndefine i64 @f(ptr %c) section "kcap/f" {\n  ret i64 0\n}\n'


def open_files() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_open_when_a_compiler_has_answered() -> None:
    before = open_files()
    compiler = Compiler()
    assert compiler.compile(IR)[0].startswith(b"\x7fELF")
    assert open_files() == before


def test_nothing_is_left_open_when_llvm_refuses() -> None:
    before = open_files()
    compiler = Compiler()
    with pytest.raises(CodegenError) as caught:
        compiler.compile("no module at all")
    assert "expected top-level entity" in caught.value.log
    assert open_files() == before


def test_where_no_process_can_be_started_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = open_files()
    monkeypatch.setattr("kcap.codegen.llvm.os.fork", refuse)
    with pytest.raises(CodegenError, match=r"^no process can be started for LLVM: Resource temp"):
        Compiler()
    assert open_files() == before
