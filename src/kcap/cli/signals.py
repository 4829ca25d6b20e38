# SPDX-License-Identifier: Apache-2.0
"""Signals while something is traced."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator


@contextlib.contextmanager
def ended_by_signals(
    stop: Callable[[], None],
    others: Iterable[int] = (),
    take: Callable[[int], None] | None = None,
) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a trace in order; a second one ends it at once.

    So does SIGHUP, as often as it comes: when a terminal goes away, its shell and the kernel send
    one each. With nohup(1), which has it ignored, it still is.

    :param stop: ends the trace; is called from the signal handler.
    :param others: further signals that mean something to the trace.
    :param take: is told of each of these.
    :raises KeyboardInterrupt: in the block, on the second signal.
    """
    received = 0

    def handle(number: int, frame: object) -> None:
        nonlocal received
        received += 1
        if received > 1:
            raise KeyboardInterrupt
        stop()

    def pass_on(number: int, frame: object) -> None:
        if take is not None:
            take(number)

    def hang_up(number: int, frame: object) -> None:
        stop()

    handlers: dict[int, Callable[[int, object], None]] = {}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        handlers[signal.SIGHUP] = hang_up
    handlers |= dict.fromkeys(others, pass_on) | {signal.SIGINT: handle, signal.SIGTERM: handle}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
