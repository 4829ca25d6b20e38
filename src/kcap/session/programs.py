# SPDX-License-Identifier: Apache-2.0
"""The loaded maps and programs of a script: loading them, attaching them, running those that
attach to nothing."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kcap.codegen.module import OWN_MAPS, START_TIME, TAI_OFFSET
from kcap.errors import NoProbesError, UsageError
from kcap.kernel.collection import Collection
from kcap.kernel.errors import (
    AttachError,
    SyscallError,
    VerifierError,
)
from kcap.kernel.maps import Map
from kcap.kernel.programs import Program
from kcap.kernel.spec import MapType, ProgramType
from kcap.probes.registry import probe_type
from kcap.records import dataclass, field, replace
from kcap.words import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kcap.codegen.compiled import Compiled, CompiledProgram
    from kcap.diagnose.attaching import NotAttachedError
    from kcap.errors import KcapError
    from kcap.functions.events import Missed
    from kcap.kernel.links import Link
    from kcap.kernel.spec import MapSpec, ProgramSpec
    from kcap.probes.base import Load, ProbeType
    from kcap.probes.system import System


@dataclass(slots=True)
class LoadedProbe:
    """A probe whose programs are loaded.

    :param kind: its type.
    :param compiled: its program.
    :param programs: one, or one a target; see :meth:`kcap.probes.base.ProbeType.load_specs`.
    :param links: what keeps it attached.
    """

    kind: ProbeType
    compiled: CompiledProgram
    programs: list[tuple[Load, Program]] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)


class LoadedScript:
    """All maps and programs of a script in the kernel; :meth:`close` takes them away.

    :param compiled: the script.
    :param system: the machine. Targets of wildcards that the kernel refuses are noted in its
        ``skipped``.
    :param with_lines: compiles the script once more with the place of each instruction, to say
        where it goes wrong when the kernel refuses a program; None: that is not said.
    :param log: ask for the verifier's log of every program, not only of one that it refuses.
    :param log_size: how many bytes that log has to fit; 0: any number.
    :raises ProgramRefusedError: the verifier refuses a program; nothing is left behind.
    :raises SyscallError: any other refusal.
    :raises UsageError: probes that can't share a script.
    """

    def __init__(
        self,
        compiled: Compiled,
        system: System,
        with_lines: Callable[[], Compiled] | None = None,
        log: bool = False,
        log_size: int = 0,
    ) -> None:
        self._compiled = compiled
        self._with_lines = with_lines
        self._system = system
        self._log = int(log), log_size
        self._collection = Collection()
        self.maps = self._collection.maps
        self.probes: list[LoadedProbe] = []
        self.links: list[Link] = []
        #: Why probes are not attached, where the setting ``missing_probes`` lets them be missing.
        self.missing: list[NotAttachedError] = []
        #: How many probes are attached.
        self.count = 0
        self._clocks: dict[str, int] | None = None
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        own = [spec for spec in self._compiled.maps if spec.name in OWN_MAPS]
        for spec in self._compiled.maps:
            if spec not in own:
                self._create(spec)
        for program in self._compiled.programs:
            probe = LoadedProbe(probe_type(program.context.provider), program)
            self.probes.append(probe)
            self._load_probe(probe, own)
        _check_company(self.probes)

    def _create(self, spec: MapSpec) -> None:
        try:
            self.maps[spec.name] = Map.create(spec)
        except SyscallError as error:
            from kcap.diagnose.mapkeys import map_refused

            raise map_refused(error, spec, self._compiled.script) from error

    def _load_probe(self, probe: LoadedProbe, own: list[MapSpec]) -> None:
        context = probe.compiled.context
        lenient = bool(context.extra.get("expanded"))
        first: SyscallError | None = None
        refused: Load | None = None
        loads = probe.kind.load_specs(context, self._system)
        for done, load in enumerate(loads, 1):
            self._system.progress("loading", done, len(loads))
            try:
                probe.programs.append((load, self._load_program(probe, load, own)))
            except SyscallError as error:
                first, refused = first or error, refused or load
                if not lenient:
                    break
                self._system.skipped.append(error)
        if first is None or (lenient and probe.programs):
            return
        if isinstance(first, VerifierError) and refused is not None:
            raise self._explained(first, probe, refused, own) from first
        raise first

    def _explained(
        self, error: VerifierError, probe: LoadedProbe, load: Load, own: list[MapSpec]
    ) -> KcapError:
        """The verifier's refusal in terms of the script: the program is compiled and loaded once
        more, with its lines."""
        from kcap.codegen.llvm import CodegenError
        from kcap.diagnose.verifier import refused

        index, script = self._compiled.programs.index(probe.compiled), self._compiled.script
        context = script.programs[index].context
        # E2BIG: no instruction is to blame more than another, and asking again takes seconds.
        if self._with_lines is None or error.errno == errno.E2BIG:
            return refused(error, context, script)
        try:
            traced = self._with_lines().programs[index]
        except CodegenError:  # LLVM took it without lines: they are not worth another error
            return refused(error, context, script)
        try:
            self._load_program(LoadedProbe(probe.kind, traced), load, own).close()
        except VerifierError as second:
            if second.summary == error.summary:
                return refused(second, context, script, traced.places)
        except SyscallError:  # a kernel that does not take the lines
            return refused(error, context, script, traced.places)
        return refused(error, context, script)

    def _load_program(self, probe: LoadedProbe, load: Load, own: list[MapSpec]) -> Program:
        maps = dict(self.maps)
        mine: list[Map] = []
        try:
            for spec in own:
                mine.append(Map.create(spec))
                maps[spec.name] = mine[-1]
            made = self._dated(load.apply(probe.compiled.spec))
            return Program.load(made, maps, *self._log)
        finally:  # the program keeps its own maps alive
            for map_ in mine:
                map_.close()

    def _dated(self, spec: ProgramSpec) -> ProgramSpec:
        """A program with the clocks' readings that it wants; they are the same in all programs."""
        wanted = {relocation.symbol for relocation in spec.relocations} & {START_TIME, TAI_OFFSET}
        if not wanted:
            return spec
        if self._clocks is None:
            from kcap.functions.clock import constants

            self._clocks = constants()
        found = tuple((name, self._clocks[name]) for name in wanted)
        return replace(spec, constants=spec.constants + found)

    def attach(self) -> int:
        """Attach all probes; how many there are then, those that are run by hand included.

        :raises NotAttachedError: a probe cannot be attached, and ``missing_probes`` wants all of
            them; the others stay until :meth:`detach`.
        """
        for probe in _in_attaching_order(self.probes):
            context = probe.compiled.context
            if probe.kind.manual:
                self.count += 1
                continue
            refused = len(self._system.skipped)
            try:
                probe.links = probe.kind.attach(context, probe.programs, self._system)
                self.links.extend(probe.links)
            except SyscallError as error:
                from kcap.diagnose.attaching import not_attached

                refusal = not_attached(error, context)
                if self._system.missing_probes == "error" or not isinstance(error, AttachError):
                    raise refusal from error
                self.missing.append(refusal)
                continue
            refused = len(self._system.skipped) - refused
            targets = sum(len(load.targets) for load, _ in probe.programs)
            self.count += max(1, targets - refused)
        if not self.count:
            raise self.missing[0]
        return self.count

    def ways(self) -> list[str]:
        """How the probes with more than one target, or of both ends of one, were attached, a line
        each."""
        found = []
        for probe in self.probes:
            context = probe.compiled.context
            targets = sum(len(load.targets) for load, _ in probe.programs)
            if targets > 1 or context.at_return is not None:
                way = probe.kind.way(context, [load for load, _ in probe.programs])
                programs = plural(len(probe.programs), "program")
                found.append(f"{context.name}: {plural(targets, 'target')}, {programs}, {way}")
        return found

    def contents(self) -> list[str]:
        """What was put into the kernel: its maps and programs, a line each."""
        maps = [
            f"map {spec.name}: {_name(MapType, spec.type)}, {spec.max_entries} entries, "
            f"keys of {spec.key_size} bytes, values of {spec.value_size}"
            for spec in self._compiled.maps
        ]
        programs = [
            f"program {probe.compiled.context.name}: {_name(ProgramType, program.spec.type)}, "
            f"{len(program.spec.insns) // 8} instructions"
            for probe in self.probes
            for _, program in probe.programs
        ]
        return [*maps, *programs]

    def verifier_logs(self) -> list[tuple[str, tuple[str, ...]]]:
        """What the verifier said to each program that is loaded, by the probe's name."""
        return [
            (probe.compiled.context.name, program.log)
            for probe in self.probes
            for _, program in probe.programs
        ]

    def run(self, provider: str, target: object = None) -> None:
        """Run the programs of ``begin``, ``end``, ``self:signal``.

        :param target: only those of this target (a signal's number), unless None.
        """
        for probe in self.probes:
            context = probe.compiled.context
            if context.provider == provider and (target is None or target in context.targets):
                for _, program in probe.programs:
                    program.run()

    def unwatch(self, address: int) -> None:
        """Detach the watchpoints at an address."""
        for probe in self.probes:
            if probe.kind.watches(probe.compiled.context, address):
                for link in probe.links:
                    link.close()

    def missed(self) -> list[Missed]:
        """What the kernel did not give to the programs, as far as it tells; before detaching."""
        from kcap.functions.events import Missed
        from kcap.kernel.info import link_missed, program_runs

        found = []
        try:
            for probe in self.probes:
                name = probe.compiled.context.name
                count = sum(program_runs(p.fileno()).missed for _, p in probe.programs)
                found.append(Missed(count, name, "recursion"))
            for link in self.links:
                count = sum(map(link_missed, link.bpf_links))
                found.append(Missed(count, link.what, "nmissed"))
        except SyscallError:  # a kernel that doesn't tell: then nothing is claimed
            return []
        return [item for item in found if item.count]

    def signals(self) -> set[int]:
        """The numbers of the signals that ``self:signal`` probes wait for."""
        return {
            number
            for probe in self.probes
            if probe.compiled.context.provider == "self"
            for number in probe.compiled.context.targets
        }

    def detach(self) -> None:
        """Detach all probes at once."""
        from kcap.kernel.links import close_all

        links, self.links = self.links, []
        total, progress = len(links), self._system.progress
        close_all(links, lambda left: progress("detaching", total - left, total))
        progress("detaching", total, total)

    def close(self) -> None:
        """Detach, and take programs and maps away. May be called twice."""
        self.detach()
        for probe in self.probes:
            for _, program in probe.programs:
                program.close()
        self._collection.close()


def _name(enumeration: type, value: int) -> str:
    """What an enumeration of bpf(2) calls a value."""
    return next((name for name, known in vars(enumeration).items() if known == value), str(value))


def _in_attaching_order(probes: Iterable[LoadedProbe]) -> list[LoadedProbe]:
    """The probes so that those at one place run in the script's order."""
    oldest_first = [probe for probe in probes if not probe.kind.newest_first]
    newest_first = [probe for probe in probes if probe.kind.newest_first]
    return [*oldest_first, *reversed(newest_first)]


def _check_company(probes: Iterable[LoadedProbe]) -> None:
    """Iterators stand alone in a script.

    :raises UsageError: one doesn't; or there is no probe at all.
    """
    kinds = [probe.kind for probe in probes]
    if not kinds:
        raise NoProbesError()
    alone = next((kind for kind in kinds if kind.alone), None)
    if alone is not None and len(kinds) > 1:
        raise UsageError(f"{alone.name} probes can't be mixed with any other probe")
