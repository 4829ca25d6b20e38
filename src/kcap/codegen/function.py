# SPDX-License-Identifier: Apache-2.0
"""What code generation asks of a builtin or function, and what it gives to user space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from kcap.sema.function import Callable_

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.environment import Environment
    from kcap.sema import tree
    from kcap.sema.types import Buffer_, Tuple


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


class Runtime(Protocol):
    """What the user-space half of a function may ask of the running trace.

    Keys and values are decoded; map parts of all CPUs are put together already.

    :ivar environment: symbols, clocks, users: what opaque values are printed with.
    """

    environment: Environment

    def read_map(self, map_: tree.Map) -> list[tuple[Any, Any]]:
        """All (key, value) pairs; the key is None for a map without keys."""
        ...

    def clear_map(self, map_: tree.Map) -> None:
        """Delete all keys."""
        ...

    def zero_map(self, map_: tree.Map) -> None:
        """Set all values to zero."""
        ...

    def request_exit(self, status: int) -> None:
        """End the trace after what is under way, with an exit status."""
        ...

    def unwatch(self, address: int) -> None:
        """Detach the watchpoints at an address."""
        ...

    def set_status(self, status: int) -> None:
        """The exit status for when the trace ends by itself."""
        ...

    def may_run(self) -> bool:
        """Whether there is time left to run a command; a refusal is counted and reported."""
        ...


class Site(ABC):
    """One place in the script that sends events to user space.

    Code generation numbers the sites; the number is the first u32 of an event, the payload
    (``payload.size`` bytes, a tuple of typed values) follows at offset 8.

    :ivar payload: the types of what is sent.
    :cvar urgent: user space is to be woken for it, instead of finding it at its next tick.
    """

    payload: Tuple
    urgent: ClassVar[bool] = False

    @abstractmethod
    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        """What user space makes of an event: the events (``functions.events``) that the library
        yields and the command line prints. Called in the order of the events of one CPU.

        :param values: the decoded payload.
        """

    def receive(self, data: Buffer_, offset: int, runtime: Runtime) -> Iterable[object]:
        """The same from the payload's bytes; a site that has a faster way overrides it.

        :param offset: where the payload starts in ``data``.
        """
        return self.handle(self.payload.decode(data, offset), runtime)

    def formatter(self, runtime: Runtime) -> Callable[[Buffer_, int], str] | None:
        """For a site whose events are nothing but text on standard output: what makes the text of
        the payload at ``data[offset:]``."""
        return None

    def run_formatter(
        self, runtime: Runtime, before: int, stride: int
    ) -> Callable[[Buffer_], list[str]] | None:
        """For the same sites: what makes the texts of events that stand one after the other.

        :param before: bytes in front of each payload.
        :param stride: bytes from one payload to the next.
        """
        return None
