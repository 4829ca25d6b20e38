# SPDX-License-Identifier: Apache-2.0
"""What code generation gives to user space: the places in a script that send events.

These classes are all that a running trace needs of the code that was generated. They stand apart
from it, and are made from plain values (:mod:`kcap.plain`): a script that was compiled before
starts without the compiler.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from kcap.records import dataclass
from kcap.sema.types import INT64, Tuple

if TYPE_CHECKING:
    from kcap.codegen.environment import Environment
    from kcap.lang.source import Span
    from kcap.sema import tree
    from kcap.sema.types import Buffer_


#: Bytes in front of an event's payload: ``u32 site, u32 0``.
HEADER_SIZE = 8


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

    def request_exit(self, status: int, mono_ns: int) -> None:
        """End the trace, with an exit status; it was asked for at a time of CLOCK_MONOTONIC."""
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
    :cvar ends_trace: programs with such a site don't start again after the event.
    """

    payload: Tuple
    urgent: ClassVar[bool] = False
    ends_trace: ClassVar[bool] = False

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


@dataclass(slots=True)
class HelperError:
    """Something failed in a running program.

    :param helper: the name of the BPF helper without ``bpf_`` (``-k``); '' when it was none.
    :param retcode: what it returned (a negative errno, or 0 for a failed look-up).
    :param text: what that means.
    :param span: the place in the script, or None if it has none.
    """

    helper: str
    retcode: int
    text: str
    span: Span | None


@dataclass(eq=False, slots=True)
class ProblemSite(Site):
    """A place in the script where something can go wrong.

    :param helper: the helper's name, or ''.
    :param text: what is said; '' for what the errno means.
    :param span: the place.
    """

    payload = Tuple((INT64,))
    helper: str
    text: str
    span: Span | None

    def handle(self, values: tuple[Any, ...], runtime: Runtime) -> Iterable[object]:
        """One event for each time."""
        (code,) = values
        yield HelperError(self.helper, code, self.text or os.strerror(-code), self.span)
