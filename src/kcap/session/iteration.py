# SPDX-License-Identifier: Apache-2.0
"""What a trace yields, by ``for`` and by ``async for``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from kcap.session.awaited import Awaited

T = TypeVar("T")


class Reading:
    """The thread that reads a trace while it is awaited, if it ever is; see :class:`Awaited`."""

    def __init__(self) -> None:
        self._awaited: Awaited[Any] | None = None

    def awaited(self, source: Iterable[T], stop: Callable[[], None]) -> AsyncIterator[T]:
        """``source`` for ``async for``; asked again, what is left of it.

        :param stop: makes ``source`` end soon; may be called from any thread.
        """
        from kcap.session.awaited import Awaited

        if self._awaited is None:
            self._awaited = Awaited(source, stop)
        return self._awaited

    def close(self) -> None:
        """End the thread, if there is one."""
        if self._awaited is not None:
            self._awaited.close()


class Iteration(Generic[T]):
    """An iterator for ``for`` and ``async for``; with the latter a thread of its own reads.

    :param source: what is iterated over.
    :param stop: makes ``source`` end soon; may be called from any thread.
    :param reading: has the thread; whoever closes it has to be done with the trace.
    """

    def __init__(self, source: Iterator[T], stop: Callable[[], None], reading: Reading) -> None:
        self._source, self._stop, self._reading = source, stop, reading

    def __iter__(self) -> Iterator[T]:
        return self._source

    def __next__(self) -> T:
        return next(self._source)

    def __aiter__(self) -> AsyncIterator[T]:
        return self._reading.awaited(self._source, self._stop)
