# SPDX-License-Identifier: Apache-2.0
"""The names of the kernel's reasons for dropping packets, from the types of kernel and modules.

Reasons came with Linux 5.17 (enum skb_drop_reason). Since 6.4 subsystems have enumerations of their
own, with the subsystem's number in the upper half (include/net/dropreason.h).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.btf.layout import tracepoint_prototype
from kcap.packet.record import reason_name
from kcap.records import dataclass, field

if TYPE_CHECKING:
    from kcap.btf import Btf
    from kcap.probes.system import System

_PREFIX = "SKB_DROP_REASON_"
#: A reason that every kernel with reasons has: the enumeration is found by it.
_KNOWN = "SKB_DROP_REASON_NOT_SPECIFIED"
#: Reasons of subsystems (since 6.4) have their names in enumerations of the modules.
_SUBSYSTEM_ENUMS = ("ovs_drop_reason", "mac80211_drop_reason")


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
    def of(cls, system: System) -> Reasons:
        """What the types of a kernel and its modules tell."""
        btf = system.btf
        if btf is None:
            return cls()
        enum = btf.enum_value(_KNOWN)
        names = reason_names(enum[0]) if enum is not None else {}
        for module in system.btf_modules if names else ():
            own = system.module_btf(module)
            for name in _SUBSYSTEM_ENUMS:
                for found in own.find_all(name, b.Enum) if own is not None else ():
                    names |= {value: constant.lstrip("_") for constant, value in found.values}
        where = _has(btf, "consume_skb", "location")
        return cls(_has(btf, "kfree_skb", "reason"), names, where)

    def name(self, number: int) -> str:
        """A reason's name; '' where there are none."""
        return reason_name(number, self.names)


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
