# SPDX-License-Identifier: Apache-2.0
"""The user-space half of a running script: its maps, its symbols, its wish to exit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kcap.codegen import map_specs
from kcap.sema.types import Aggregate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kcap.codegen.environment import Environment
    from kcap.kernel.maps import Map
    from kcap.sema import tree

#: For so long the commands of ``system()`` that are pending are still run when the trace is
#: stopped, in seconds. A script whose commands cause its own events would otherwise never end.
PATIENCE = 2.0


class Runtime:
    """What functions may ask of the trace (:class:`kcap.codegen.site.Runtime`).

    :param maps: the loaded BPF maps by name.
    :param environment: symbols, clocks, users.
    :ivar exit_status: what ``exit()`` asked for, or None while it was not called.
    :ivar exit_ns: when it was called, CLOCK_MONOTONIC, or None.
    :ivar final_status: the exit status of a trace that ends by itself.
    :ivar unwatch: detaches the watchpoints at an address; the trace sets it.
    """

    def __init__(self, maps: Mapping[str, Map], environment: Environment) -> None:
        self._maps = maps
        self.environment = environment
        self.exit_status: int | None = None
        self.exit_ns: int | None = None
        self.final_status = 0
        self.unwatch: Callable[[int], None] = _watches_nothing
        self._deadline: float | None = None
        self._not_run = 0

    def read_map(self, map_: tree.Map) -> list[tuple[Any, Any]]:
        """All decoded (key, value) pairs; the parts of all CPUs put together."""
        loaded = self._loaded(map_)
        value = map_.value
        if isinstance(value, Aggregate):
            return self._read_aggregate(map_, value, loaded)
        keyed = map_.key is not None
        decode_key = map_specs.key_type(map_).decode
        if map_.per_cpu:
            return [
                (
                    decode_key(key) if keyed else None,
                    _sum_parts([value.decode(p) for p in loaded.split(data)]),
                )
                for key, data in loaded.items()
            ]
        pairs = list(loaded.items())
        values = value.decode_all(data for _, data in pairs)
        if not keyed:
            return [(None, each) for each in values]
        key_type = map_specs.key_type(map_)
        keys = key_type.decode_all(key[: key_type.size] for key, _ in pairs)
        return list(zip(keys, values, strict=True))

    def _read_aggregate(
        self, map_: tree.Map, value: Aggregate, loaded: Map
    ) -> list[tuple[Any, Any]]:
        layout = value.map_layout(map_.key)
        parts = [(key, loaded.split(data)) for key, data in loaded.items()]
        if map_.in_array:
            parts = [(key, each) for key, each in parts if any(p[layout.set_at] for p in each)]
        if not parts:
            return value.collect((), map_.key is not None)
        keys = layout.key.decode_all([key[: layout.key.size] for key, _ in parts])
        size = layout.value.size
        decoded = iter(layout.value.decode_all([p[:size] for _, each in parts for p in each]))
        by_cpu = map(list, zip(*[decoded] * len(parts[0][1]), strict=True))
        return value.collect(zip(keys, by_cpu, strict=True), map_.key is not None)

    def clear_map(self, map_: tree.Map) -> None:
        """Delete all keys; an array's elements become zero."""
        self._loaded(map_).clear()

    def zero_map(self, map_: tree.Map) -> None:
        """Set every value to zero, on every CPU."""
        loaded = self._loaded(map_)
        for key, data in list(loaded.items()):
            zero = bytearray(len(data))
            if map_.in_array:
                assert isinstance(map_.value, Aggregate)
                mark = map_.value.map_layout(None).set_at
                zero[mark :: loaded.stride] = data[mark :: loaded.stride]
            loaded.update(key, bytes(zero))

    def request_exit(self, status: int, mono_ns: int) -> None:
        """End the trace; the first call counts."""
        if self.exit_status is None:
            self.exit_status = status
        if self.exit_ns is None:
            self.exit_ns = mono_ns

    def set_status(self, status: int) -> None:
        """The exit status for when the trace ends by itself; the first counts."""
        self.final_status = self.final_status or status

    def hurry(self) -> None:
        """Run no more commands after a while: the trace is to end."""
        if self._deadline is None:
            self._deadline = time.monotonic() + PATIENCE

    def may_run(self) -> bool:
        """Whether there is time left to run a command; a refusal is counted."""
        if self._deadline is None or time.monotonic() < self._deadline:
            return True
        self._not_run += 1
        return False

    def all_is_handled(self) -> int:
        """Note that nothing is pending any more; how many commands were not run."""
        self._deadline = None
        not_run, self._not_run = self._not_run, 0
        return not_run

    def _loaded(self, map_: tree.Map) -> Map:
        return self._maps[map_specs.symbol(map_.name)]


def _sum_parts(parts: list[Any]) -> Any:
    """The values of all CPUs of a declared per-CPU map: numbers are added up."""
    if all(isinstance(part, int) for part in parts):
        return sum(parts)
    return next((part for part in parts if part), parts[0])


def _watches_nothing(address: int) -> None:
    """There is no watchpoint."""
