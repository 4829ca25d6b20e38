# SPDX-License-Identifier: Apache-2.0
"""Counted loops in BPF (allowed from 5.3 on): the verifier walks through every round."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kcap.records import dataclass

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter


@dataclass(frozen=True, slots=True)
class Round:
    """What the body of a loop works with.

    :param index: which round, an i64 operand, from 0.
    :param leave: the label to jump to for leaving the loop.
    """

    index: str
    leave: str


@contextmanager
def counted(gen: Emitter, limit: int) -> Iterator[Round]:
    """The instructions within run ``limit`` times, or until they jump to ``leave``."""
    counter = gen.ir.alloca(8)
    gen.ir.store("i64", "0", counter)
    loop, body, end = (gen.ir.fresh(stem) for stem in ("loop", "round", "loop_end"))
    gen.ir.label(loop)
    index = gen.ir.load("i64", counter)
    gen.ir.branch(gen.ir.compare("ult", "i64", index, str(limit)), body, end)
    gen.ir.label(body)
    yield Round(index, end)
    gen.ir.store("i64", gen.ir.op(f"add i64 {index}, 1"), counter)
    gen.ir.jump(loop)
    gen.ir.label(end)


def load_byte(gen: Emitter, pointer: str, index: str) -> str:
    """The byte at ``pointer + index``, an i64 operand. Volatile: LLVM would make calls of library
    functions (strlen, bcmp) out of such loops, which BPF has not."""
    byte = gen.ir.load("i8", gen.ir.offset(pointer, index), volatile=True)
    return gen.ir.resize(byte, 8, 64, False)
