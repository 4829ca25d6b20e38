# SPDX-License-Identifier: Apache-2.0
"""How long each phase of a start takes, for ``-v`` and the benchmarks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """Phases in the order they ran, in seconds of wall-clock time.

    :ivar phases: (name, seconds) pairs.
    """

    def __init__(self) -> None:
        self.phases: list[tuple[str, float]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what runs within; phases of the same name are added up."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - started)

    def add(self, name: str, seconds: float) -> None:
        """Note a phase that was timed elsewhere."""
        for index, (known, spent) in enumerate(self.phases):
            if known == name:
                self.phases[index] = (name, spent + seconds)
                return
        self.phases.append((name, seconds))

    @property
    def total(self) -> float:
        """Seconds of all phases together."""
        return sum(seconds for _, seconds in self.phases)

    def lines(self) -> list[str]:
        """One line a phase, with milliseconds, and the total."""
        rows = [*self.phases, ("total", self.total)]
        width = max(len(name) for name, _ in rows)
        return [f"{name:<{width}}  {1000 * seconds:8.1f} ms" for name, seconds in rows]
