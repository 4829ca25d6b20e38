# SPDX-License-Identifier: Apache-2.0
"""Iterating from asyncio: a thread of its own runs the trace while the program awaits events."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

MOST_WAITING: Final = 4096
"""So many may wait for the program; then the thread does, and what the rings have no room for the
kernel's side counts as lost."""
_TURNS: Final = 64
"""After so many other tasks have their turn, also where more are there to be had."""


class Awaited(Generic[T]):
    """An asynchronous iterator over what a thread iterates over.

    Made within a running event loop, by whose tasks alone it is awaited.

    :param source: what is iterated over, in the thread, from its beginning to its end.
    :param stop: makes ``source`` end soon; may be called from any thread.
    """

    def __init__(self, source: Iterable[T], stop: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = stop
        self._waiting: deque[T] = deque()
        self._room = threading.Semaphore(MOST_WAITING)
        self._woken = asyncio.Event()
        self._turns = 0
        self._left = False
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, args=(source,), name="kcap trace")
        self._thread.start()

    def __aiter__(self) -> Awaited[T]:
        return self

    async def __anext__(self) -> T:
        """The next one.

        :raises BaseException: what the iteration raised, once.
        """
        while not self._waiting:
            if self._ended:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            self._woken.clear()
            if not self._waiting and not self._ended:  # nothing came meanwhile
                await self._woken.wait()
        self._turns += 1
        if self._turns % _TURNS == 0:
            await asyncio.sleep(0)
        self._room.release()
        return self._waiting.popleft()

    def close(self) -> None:
        """End the iteration, and wait for the thread; what has not been awaited is dropped."""
        self._left = True
        self._stop()
        self._room.release()
        self._thread.join()

    def _read(self, source: Iterable[T]) -> None:
        try:
            for each in source:
                self._room.acquire()
                if self._left:  # the end has to be gone through all the same
                    self._room.release()
                    continue
                self._waiting.append(each)
                if len(self._waiting) == 1:
                    self._wake()
        except BaseException as error:  # whoever awaits gets it
            self._error = error
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._woken.set)
