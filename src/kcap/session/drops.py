# SPDX-License-Identifier: Apache-2.0
"""Dropped packets: why and where the kernel freed them (``kcap drops``).

The tracepoint skb:kfree_skb is passed for every packet that is freed because something was wrong
with it; those that went their way are freed by consume_skb(). Since Linux 5.17 it has a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.btf.layout import tracepoint_prototype
from kcap.records import dataclass, field, replace
from kcap.session.capture import Capture, Request, generate

if TYPE_CHECKING:
    from kcap.btf import Btf
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

    def __init__(self, request: Request) -> None:
        self._reasons = Reasons()
        super().__init__(replace(request, places=(PLACE,)))

    def _script(self, system: System) -> str:
        self._reasons = Reasons.of(system.btf)
        reason = "(uint64)args.reason" if self._reasons.known else "0"
        extra = f"@drops[{reason}, (uint64)args.location] = count(); "
        return generate(self.points, self.request, extra=extra, output=bool(self.request.path))

    @property
    def table(self) -> list[Drop]:
        """What has been dropped so far, the most frequent first."""
        trace = self.trace
        symbol = trace.runtime.environment.kernel_symbol
        found: dict[tuple[str, str], int] = {}
        for (reason, location), count in trace.runtime.read_map(self.checked.script.maps["@drops"]):
            key = self._reasons.name(reason), symbol(location, offset=True)
            found[key] = found.get(key, 0) + count
        drops = [Drop(reason, place, count) for (reason, place), count in found.items()]
        return sorted(drops, key=lambda drop: (-drop.count, drop.reason, drop.place))

    @property
    def _delivers(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Reasons:
    """What a kernel says of the packets that it frees.

    :param known: kfree_skb has a reason (5.17).
    :param names: the reasons' names by number.
    :param consumed_where: consume_skb says where (6.4).
    """

    known: bool = False
    names: Mapping[int, str] = field(default_factory=dict)
    consumed_where: bool = False

    @classmethod
    def of(cls, btf: Btf | None) -> Reasons:
        """What a kernel's types tell."""
        if btf is None:
            return cls()
        enum = btf.enum_value(_KNOWN)
        return cls(
            _has(btf, "kfree_skb", "reason"),
            reason_names(enum[0]) if enum is not None else {},
            _has(btf, "consume_skb", "location"),
        )

    def name(self, number: int) -> str:
        """A reason's name; '' where there are none."""
        if not number and not self.names:
            return ""
        named = self.names.get(number)
        if named is None and number >> _SUBSYSTEM_SHIFT:
            return f"subsystem {number >> _SUBSYSTEM_SHIFT} reason {number & 0xFFFF}"
        return named or f"reason {number}"


def _has(btf: Btf, event: str, name: str) -> bool:
    """Whether a tracepoint has an argument of a name."""
    proto = tracepoint_prototype(btf, event)
    return proto is not None and any(param.name == name for param in proto.params)


def reason_names(enum: b.Enum) -> dict[int, str]:
    """The names of drop reasons by number."""
    return {
        value: name.removeprefix(_PREFIX)
        for name, value in enum.values
        if name not in (f"{_PREFIX}MAX", f"{_PREFIX}SUBSYS_MASK")
    }
