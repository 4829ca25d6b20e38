# SPDX-License-Identifier: Apache-2.0
"""The process in which LLVM runs: what it leaves behind, and what is said where there is none."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable
from typing import NoReturn
from unittest import mock

import pytest

from kcap.codegen.llvm import CodegenError, Compiler

IR = 'target triple = "bpfel"\ndefine i64 @f(ptr %c) section "kcap/f" {\n  ret i64 0\n}\n'


def leaves_nothing_open(work: Callable[[], object]) -> None:
    """Assert that this process has as many descriptors after some work as before it: in a child,
    since threads of the tests' process boot guests meanwhile.

    :param work: what it returns is kept until descriptors are counted.
    """
    child = os.fork()
    if not child:
        status = 1
        try:
            before = os.listdir("/proc/self/fd")
            kept = work()
            assert len(os.listdir("/proc/self/fd")) == len(before), kept
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_nothing_is_left_open_when_a_compiler_has_answered() -> None:
    def work() -> Compiler:
        compiler = Compiler()
        assert compiler.compile(IR)[0].startswith(b"\x7fELF")
        return compiler

    leaves_nothing_open(work)


def test_nothing_is_left_open_when_llvm_refuses() -> None:
    def work() -> Compiler:
        compiler = Compiler()
        with pytest.raises(CodegenError) as caught:
            compiler.compile("no module at all")
        assert "expected top-level entity" in caught.value.log
        return compiler

    leaves_nothing_open(work)


def test_where_no_process_can_be_started_that_is_said() -> None:
    def refuse() -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def work() -> None:
        said = r"^no process can be started for LLVM: Resource temp"
        with (
            mock.patch("kcap.codegen.llvm.os.fork", refuse),
            pytest.raises(CodegenError, match=said),
        ):
            Compiler()

    leaves_nothing_open(work)
