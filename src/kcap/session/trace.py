# SPDX-License-Identifier: Apache-2.0
"""A running trace: load, attach, read events, end cleanly."""

from __future__ import annotations

import os
import select
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from kcap.closing import Closing
from kcap.codegen.environment import Environment
from kcap.codegen.module import EVENTS, LOST
from kcap.errors import KcapError
from kcap.functions import events
from kcap.kernel.ringbuf import RingReader
from kcap.session.iteration import Reading
from kcap.session.programs import LoadedScript
from kcap.session.reading import EventReader
from kcap.session.runtime import Runtime

if TYPE_CHECKING:
    from threading import Thread

    from kcap.codegen.compiled import Compiled
    from kcap.codegen.objects import ObjectSource
    from kcap.kernel.maps import Map
    from kcap.packet.sink import SiteStats
    from kcap.sema.types import Type
    from kcap.session.child import Child
    from kcap.session.compiled import CompiledScript
    from kcap.session.packets import PacketCapture, PacketOptions
    from kcap.session.script import Checked
    from kcap.session.symbols import LazyUserSymbols

#: The rings are looked at this often, in seconds, though no record woke the reader.
TICK = 0.1
#: Losses are looked at this often, in seconds.
LOSS_INTERVAL = 1.0


class Trace(Closing):
    """A script that runs. Use it as a context manager, and iterate over it.

    ``with kcap.trace(text) as trace: for event in trace: …`` yields the events of
    ``kcap.functions.events`` and the packets of ``kcap.packet`` until the script calls ``exit()``,
    :meth:`stop` is called, or the process that it follows ends; then what the exit prints (maps).
    Leaving the block detaches everything and closes the files.

    :param script: a script that was checked, or compiled, too.
    :param objects: where the compiled programs come from: by default LLVM, without a cache.
    :param child: the command of ``-c``, waiting to be started; the trace closes it.
    :param packets: yield packets, too (writing them to their files is faster without), or all
        that there is to say of what becomes of them.
    :raises KcapError: nothing is left attached then, and no half-written file.
    """

    def __init__(
        self,
        script: Checked | CompiledScript,
        objects: ObjectSource | None = None,
        child: Child | None = None,
        *,
        packets: bool | PacketOptions = True,
    ) -> None:
        self.timings = script.timings
        self.system = script.system
        self.probe_count = 0
        self._loaded: LoadedScript | None = None
        self._reading = Reading()
        self._iterators: Thread | None = None
        self._failure: BaseException | None = None
        self._ring: RingReader | None = None
        self._child = child
        self._packets: PacketCapture | None = None
        self._processes: LazyUserSymbols | None = None
        self._maps: dict[str, Map] = {}
        self._followed = -1
        self._lost: dict[int, int] = {}
        self._stopping = False
        self._closed = False
        #: Called after every look at the rings, at least every 100 ms.
        self.on_tick: Callable[[], None] = _nothing
        #: Yield :class:`~kcap.functions.events.Looked` after every look, too.
        self.tell_looks = False
        #: How long to wait for records before looking at the rings all the same, in seconds.
        self.tick = TICK
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._start(script, objects, packets)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        attached = f"{self.probe_count} probes attached" if self.probe_count else "not attached"
        return f"<Trace {self.script.source.name!r}: {'closed' if self._closed else attached}>"

    # --- starting ---

    def _start(
        self,
        script: Checked | CompiledScript,
        objects: ObjectSource | None,
        packets: bool | PacketOptions,
    ) -> None:
        if script.options.pid is not None:
            self._followed = _open_process(script.options.pid)
        self.script = script.ready(objects)
        self.compiled: Compiled = self.script.compiled
        if self.compiled.collected:
            self._packets = self._capture(packets)
        with self.timings.phase("load"):
            try:
                self._loaded = LoadedScript(
                    self.compiled, self.system, self.script.with_lines, *self._log()
                )
            except KcapError:
                self.script.check()  # which tells more, if something changed since it was kept
                raise
        self._maps = self._loaded.maps
        self.runtime = Runtime(self._maps, self._environment())
        self.runtime.unwatch = self._loaded.unwatch
        self.reader = EventReader(self.compiled.sites, self.runtime)
        if EVENTS in self._maps:
            self._ring = RingReader(self._maps[EVENTS])
        if self._packets is not None:
            self._packets.open(self._maps)

    def _capture(self, packets: bool | PacketOptions) -> PacketCapture:
        """What becomes of the packets; its modules are loaded only if there are any."""
        from kcap.session.packets import PacketCapture, PacketOptions

        if isinstance(packets, bool):
            packets = PacketOptions(deliver=packets)
        return PacketCapture(self.script, packets, self._kernel_symbol)

    def _log(self) -> tuple[bool, int]:
        """Whether the verifier's log of each program is asked for, and how large it may be (0: as
        large as it is)."""
        config, asked = self.script.config, self.script.options
        limited = (asked.verbose or asked.verifier_log) and "log_size" in config.origins
        return asked.verifier_log or limited, config.log_size if limited else 0

    def _environment(self) -> Environment:
        from kcap.session.symbols import LazyKernelSymbols, LazyUserSymbols, StoredStacks

        self.kernel_symbols = LazyKernelSymbols()
        self._processes = LazyUserSymbols(self._traced_files())
        if self.script.names_processes:
            self._processes.watch()
        return Environment(
            self.script.config,
            kernel=self.kernel_symbols,
            user=self._processes,
            stacks=StoredStacks(self._maps),
        )

    @property
    def checked(self) -> Checked:
        """The script as it was checked; one that was kept compiled is checked again."""
        return self.script.check()

    def _kernel_symbol(self, address: int) -> str:
        """The name of the kernel's function that an address is in."""
        return self.runtime.environment.kernel_symbol(address)

    def _traced_files(self) -> list[str]:
        """The paths of programs and libraries that probes are in."""
        targets = [t for p in self.compiled.programs for t in p.context.targets]
        found = (getattr(target, "binary", None) for target in targets)
        return list(dict.fromkeys(binary.path for binary in found if binary is not None))

    def attach(self) -> int:
        """Run the ``begin`` probes, attach all others, start the command; how many probes.

        Called by iteration if it wasn't before.

        :raises NotAttachedError: a probe cannot be attached.
        :raises UsageError: the command cannot be executed.
        """
        if self.probe_count:
            return self.probe_count
        loaded = self.loaded
        if self._packets is not None:
            self._packets.start()
        loaded.run("begin")
        with self.timings.phase("attach"):
            try:
                self.probe_count = loaded.attach()
            except KcapError:
                self.script.check()
                raise
        if self._child is not None:
            self._child.start()
        return self.probe_count

    def ways(self) -> list[str]:
        """How probes with many targets were attached, a line each."""
        return self.loaded.ways()

    @property
    def loaded(self) -> LoadedScript:
        """The script's maps, programs and links in the kernel."""
        assert self._loaded is not None, "a trace whose loading failed is closed"
        return self._loaded

    @property
    def signals(self) -> set[int]:
        """Signals that ``self:signal`` probes wait for; see :meth:`signalled`."""
        return self.loaded.signals()

    def signalled(self, number: int) -> None:
        """Run the ``self:signal`` probes of a signal that the process has received."""
        self.loaded.run("self", number)

    # --- running ---

    def __iter__(self) -> Iterator[object]:
        """Every event of the trace, then what its exit prints."""
        count = self.attach()
        yield from self._missing()
        yield events.AttachedProbes(count)
        if self.script.options.mode:
            yield from self._run_by_hand()
        else:
            yield from self._follow()
        missed = self.loaded.missed()
        self.detach()
        if self._failure is not None:
            raise self._failure
        if self.runtime.exit_status is not None:
            self._discard()
        else:
            yield from self._pending()
        self.loaded.run("end")
        yield from self._drain()
        yield from self._losses()
        yield from missed
        yield events.TraceEnded()
        yield from self._final_maps()

    def __aiter__(self) -> AsyncIterator[object]:
        """The same events for ``async for``: a thread of its own reads them, until it has come to
        the end, or the trace is closed."""
        return self._reading.awaited(self, self.stop)

    def stop(self) -> None:
        """End the trace; may be called from a signal handler or another thread, also when it has
        ended.

        What is in the rings is still handled, but no ``system()`` is begun after two more seconds.
        """
        self.runtime.hurry()
        self._finish()

    def _finish(self) -> None:
        self._stopping = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    @property
    def exit_status(self) -> int:
        """What ``exit()`` asked for; 0 otherwise."""
        return self.runtime.exit_status or self.runtime.final_status

    def _missing(self) -> Iterator[object]:
        """A warning for each probe that the kernel refused and the script can do without."""
        if self.system.missing_probes == "warn":
            for refusal in self.loaded.missing:
                (found,) = refusal.diagnostics
                yield events.Message("warning", found.title, found.span)

    def _run_by_hand(self) -> Iterator[object]:
        """Run the script's ``test`` or ``bench`` probes, which is all there is to do then."""
        from kcap.session import byhand

        self.reader.on_text = None  # what they print is not simply passed on
        run = byhand.run_tests if self.script.options.mode == "test" else byhand.run_benchmarks
        yield from run(self.loaded, self._read, self.runtime)

    def _follow(self) -> Iterator[object]:
        yield from self._start_iterators()
        next_losses = time.monotonic() + LOSS_INTERVAL
        with select.epoll() as poll:
            for source in self._sources():
                poll.register(source, select.EPOLLIN)
            if self._ring is not None:
                poll.register(self._ring.fileno(), select.EPOLLIN | select.EPOLLET)
            ended = False
            waits = not self._all_probes_have_run()
            while not (self._stopping or ended or self._complete()):
                ready = {fd for fd, _ in poll.poll(self._rest() if waits else 0)}
                ended = self._ended(ready) or not waits
                looked = time.monotonic_ns()
                yield from self._read()
                if self.tell_looks:
                    yield events.Looked(looked)
                if self._processes is not None:
                    self._processes.keep_up()
                self.on_tick()
                if self.runtime.exit_status is not None:
                    return
                if time.monotonic() >= next_losses:
                    next_losses += LOSS_INTERVAL
                    yield from self._losses()

    def _rest(self) -> float:
        """How long nothing needs to be looked at, in seconds."""
        return self.tick if self._ring is None else self._ring.rest(self.tick)

    def _all_probes_have_run(self) -> bool:
        """Whether there is nothing to wait for: all probes are ``begin`` and ``end``."""
        providers = {program.context.provider for program in self.compiled.programs}
        return providers <= {"begin", "end"} and self._child is None and self._followed < 0

    def _complete(self) -> bool:
        """Whether all the packets that were wanted are there."""
        return self._packets is not None and self._packets.complete

    def _start_iterators(self) -> Iterator[object]:
        """Run attached iterators in a thread of their own; the trace ends with the last one. One
        that is pinned is left to who reads it."""
        from kcap.kernel.links import IteratorLink
        from kcap.probes.iterator import run_iterator

        links = [link for link in self.loaded.links if isinstance(link, IteratorLink)]
        if not links:
            return
        for link in links:
            if link.pinned:
                yield events.TextPrinted("printf", f"Program pinned to {link.pinned}\n")
        from threading import Thread

        def work() -> None:
            try:
                for link in links:
                    if not link.pinned:
                        run_iterator(link)
            except BaseException as error:
                self._failure = error
            finally:
                self._finish()

        self._iterators = Thread(target=work)
        self._iterators.start()

    def _sources(self) -> list[int]:
        """Descriptors that are readable as long as there is something to do."""
        sources = [self._wake]
        if self._packets is not None:
            sources.extend(self._packets.filenos())
        if self._child is not None:
            sources.append(self._child.fileno())
        if self._followed >= 0:
            sources.append(self._followed)
        return sources

    def _ended(self, ready: set[int]) -> bool:
        """Whether a process that the trace follows has ended."""
        child = self._child.fileno() if self._child is not None else -1
        return child in ready or (self._followed >= 0 and self._followed in ready)

    def _read(self) -> Iterator[object]:
        """What is in the rings now; nothing that comes after ``exit()``."""
        if self._ring is not None:
            yield from self.reader.read_ring(self._ring)
        if self._packets is not None:
            yield from self._packets.read(self.runtime.exit_ns)

    def _drain(self) -> Iterator[object]:
        """Everything that is left in the rings, once nothing writes to them any more."""
        status, self.runtime.exit_status = self.runtime.exit_status, None
        yield from self._read()
        if self.runtime.exit_status is None:
            self.runtime.exit_status = status
        if self._packets is not None:
            yield from self._packets.finish(self.runtime.exit_ns)

    def _pending(self) -> Iterator[object]:
        """What the rings held when the last probe was detached."""
        yield from self._read()
        not_run = self.runtime.all_is_handled()
        if not_run:
            text = f"{not_run} commands of system() were not run: the trace was stopped"
            yield events.Message("warning", text, None)

    def _discard(self) -> None:
        """Drop the events that came between ``exit()`` and detaching, as the language wants."""
        if self._ring is not None:
            self._ring.read()
            self._ring.release()

    def _losses(self) -> Iterator[object]:
        """A report for each loss counter that has grown."""
        if not self.compiled.lost:
            return
        counters = memoryview(self._maps[LOST].lookup(bytes(4)) or b"").cast("Q")
        for slot, (counter, total) in enumerate(zip(self.compiled.lost, counters, strict=True)):
            new = total - self._lost.get(slot, 0)
            if new:
                self._lost[slot] = total
                if self._packets is not None:
                    self._packets.set_lost(slot, total)
                yield events.Lost(new, counter.kind, counter.subject)  # type: ignore[arg-type]

    def _final_maps(self) -> Iterator[object]:
        if not self.script.config.print_maps_on_exit:
            return
        for map_ in sorted(self.script.maps.values(), key=lambda m: m.name):
            entries = self.runtime.read_map(map_)
            if entries:
                yield events.MapPrinted(map_, entries)

    # --- ending ---

    def detach(self) -> None:
        """Detach all probes; the rings may still hold events."""
        if self._iterators is not None:
            self._iterators.join()
            self._iterators = None
        if self._loaded is not None:
            self._loaded.detach()

    def read_map(self, name: str) -> list[tuple[Any, Any]]:
        """What a map of the script holds now: each (key, value), decoded, in no order. The key of a
        map without keys is None.

        :param name: with its ``@``.
        :raises UsageError: the script has no such map.
        """
        map_ = self.script.maps.get(name)
        if map_ is None:
            from kcap.errors import UsageError

            names = ", ".join(self.script.maps) or "none"
            raise UsageError(f"the script has no map {name}", hint=f"its maps: {names}")
        return self.runtime.read_map(map_)

    def text(self, event: object) -> str:
        """What the command line prints of an event: a map sorted and with its bars, stacks and
        addresses by name; '' if nothing. As long as the trace is not closed."""
        from kcap.output.text import TextRenderer

        return TextRenderer(self.runtime.environment).output(event)

    def name(self, type: Type, value: object) -> str:
        """A decoded value as ``print()`` shows it: a stack as its frames, an address as its
        function, a user by name. As long as the trace is not closed.

        :param type: the value's type, such as ``event.map.key``.
        """
        from kcap.functions import display

        return display.text(type, value, self.runtime.environment)

    @property
    def packet_stats(self) -> Sequence[SiteStats]:
        """What became of the packets of each ``skboutput()`` call, in the script's order."""
        return self._packets.stats if self._packets is not None else ()

    def summary(self) -> Sequence[str]:
        """What there is to say of the packets at the end, a line each."""
        return self._packets.summary() if self._packets is not None else ()

    def close(self) -> None:
        """Detach, end the command, close files and maps. May be called twice.

        :raises FileError: a capture file could not take its last packets.
        """
        if self._closed:
            return
        self._reading.close()
        self._closed = True
        wake, self._wake = self._wake, -1
        with ExitStack() as last_first:  # all of it, whatever fails
            for fd in (wake, self._followed):
                if fd >= 0:
                    last_first.callback(os.close, fd)
            for part in (self._loaded, self._packets, self._processes, self._ring, self._child):
                if part is not None:
                    last_first.callback(part.close)
            last_first.callback(self.detach)


def _nothing() -> None:
    """What happens on a tick unless somebody wants something else."""


def _open_process(pid: int) -> int:
    from kcap.errors import UsageError

    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise UsageError(f"-p {pid}: {os.strerror(error.errno or 0)}") from error
