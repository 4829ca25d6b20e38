# SPDX-License-Identifier: Apache-2.0
"""What code generation asks of a builtin or function."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, cast

from kcap.sema.function import Callable_

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.sema import tree


class Function(Callable_):
    """A builtin or function: :class:`Callable_` with the code that it turns into.

    A derived class implements one of :meth:`emit` (the result is a scalar or there is none) and
    :meth:`emit_into` (the result lives in memory: a string, a tuple, a buffer).

    :cvar direct: :meth:`emit_into` only calls helpers that write to ``dest`` and never branches
        out of the program, so that ``dest`` may be reserved space in the ring.
    """

    direct: ClassVar[bool] = False

    def emit(self, call: tree.Call, gen: Emitter) -> str:
        """Emit the call; the LLVM operand of its result (of ``gen.llvm_type(call.type)``), '' for
        functions without a result."""
        raise NotImplementedError(f"{self.name} has no scalar form")

    def emit_into(self, call: tree.Call, gen: Emitter, dest: str) -> None:
        """Emit the call, writing its result (``call.type.size`` bytes) to ``dest``, an LLVM
        pointer into BPF memory."""
        raise NotImplementedError(f"{self.name} has no form in memory")


class MapFunction(Function):
    """A function that is assigned to a map: ``@x = count()``."""

    @abstractmethod
    def emit_update(self, statement: tree.UpdateAggregate, gen: Emitter) -> None:
        """Emit the update of the map's value."""


def implementation(call: tree.Call) -> Function:
    """The function of a call, with what code generation asks of it: the registry that type
    checking was given holds nothing else."""
    return cast("Function", call.function)
