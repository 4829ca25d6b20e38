# SPDX-License-Identifier: Apache-2.0
"""Dropped packets: why and where the kernel freed them (``kcap drops``).

The tracepoint skb:kfree_skb is passed for every packet that is freed because something was wrong
with it; those that went their way are freed by consume_skb(). Since Linux 5.17 it has a reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kcap.records import dataclass, replace
from kcap.session.capture import Capture, CaptureRequest, generate
from kcap.session.drop_reasons import Reasons

if TYPE_CHECKING:
    from kcap.packet.decode import Packet
    from kcap.probes.system import System
    from kcap.symbols.kernel_source import KernelSource

PLACE = "rawtracepoint:kfree_skb"
#: Bytes from skb->data on that are enough to say what a packet is.
HEADERS = 256
#: How functions are called that stand between a tracepoint and the trace.
_OWN = ("bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_", "bpf_trampoline_")
#: Most functions of a call stack.
STACK_DEPTH = 24


@dataclass(frozen=True, slots=True)
class Drop:
    """Packets that were dropped for one reason at one place.

    :param reason: the kernel's name without ``SKB_DROP_REASON_``; '' before 5.17.
    :param place: function and offset that freed them, or the address.
    :param interfaces: names of skb->dev, the most frequent first.
    :param processes: names of the processes that were current, the most frequent first.
    :param source: as of :class:`DroppedPacket`.
    """

    reason: str
    place: str
    count: int
    interfaces: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    source: str = ""


@dataclass(slots=True)
class DroppedPacket:
    """One packet that was dropped.

    :param packet: its start, and what the probe saw of it.
    :param reason: as of :class:`Drop`.
    :param place: as of :class:`Drop`.
    :param stack: the call stack, innermost function first; empty unless asked for.
    :param source: the source line of the place; '' unless asked for, or if it is not known.
    """

    packet: Packet
    reason: str
    place: str
    stack: Sequence[str]
    source: str = ""


class Drops(Capture):
    """A trace of dropped packets. Iterate over it to run it, or over :meth:`packets` to see each;
    :attr:`table` can be read meanwhile.

    :param request: filters, and a path for the packets themselves; its places are not looked at.
    :param each: :meth:`packets` is wanted: packets are told one by one, not only counted.
    :param stacks: with call stacks.
    :param source: with source lines, from the debugging information of the kernel's image.
    :raises UsageError: as :class:`Capture`; there is no debugging information.
    """

    def __init__(
        self,
        request: CaptureRequest,
        *,
        each: bool = False,
        stacks: bool = False,
        source: bool = False,
    ) -> None:
        self._reasons = Reasons()
        self._source = _running_kernels_source() if source else None
        self._lines: dict[int, str] = {}
        self._each, self._stacks = each, stacks
        #: What was told of packets whose start has not been seen yet, by sk_buff.
        self._told: dict[int, list[tuple[str, str, list[str], str]]] = {}
        self._seen: dict[int, list[Packet]] = {}
        super().__init__(replace(request, places=(PLACE,)))

    def _script(self, system: System) -> str:
        self._reasons = Reasons.of(system)
        skb = self.points[0].skb
        reason = "(uint64)args.reason" if self._reasons.known else "(uint64)0"
        place = "(uint64)args.location"
        extra = f"@drops[{reason}, {place}, {skb}.dev.name, comm] = count(); "
        if self._each:
            stack, value = (" %s", f", kstack({STACK_DEPTH})") if self._stacks else ("", "")
            extra += f'printf("%d %d %d{stack}\\n", (uint64){skb}, {reason}, {place}{value}); '
        request = self.request
        if self._each and not request.path:
            request = replace(request, snaplen=request.snaplen or HEADERS)
        output = self._each or bool(request.path)
        return generate(self.points, request, extra=extra, output=output)

    def packets(self) -> Iterator[DroppedPacket]:
        """Every packet that is dropped, as it is told.

        Packets and what is told of them come through rings of their own: they are put together by
        the sk_buff's address, in order.
        """
        from kcap.functions.events import Printf
        from kcap.packet.decode import Packet

        for event in self.trace:
            if isinstance(event, Packet):
                self._seen.setdefault(event.skb, []).append(event)
                yield from self._paired(event.skb)
            elif isinstance(event, Printf):
                skb, reason, place = event.values[:3]
                self._told.setdefault(skb, []).append(
                    (
                        self._reasons.name(reason), self._symbol(place),
                        printed_frames(event.text), self._line(place),
                    )
                )  # fmt: skip
                yield from self._paired(skb)
            else:
                self._messages.append(event)

    def _paired(self, skb: int) -> Iterator[DroppedPacket]:
        seen, told = self._seen.get(skb), self._told.get(skb)
        if seen and told:
            yield DroppedPacket(seen.pop(0), *told.pop(0))
            if not seen:
                del self._seen[skb]
            if not told:
                del self._told[skb]

    def _symbol(self, address: int) -> str:
        return self.trace.runtime.environment.kernel_symbol(address, offset=True)

    def _line(self, address: int) -> str:
        """The source line that a call returns to; '' if not known."""
        if self._source is None:
            return ""
        if address not in self._lines:
            self._lines[address] = self._source.line(address, called=True)
        return self._lines[address]

    @property
    def table(self) -> list[Drop]:
        """What has been dropped so far, the most frequent first."""
        rows: dict[tuple[str, str, str], dict[tuple[str, str], int]] = {}
        for (reason, location, interface, process), count in self.trace.read_map("@drops"):
            key = self._reasons.name(reason), self._symbol(location), self._line(location)
            row = rows.setdefault(key, {})
            row[interface, process] = row.get((interface, process), 0) + count
        drops = [
            Drop(reason, place, sum(row.values()), _frequent(row, 0), _frequent(row, 1), source)
            for (reason, place, source), row in rows.items()
        ]
        return sorted(drops, key=lambda drop: (-drop.count, drop.reason, drop.place))

    @property
    def _delivers(self) -> bool:
        return self._each

    @property
    def messages(self) -> Sequence[object]:
        """What else the trace said: losses."""
        return self._messages


def _running_kernels_source() -> KernelSource:
    from kcap.symbols.kallsyms import Kallsyms
    from kcap.symbols.kernel_source import KernelSource

    kallsyms = Kallsyms.kernel()
    image = os.environ.get("BPFTRACE_VMLINUX", "")
    return KernelSource(image, kallsyms) if image else KernelSource.running(kallsyms)


def printed_frames(text: str) -> list[str]:
    """The functions of a stack behind the first line of a text, without the trace's own."""
    frames = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    own = (index for index, frame in enumerate(frames) if not frame.startswith(_OWN))
    return frames[next(own, 0) :]


def _frequent(row: Mapping[tuple[str, str], int], part: int) -> tuple[str, ...]:
    """One part of the keys, the most frequent first."""
    counts: dict[str, int] = {}
    for key, count in row.items():
        if key[part]:
            counts[key[part]] = counts.get(key[part], 0) + count
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))
