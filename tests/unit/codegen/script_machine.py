# SPDX-License-Identifier: Apache-2.0
"""Runs whole scripts on the BPF machine: compiled as for the kernel, read as from the kernel."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from kcap.codegen.compile import Compiled, compile_script
from kcap.codegen.environment import Environment
from kcap.codegen.module import LOST, Features
from kcap.codegen.site import HEADER_SIZE
from kcap.functions.registry import all_functions
from kcap.kernel.spec import MapSpec, MapType
from kcap.lang import ast
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.output.text import TextRenderer
from kcap.sema.analyzer import analyze
from kcap.sema.config import Config
from kcap.sema.kerneltypes import KernelTypes
from kcap.sema.probe import ProbeContext
from kcap.session.runtime import Runtime
from support.bpf_machine import Machine, Memory

RAW_TRACEPOINT = 17


class _Every:
    """Every probe is ``begin``, or what a test gives."""

    def __init__(self, context: ProbeContext | None) -> None:
        self._context = context

    def join(self, contexts: Sequence[ProbeContext]) -> Sequence[ProbeContext]:
        return contexts

    def resolve(self, attach_point: ast.AttachPoint, uses: Collection[str]) -> list[ProbeContext]:
        return [self._context or ProbeContext("begin", "begin", RAW_TRACEPOINT)]


@dataclass
class _Loaded:
    """A map of the machine, as a loaded BPF map reads."""

    machine: Machine
    spec: MapSpec
    address: int

    @property
    def stride(self) -> int:
        return self.spec.value_size

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        if self.spec.type == MapType.PERCPU_ARRAY and self.spec.max_entries == 1:
            yield bytes(4), self.machine.element(self.spec.name, bytes(4))
        for key, value in self.machine.elements[self.address].items():
            yield key, self.machine.memory.read(value, self.spec.value_size) or b""

    def split(self, data: bytes) -> list[bytes]:
        return [data]

    def update(self, key: bytes, value: bytes) -> None:
        address = self.machine.elements[self.address].get(key, self.machine.values[self.spec.name])
        self.machine.memory.write(address, value)

    def clear(self) -> None:
        self.machine.elements[self.address].clear()
        self.machine.memory.write(self.machine.values[self.spec.name], bytes(self.spec.value_size))


@dataclass
class Outcome:
    """What a script did.

    :ivar text: what it printed.
    :ivar messages: what it said on standard error.
    :ivar lost: the counters of lost things, by (kind, subject).
    """

    text: str
    messages: list[str]
    lost: dict[tuple[str, str], int]
    runtime: Runtime
    compiled: Compiled
    machine: Machine

    def map(self, name: str) -> dict[object, object]:
        """A map's entries."""
        return dict(self.runtime.read_map(self.compiled.script.maps[name]))


def compiled(
    text: str,
    features: Features | None = None,
    config: Config | None = None,
    *,
    helper_errors: bool = False,
    context: ProbeContext | None = None,
) -> Compiled:
    """Compile a script whose probes are all ``begin``, or what is given."""
    types = KernelTypes(None)
    script = analyze(
        parse(Source("test", text)),
        functions=all_functions(),
        probes=_Every(context),
        types=types,
        config=config or Config(),
        unsafe=True,
    )
    return compile_script(script, features or Features(), helper_errors=helper_errors)


def run(
    text: str,
    features: Features | None = None,
    config: Config | None = None,
    *,
    full: bool = False,
    rounds: int = 1,
    helper_errors: bool = False,
    context: ProbeContext | None = None,
    slots: Sequence[int] = (),
    memory: Memory | None = None,
) -> Outcome:
    """Run all probes of a script, in order, and what user space makes of their events.

    :param full: the event ring has no room.
    :param rounds: how often.
    :param helper_errors: report failing helpers.
    :param context: what its probes are, instead of ``begin``.
    :param slots: what the program is given, 8 bytes each.
    :param memory: what there is beside the program's own.
    """
    made = compiled(text, features, config, helper_errors=helper_errors, context=context)
    machine = Machine(made.programs[0].spec, made.maps, memory or Memory())
    machine.pid, machine.tid, machine.uid, machine.gid = 4242, 4243, 1000, 100
    machine.comm, machine.cpu, machine.mono_ns, machine.full = b"curl", 3, 1_000_000_123, full
    machine.run(*slots)
    for _ in range(rounds - 1):
        machine.again()
    for program in made.programs[1:]:
        machine.load(program.spec)
        machine.again()
    loaded = {spec.name: _Loaded(machine, spec, at) for spec, at in machine.by_spec(made.maps)}
    environment = Environment(made.script.config)
    runtime = Runtime(loaded, environment)  # type: ignore[arg-type]
    renderer = TextRenderer(environment)
    printed, messages = [], []
    for record in machine.records:
        site = made.sites[int.from_bytes(record[:4], "little")]
        events = list(site.receive(record, HEADER_SIZE, runtime))
        printed += [renderer.output(event) for event in events]
        messages += [message for event in events if (message := renderer.message(event))]
    return Outcome("".join(printed), messages, _lost(made, machine), runtime, made, machine)


def _lost(made: Compiled, machine: Machine) -> dict[tuple[str, str], int]:
    counts = {}
    for slot, counter in enumerate(made.lost):
        value = machine.element(LOST, bytes(4))[8 * slot : 8 * slot + 8]
        counts[counter.kind, counter.subject] = int.from_bytes(value, "little")
    return counts


def output(text: str, features: Features | None = None) -> str:
    """What a script prints."""
    return run(text, features).text
