# SPDX-License-Identifier: Apache-2.0
"""Reading what an iterator writes, whose program runs meanwhile."""

from __future__ import annotations

import errno
import os

import pytest

from kcap.kernel.errors import AttachError
from kcap.kernel.links import IteratorLink
from kcap.probes.iterator import run_iterator


class Iterator(IteratorLink):
    """An iterator whose reads give these answers, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: list[bytes | int]) -> None:
        super().__init__([], "iter:task")
        monkeypatch.setattr("kcap.probes.iterator.os.read", lambda fd, size: self._next(answers))

    @staticmethod
    def _next(answers: list[bytes | int]) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return answer

    def open(self) -> int:
        """Any file."""
        return os.open(os.devnull, os.O_RDONLY)


def test_an_iterator_that_pauses_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """bpf_seq_read() gives EAGAIN after MAX_ITER_OBJECTS objects of which nothing was written."""
    link = Iterator(monkeypatch, [b"a", errno.EAGAIN, errno.EAGAIN, b"b", b""])
    assert run_iterator(link) == b"ab"


def test_an_iterator_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttachError, match=r"^can't read iter:task: .*\(E2BIG\)$"):
        run_iterator(Iterator(monkeypatch, [b"a", errno.E2BIG]))
