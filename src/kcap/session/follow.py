# SPDX-License-Identifier: Apache-2.0
"""Following packets through the kernel: ``kcap follow``.

What is asked for becomes a script, as for ``kcap capture``: one kprobe for all functions that have
the sk_buff as the same argument, which sends the start of the packet; tracepoints and functions
that free it; functions that copy it. A packet that passes the filter at the first function is
remembered by the address of its sk_buff, and seen everywhere until it is freed, whatever becomes of
its headers; so are its copies. :mod:`kcap.session.journey` puts together what comes out.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kcap.errors import UsageError
from kcap.probes.kprobe import KprobeTarget
from kcap.probes.traceable import KERNEL
from kcap.records import dataclass
from kcap.session import drops, follow_conntrack
from kcap.session.capture import WHOLE, Capture, CaptureRequest, Progress, conditions, quote
from kcap.session.drop_reasons import Reasons
from kcap.session.follow_places import COPYING, FREEING, choose
from kcap.session.in_order import InOrder
from kcap.session.iteration import Iteration
from kcap.session.journey import Copied, Freed, Function, Journey, Stacked, Tracked, Tracker
from kcap.session.skb_functions import SkbPoint, list_functions

if TYPE_CHECKING:
    from kcap.packet.decode import Packet
    from kcap.probes.system import System

    _Happened = Packet | Freed | Copied | Tracked | Stacked

#: The signal whose probe says that everything is attached; nobody sends it.
READY = signal.SIGUSR1
#: Bytes from skb->data on that are enough for all headers.
HEADERS = 256
#: Packets on their way at one time; beyond, the oldest is forgotten.
MAX_TRACKED = 16384
#: Bytes that events of a kind have in common: see :func:`_event`.
_FREED, _DROPPED, _CONSUMED, _COPIED, _TRACKED, _STACKED = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class FollowRequest:
    """What to follow.

    :param capture: filters, and where the packets go as they are seen (its places are not looked
        at). Its ``count`` is of packets, not of sights.
    :param functions: patterns for the functions to look at, with ``*``; empty for those that tell
        of the way (:mod:`kcap.session.follow_places`).
    :param copies: follow copies, too.
    :param stacks: with the call stack at each sight.
    """

    capture: CaptureRequest
    functions: Sequence[str] = ()
    copies: bool = True
    stacks: bool = False


class Follow(Capture):
    """A trace of packets' ways. Iterate over :meth:`journeys`.

    :param request: what to follow.
    :param progress: as of :class:`Capture`; that all are to be attached is told before the first.
    :raises UsageError: no function is left, or a filter is wrong.
    :raises ScriptError: the expression is wrong.
    :raises KcapError: the kernel refuses it.
    """

    def __init__(self, request: FollowRequest, progress: Progress | None = None) -> None:
        self.follow = request
        self._groups: dict[str, list[SkbPoint]] = {}
        #: At how many functions packets are seen.
        self.functions = 0
        self._freeing: list[SkbPoint] = []
        self._copying: list[SkbPoint] = []
        self._reasons = Reasons()
        self._conntrack = False
        self._known: dict[int, tuple[Function, int]] = {}
        self._waiting: InOrder[_Happened] = InOrder()
        self.tracker = Tracker(self._function)
        super().__init__(request.capture, progress)

    @property
    def losses(self) -> int:
        """How many sights of packets found the rings full."""
        from kcap.functions.events import Lost

        return sum(event.count for event in self._messages if isinstance(event, Lost))

    # --- the script ---

    def _places(self, system: System) -> list[SkbPoint]:
        """One function for each argument that is the packet; the others are added later."""
        found = list(list_functions("*", system))
        several = system.has("kprobe_multi")
        chosen = list(choose(found, self.follow.functions, several=several))
        if not chosen:
            raise UsageError(
                f"no function that takes a packet is called {', '.join(self.follow.functions)}",
                hint="kcap capture --list shows what there is",
            )
        for index in dict.fromkeys(point.index for point in chosen):
            group = [point for point in chosen if point.index == index]
            self._groups[f"kprobe:{_first(group).name}"] = group
        places = [
            SkbPoint("kprobe", name.partition(":")[2], group[0].argument, group[0].index)
            for name, group in self._groups.items()
        ]
        self.functions = len(chosen)
        if self._progress is not None:
            self._progress("attaching", 0, len(chosen))
        by_name = {point.name: point for point in found}
        self._freeing = [by_name[name] for name in FREEING if name in by_name]
        if self._freeing:
            self._groups[f"kprobe:{self._freeing[0].name}"] = self._freeing
        self._copying = [by_name[name] for name in COPYING if name in by_name]
        return places

    def _script(self, system: System) -> str:
        self._reasons = Reasons.of(system)
        self._conntrack = follow_conntrack.known(system)
        parts = [
            "config = { print_maps_on_exit = 0 }",
            f"let @followed = lruhash({MAX_TRACKED});",
        ]
        if self._conntrack:
            parts.append(f"let @tracked = lruhash({MAX_TRACKED});")
        parts.append(f"self:signal:{READY.name} {{ @ready = 1; }}")
        parts += [self._sight(point) for point in self.points]
        parts += self._frees()
        if self.follow.copies:
            parts += [_copy(point.name) for point in self._copying]
        return "\n".join(parts) + "\n"

    def attach(self) -> None:
        """Attach the probes, unless they are; then let packets be taken.

        One that came while only some functions were looked at would have half a way.

        :raises AttachError: a function cannot be attached to.
        """
        super().attach()
        self.trace.signalled(READY)

    def _sight(self, point: SkbPoint) -> str:
        """The probe that sees packets at all functions with the same argument."""
        request = self.request
        wanted = " && ".join(conditions(point, request)) or f"{point.skb}.protocol != 0"
        refuse, begun = "if (@ready == 0) { return; } ", ""
        if request.count:
            refuse += f"if (@started >= {request.count}) {{ return; }} "
            begun = "@started += 1; "
        refuse += f"if (!({wanted})) {{ return; }} "
        path = quote(request.script_path)
        length = (request.snaplen or WHOLE) if request.path else HEADERS
        return (
            f"{point.probe} {{ $skb = {point.skb}; if (!has_key(@followed, (uint64)$skb)) {{ "
            f"{refuse}{begun}@followed[(uint64)$skb] = 1; }} "
            f"{self._more()}skboutput_linear({path}, $skb, {length}, 0); }}"
        )

    def _more(self) -> str:
        """What is told of a sight beside the packet itself."""
        told = follow_conntrack.statement(_TRACKED) if self._conntrack else ""
        if self.follow.stacks:
            told += (
                f'printf("%d %d %d\\n%s", (uint64){_STACKED}, (uint64)nsecs(monotonic), '
                f"(uint64)$skb, kstack({drops.STACK_DEPTH})); "
            )
        return told

    def _frees(self) -> Iterator[str]:
        reason = "(uint64)args.reason" if self._reasons.known else "0"
        place = "(uint64)args.location"
        yield f"rawtracepoint:kfree_skb {{ {self._end(_DROPPED, 'args.skb', reason, place)} }}"
        place = place if self._reasons.consumed_where else "0"
        yield f"rawtracepoint:consume_skb {{ {self._end(_CONSUMED, 'args.skb', '0', place)} }}"
        if self._freeing:  # all of them have it as their first argument
            end = self._end(_FREED, "arg0", "0", 'reg("ip")')
            yield f"kprobe:{self._freeing[0].name} {{ {end} }}"

    def _end(self, kind: int, skb: str, reason: str, place: str) -> str:
        """A statement that tells how a packet's way ended, and forgets the packet."""
        maps = ("@followed", "@tracked") if self._conntrack else ("@followed",)
        forget = " ".join(f"delete({name}, (uint64){skb});" for name in maps)
        return _event(kind, skb, reason, place, forget)

    def _prepare(self) -> None:
        """Let each probe have all the functions of its group."""
        for program in self.checked.script.programs:
            context = program.context
            group = self._groups.get(context.name)
            if group is not None:
                context.targets = tuple(KprobeTarget(point.name, point.module) for point in group)
                context.function = ""
                context.extra["expanded"] = True

    @property
    def _delivers(self) -> bool:
        return True

    @property
    def _limit(self) -> int:
        return 0

    # --- what comes out ---

    def journeys(self) -> Iteration[Journey]:
        """Every packet's way when it has ended; at the end those that have not. Also for
        ``async for``."""
        return Iteration(self._journeys(), self.stop, self._reading)

    def _journeys(self) -> Iterator[Journey]:
        from kcap.functions.events import Looked
        from kcap.packet.decode import Packet

        self.attach()
        trace = self.trace
        trace.tell_looks = True
        wanted = self.request.count or 1 << 62
        ended = 0
        for event in trace:
            if isinstance(event, Packet):
                self._waiting.add(event.mono_ns, event)
            elif (found := self._decoded(event)) is not None:
                self._waiting.add(found.mono_ns, found)
            elif isinstance(event, Looked):
                for journey in self._track(self._waiting.settled(event.mono_ns)):
                    yield journey
                    ended += not journey.copy_of
                if ended >= wanted:
                    self.stop()
            else:
                self._messages.append(event)
        yield from self._track(self._waiting.rest())
        yield from self.tracker.rest()

    def _decoded(self, event: object) -> Freed | Copied | Tracked | Stacked | None:
        from kcap.functions.events import Printf

        if not isinstance(event, Printf):
            return None
        kind, mono_ns, skb, *rest = event.values
        if kind == _TRACKED:
            return Tracked(mono_ns, skb, follow_conntrack.connection(rest))
        if kind == _STACKED:
            return Stacked(mono_ns, skb, drops.printed_frames(event.text))
        first, place = rest
        if kind == _COPIED:
            return Copied(mono_ns, skb, first)
        if kind == _DROPPED:
            return Freed(mono_ns, skb, "dropped", self._reasons.name(first), place)
        return Freed(mono_ns, skb, "consumed" if kind == _CONSUMED else "freed", "", place)

    def _track(self, happened: Iterator[_Happened]) -> Iterator[Journey]:
        """Take what happened, in the order of time; the ways that ended."""
        tracker = self.tracker
        for event in happened:
            if isinstance(event, Freed):
                journey = tracker.freed(event)
                if journey is not None:
                    yield journey
            elif isinstance(event, Copied):
                tracker.copied(event)
            elif isinstance(event, Tracked):
                tracker.tracked(event)
            elif isinstance(event, Stacked):
                tracker.stacked(event)
            else:
                tracker.seen(event)

    def _function(self, address: int) -> tuple[Function, int]:
        found = self._known.get(address)
        if found is None:
            symbol = self.trace.kernel_symbols.find(address)
            if symbol is None:
                found = Function(f"{address:#x}", ""), 0
            else:
                found = Function(symbol.name, symbol.module), symbol.offset
            self._known[address] = found
        return found


def _first(points: Sequence[SkbPoint]) -> SkbPoint:
    """The first function of the kernel itself; without one, of all."""
    return next((point for point in points if point.module == KERNEL), points[0])


def _event(kind: int, skb: str, first: str, place: str, after: str) -> str:
    """A statement that tells what became of a packet that is followed.

    :param after: what is done then.
    """
    return (
        f"if (has_key(@followed, (uint64){skb})) {{ "
        f'printf("%d %d %d %d %d\\n", (uint64){kind}, (uint64)nsecs(monotonic), (uint64){skb}, '
        f"(uint64){first}, (uint64){place}); {after} }}"
    )


def _copy(name: str) -> str:
    """The probe of a function that makes a copy: (new, old) are its arguments."""
    return f"kprobe:{name} {{ {_event(_COPIED, 'arg1', 'arg0', '0', '@followed[arg0] = 1;')} }}"
