# SPDX-License-Identifier: Apache-2.0
"""Dropped packets: why and where the kernel freed them (``kcap drops``).

The tracepoint skb:kfree_skb is passed for every packet that is freed because something was wrong
with it; those that went their way are freed by consume_skb(). Since Linux 5.17 it has a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.btf.layout import tracepoint_prototype
from kcap.records import dataclass, replace
from kcap.session.capture import Capture, Request, generate

if TYPE_CHECKING:
    from kcap.probes.system import System

PLACE = "rawtracepoint:kfree_skb"
_PREFIX = "SKB_DROP_REASON_"
#: A reason that every kernel with reasons has: the enumeration is found by it.
_KNOWN = "SKB_DROP_REASON_NOT_SPECIFIED"
#: Reasons of subsystems (mac80211, openvswitch) have their number here (since 6.4); their names
#: are not in the enumeration.
_SUBSYSTEM_SHIFT = 16


@dataclass(frozen=True, slots=True)
class Drop:
    """Packets that were dropped for one reason at one place.

    :param reason: the kernel's name without ``SKB_DROP_REASON_``; '' before 5.17.
    :param place: function and offset that freed them, or the address.
    """

    reason: str
    place: str
    count: int


class Drops(Capture):
    """A trace of dropped packets. Iterate to run it; :attr:`table` can be read meanwhile.

    :param request: filters, and a path for the packets themselves; its places are not looked at.
    :raises UsageError: as :class:`Capture`.
    """

    _deliver = False

    def __init__(self, request: Request) -> None:
        self._reasons: dict[int, str] = {}
        super().__init__(replace(request, places=(PLACE,)))

    def _script(self, system: System) -> str:
        reason = "0"
        btf = system.btf
        proto = tracepoint_prototype(btf, "kfree_skb") if btf is not None else None
        if btf is not None and proto is not None:
            if any(param.name == "reason" for param in proto.params):
                reason = "(uint64)args.reason"
            found = btf.enum_value(_KNOWN)
            self._reasons = reason_names(found[0]) if found is not None else {}
        extra = f"@drops[{reason}, (uint64)args.location] = count(); "
        return generate(self.points, self.request, extra=extra, output=bool(self.request.path))

    @property
    def table(self) -> list[Drop]:
        """What has been dropped so far, the most frequent first."""
        trace = self.trace
        symbol = trace.runtime.environment.kernel_symbol
        found: dict[tuple[str, str], int] = {}
        for (reason, location), count in trace.runtime.read_map(self.checked.script.maps["@drops"]):
            key = self._reason(reason), symbol(location, offset=True)
            found[key] = found.get(key, 0) + count
        drops = [Drop(reason, place, count) for (reason, place), count in found.items()]
        return sorted(drops, key=lambda drop: (-drop.count, drop.reason, drop.place))

    def _reason(self, number: int) -> str:
        if not number and not self._reasons:
            return ""
        named = self._reasons.get(number)
        if named is None and number >> _SUBSYSTEM_SHIFT:
            return f"subsystem {number >> _SUBSYSTEM_SHIFT} reason {number & 0xFFFF}"
        return named or f"reason {number}"


def reason_names(enum: b.Enum) -> dict[int, str]:
    """The names of drop reasons by number."""
    return {
        value: name.removeprefix(_PREFIX)
        for name, value in enum.values
        if name not in (f"{_PREFIX}MAX", f"{_PREFIX}SUBSYS_MASK")
    }
