# SPDX-License-Identifier: Apache-2.0
"""Probes that the session runs itself: ``begin``, ``end``, ``self:signal``, ``test``, ``bench``.

Their programs are raw tracepoint programs that are attached to nothing; BPF_PROG_TEST_RUN runs
them (raw tracepoints can since 5.10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.kernel import uapi
from kcap.probes.base import ProbeType, match_all
from kcap.probes.problems import no_match, suggestion
from kcap.sema.probe import ProbeContext
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kcap.lang.ast import AttachPoint
    from kcap.probes.base import Part
    from kcap.probes.system import System


class Manual(ProbeType):
    """Base of the probes that the session runs."""

    manual = True
    lasting = True

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        self.parts(point, system)
        return [self._context(self.name)]

    def _context(self, name: str, *targets: object) -> ProbeContext:
        return ProbeContext(
            self.name,
            name,
            uapi.BPF_PROG_TYPE_RAW_TRACEPOINT,
            targets=targets,
            args_missing=f"{self.name} probes have no arguments",
        )


class Begin(Manual):
    """Before all other probes are attached."""

    name = "begin"
    aliases = ("BEGIN",)
    summary = "Once, before all other probes are attached"
    cost = "one run"
    signatures = ("begin",)

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        return iter(() if parts and parts != ["*"] else (self.name,))


class End(Begin):
    """After all other probes are detached."""

    name = "end"
    aliases = ("END",)
    summary = "Once, after all other probes are detached"
    cost = "one run"
    signatures = ("end",)


class SelfSignal(Manual):
    """kcap itself receives a signal; the target of the context is the signal's number."""

    name = "self"
    aliases = ()
    summary = "The tracer itself receives a signal"
    cost = "one run for each signal"
    signatures = ("self:signal:SIGNAL",)

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        kind, name = self.parts(point, system, 2, 2)
        if kind.text != "signal":
            raise self.malformed(kind.span, f"no such event: {kind.text}")
        number = _signal(name)
        return [self._context(f"self:signal:{name.text}", number)]

    def names(self, parts: Sequence[str], system: System) -> Iterator[str]:
        names = sorted(_signals())
        return (f"self:signal:{n}" for n in names if match_all(parts, ["signal", n]))


def _signals() -> dict[str, int]:
    """The signals that a process can catch."""
    import signal

    never = (signal.SIGKILL, signal.SIGSTOP)
    return {s.name: int(s) for s in signal.Signals if s not in never}


def _signal(part: Part) -> int:
    """The number of a signal, written ``SIGUSR1`` or ``USR1``."""
    known = _signals()
    found = known.get(part.text) or known.get(f"SIG{part.text}")
    if found is None:
        help_, edits = suggestion(part.span, nearest(part.text, known))
        raise no_match(
            "self",
            f"signal:{part.text}",
            part.span,
            label="no such signal",
            help=help_,
            edits=edits,
        )
    return found


class Test(Manual):
    """A test case, run in test mode only."""

    name = "test"
    summary = "A test case; runs with --mode test only"
    signatures = ("test:NAME",)

    def resolve(
        self, point: AttachPoint, uses: Collection[str], system: System
    ) -> list[ProbeContext]:
        (name,) = self.parts(point, system, 1, 1)
        return [self._context(f"{self.name}:{name.text}", name.text)]


class Bench(Test):
    """A micro benchmark, run in bench mode only."""

    name = "bench"
    summary = "A micro benchmark; runs with --mode bench only"
    signatures = ("bench:NAME",)
