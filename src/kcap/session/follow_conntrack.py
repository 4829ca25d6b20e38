# SPDX-License-Identifier: Apache-2.0
"""What netfilter's connection tracking knows of a packet that is followed.

``skb->_nfct`` is the address of a struct nf_conn, with the packet's part in the connection in its
lowest bits (NFCT_INFOMASK, include/linux/skbuff.h). A connection has two tuples: what its first
packet came with, and what answers to it come with, which differs where there is NAT.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from kcap import btf as b
from kcap.packet.headers import Layer
from kcap.probes.traceable import KERNEL

if TYPE_CHECKING:
    from kcap.probes.system import System

#: enum ip_conntrack_info (include/uapi/linux/netfilter/nf_conntrack_common.h).
_STATES: Final = {0: "established", 1: "related", 2: "new", 3: "reply", 4: "related reply",
                  7: "untracked"}  # fmt: skip
#: enum ip_conntrack_status, those that say something of the way.
_STATUS: Final = ((1 << 1, "seen-reply"), (1 << 2, "assured"), (1 << 3, "confirmed"),
                  (1 << 4, "src-nat"), (1 << 5, "dst-nat"), (1 << 9, "dying"))  # fmt: skip
_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 58: "icmp6", 132: "sctp"}
_INFO_MASK: Final = 7
_NF_INET_IPV4: Final = 2
_AF_INET, _AF_INET6 = 2, 10
#: ntop() of an address of each family.
_ADDRESSES: Final = {
    True: f"ntop({_AF_INET}, {{}}.u3.ip)",
    False: f"ntop({_AF_INET6}, {{}}.u3.in6.in6_u.u6_addr8)",
}


def known(system: System) -> bool:
    """Whether the types of the kernel and of its modules have connection tracking's."""
    for module in (KERNEL, *system.btf_modules):
        btf = system.module_btf(module)
        found = btf.find("nf_conn", b.Struct) if btf is not None else None
        if found is not None and any(member.name == "tuplehash" for member in found.members):
            return True
    return False


def statement(kind: int) -> str:
    """A statement that tells what is tracked of ``$skb`` when that is new (events of this kind).

    Its values: kind, time, sk_buff, state, status, mark, protocol; for each of the two tuples
    source and destination, each with its port. Only the first four if there is no entry any more.
    """
    key = "(uint64)$skb"
    first = f"(uint64){kind}, (uint64)nsecs(monotonic), {key}, "
    tells = [_tell(first, ipv4) for ipv4 in (True, False)]
    return (
        f"$nfct = (uint64)$skb._nfct; if ($nfct > {_INFO_MASK}) {{ "
        f"$ct = (struct nf_conn *)($nfct & ~(uint64){_INFO_MASK}); "
        "$now = ($nfct, (uint64)$ct.status, (uint64)$ct.mark); "
        f"if (!has_key(@tracked, {key}) || @tracked[{key}] != $now) {{ @tracked[{key}] = $now; "
        f"if ($ct.tuplehash[0].tuple.src.l3num == {_NF_INET_IPV4}) {{ {tells[0]} }} "
        f"else {{ {tells[1]} }} }} }} "
        f'else if (has_key(@tracked, {key})) {{ printf("%d %d %d %d\\n", {first}$nfct); '
        f"delete(@tracked, {key}); }} "
    )


def _tell(first: str, ipv4: bool) -> str:
    """The printf() for a connection of one family."""
    values, formats = "", ""
    for number in (0, 1):
        for end in ("src", "dst"):
            part = f"$ct.tuplehash[{number}].tuple.{end}"
            values += f", {_ADDRESSES[ipv4].format(part)}, (uint64)bswap({part}.u.all)"
            formats += " %s %d"
    info = f"$nfct & {_INFO_MASK}, (uint64)$ct.status, (uint64)$ct.mark"
    protocol = "(uint64)$ct.tuplehash[0].tuple.dst.protonum"
    return f'printf("%d %d %d %d %d %d %d{formats}\\n", {first}{info}, {protocol}{values});'


def connection(values: Sequence[Any]) -> Layer | None:
    """What an event's values from the fourth on say, as a layer ``ct``."""
    state, *rest = values
    if not rest:
        return None
    status, mark, protocol, *ends = rest
    name = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    texts = [f"{_address(ends[n])}.{ends[n + 1]}" for n in range(0, len(ends), 2)]
    flows = [f"{texts[n]} > {texts[n + 1]}" for n in (0, 2)]
    fields = {
        "state": _STATES.get(state, str(state)),
        "flow": f"{name} {flows[0]}",
        "reply": flows[1],
        "status": ",".join(said for bit, said in _STATUS if status & bit) or "unconfirmed",
        "mark": f"{mark:#x}",
    }
    return Layer("ct", fields)


def _address(value: tuple[int, bytes]) -> str:
    """An address as ntop() sends it: the family, and its bytes in an array for the longest."""
    family, data = value
    size = 4 if family == _AF_INET else 16
    return str(ipaddress.ip_address(data[:size]))
