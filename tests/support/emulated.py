# SPDX-License-Identifier: Apache-2.0
"""kcap's command line without a kernel: scripts of ``begin``, ``end`` and timers run on the BPF
machine of :mod:`support.bpf_machine`. Everything else is as it is on a real kernel: what is
checked, compiled, read from the ring, made of it and printed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

from kcap.cli.main import main
from kcap.codegen.compile import Compiled
from kcap.codegen.module import Features
from kcap.kernel import ringbuf, uapi
from kcap.kernel.maps import Map
from kcap.kernel.spec import MapSpec
from kcap.session import script
from kcap.session.preparation import Preparation
from kcap.session.programs import LoadedScript
from kcap.session.script import Checked
from support.bpf_machine import Machine, Memory

TIMERS = ("interval", "profile")


class EmulatedMap(Map):
    """A map of the machine."""

    def __init__(self, machine: Machine, spec: MapSpec, address: int) -> None:
        self.machine, self.spec, self.address = machine, spec, address
        self.stride = spec.value_size

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        if self.spec.type in (uapi.BPF_MAP_TYPE_ARRAY, uapi.BPF_MAP_TYPE_PERCPU_ARRAY):
            for index in range(self.spec.max_entries):
                key = index.to_bytes(4, "little")
                yield key, self.machine.element(self.spec.name, key)
            return
        for key, value in list(self.machine.elements[self.address].items()):
            yield key, self.machine.memory.read(value, self.spec.value_size) or b""

    def lookup(self, key: bytes) -> bytes | None:
        if self.spec.type == uapi.BPF_MAP_TYPE_ARRAY:
            return self.machine.element(self.spec.name, key)
        return dict(self.items()).get(key)

    def update(self, key: bytes, value: bytes, flags: int = uapi.BPF_ANY) -> None:
        self.machine.memory.write(self._address(key), value)

    def delete(self, key: bytes) -> bool:
        return self.machine.elements[self.address].pop(key, None) is not None

    def keys(self) -> list[bytes]:
        return list(self.machine.elements[self.address])

    def clear(self) -> None:
        if self.spec.type == uapi.BPF_MAP_TYPE_HASH or self.spec.max_entries > 1:
            self.machine.elements[self.address].clear()
        else:
            self.update(bytes(4), bytes(self.spec.value_size))

    def _address(self, key: bytes) -> int:
        return self.machine.elements[self.address].get(key, self.machine.values[self.spec.name])

    def close(self) -> None:
        pass


class EmulatedRing(ringbuf.RingReader):
    """The machine's ring; large enough that it never begins anew."""

    SIZE = 1 << 20

    def __init__(self, ring: EmulatedMap) -> None:
        self.machine, self.size = ring.machine, self.SIZE
        self.data = memoryview(bytearray(2 * self.SIZE))
        self.words = self.data.cast("I")
        self._start = self._end = 0
        self._pace = ringbuf.Pace(self.SIZE, 0.0)
        self._wake = os.eventfd(1)

    def fileno(self) -> int:
        return self._wake

    def arm(self) -> int:
        return self._end

    def pending(self) -> tuple[int, int]:
        records = self.machine.records
        for record in records[:]:
            whole = struct.pack("<II", len(record), 0) + record + bytes(-len(record) % 8)
            self.data[self._end : self._end + len(whole)] = whole
            self._end += len(whole)
        records.clear()
        assert self._end < self.SIZE
        return self._start, self._end

    def release(self, position: int | None = None) -> None:
        self._start = self._next if position is None else position

    def close(self) -> None:
        os.close(self._wake)


class EmulatedScript(LoadedScript):
    """A script whose programs run on the machine."""

    def __init__(self, compiled: Compiled, *_: object) -> None:
        self.compiled, self.links, self.missing, self.probes = compiled, [], [], []
        self.started = False
        self.machine = Machine(compiled.programs[0].spec, compiled.maps, Memory())
        self.maps = {
            spec.name: EmulatedMap(self.machine, spec, address)
            for spec, address in self.machine.by_spec(compiled.maps)
        }

    def run(self, provider: str, target: object = None) -> None:
        for program in self.compiled.programs:
            if program.context.provider == provider:
                self.machine.load(program.spec)
                self.machine.again() if self.started else self.machine.run()
                self.started = True

    def attach(self) -> int:
        providers = {program.context.provider for program in self.compiled.programs}
        assert providers <= {"begin", "end", *TIMERS}, "this takes a kernel"
        for timer in TIMERS:
            self.run(timer)
        return len(self.compiled.programs)

    def missed(self) -> list[Any]:
        return []

    def detach(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Preparation(Preparation):
    def prepare(self, text: str, name: str) -> Checked:
        return self.check(text, name)

    def check(self, text: str, name: str) -> Checked:
        return script.compile(text, name=name, options=self.options)


def _no_bpf(*_: object) -> int:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def run(words: list[str], name: str = "kcap") -> int:
    """Run a command line in this process; its exit status.

    :param name: what it was called as.
    """
    with contextlib.ExitStack() as patches:
        for target, value in {
            "kcap.kernel.syscall._syscall": _no_bpf,
            "kcap.session.trace.LoadedScript": EmulatedScript,
            "kcap.session.trace.RingReader": EmulatedRing,
            "kcap.session.features.probe_features": lambda *_: Features(),
            "kcap.session.preparation.Preparation": _Preparation,
        }.items():
            patches.enter_context(mock.patch(target, value))
        patches.enter_context(mock.patch.object(sys, "argv", [name, *words]))
        return main(words)
