# SPDX-License-Identifier: Apache-2.0
"""The BPF code that finds out where an sk_buff's data stand: steps 2 to 5 of the algorithm in
``skb_record``'s documentation, for everything that needs to know: ``skboutput()``, ``skbfilter()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen import memory
from kcap.functions import skb_record as layout
from kcap.records import dataclass
from kcap.sema.types import Field, Pointer, Struct, Type

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kcap.codegen.emitter import Emitter
    from kcap.codegen.ir import Operand

_SKB = (
    *("head", "data", "len", "data_len", "mac_header", "network_header", "protocol", "mark"),
    *("skb_iif", "queue_mapping", "sk", "dev"),
    *("vlan_tci", "vlan_proto", "vlan_present", "vlan_all"),
)
#: Bytes between two members that are still read with one call, and the most that one call reads:
#: a call costs as much as copying some hundred bytes.
_GAP, _RUN = 128, 256
_DEVICE = ("ifindex", "type", "hard_header_len")
#: Memory for what is found, and for bytes that are looked at. Too large for the stack, since the
#: verifier remembers what was stored there.
_POSITION, _BACK, _LOOKED, _NOTES = 0, 8, 16, 48


@dataclass(frozen=True, slots=True)
class SkbFields:
    """The members that the record is made of; one that this kernel lacks is not there.

    :param skb: of struct sk_buff, by name.
    :param device: of struct net_device, by name.
    :param name_offset: where net_device has its name.
    :param net: net_device's pointer to its network namespace.
    :param inum: the number of a namespace in struct net.
    """

    skb: dict[str, Field]
    device: dict[str, Field]
    name_offset: int
    net: Field | None
    inum: Field | None

    @classmethod
    def of(cls, sk_buff: Struct) -> SkbFields:
        """Look the members up in a kernel's struct sk_buff."""
        skb = {name: found for name in _SKB if (found := sk_buff.find(name)) is not None}
        dev = _target(skb["dev"].type) if "dev" in skb else None
        if dev is None:
            return cls(skb, {}, 0, None, None)
        device = {name: found for name in _DEVICE if (found := dev.find(name)) is not None}
        name = dev.find("name")
        net = _path(dev, "nd_net", "net")
        inum = None
        if net is not None and (namespace := _target(net.type)) is not None:
            inum = _path(namespace, "ns", "inum")
        return cls(skb, device, name.offset if name is not None else 0, net, inum)


def _target(type_: Type) -> Struct | None:
    """The struct that a pointer points to."""
    if isinstance(type_, Pointer) and isinstance(type_.target, Struct):
        return type_.target
    return None


def _path(struct: Struct, *names: str) -> Field | None:
    """A member of a member (structs in structs), its offset counted from ``struct``."""
    offset, found = 0, None
    for name in names:
        found = struct.find(name)
        if found is None:
            return None
        offset += found.offset
        if isinstance(found.type, Struct):
            struct = found.type
    assert found is not None
    return Field(found.name, offset, found.type, found.bit_shift, found.bit_size)


def _runs(members: dict[str, Field]) -> list[dict[str, Field]]:
    """Members that are to be read together: little is between them."""
    runs: list[dict[str, Field]] = []
    end = first = 0
    for name, field in sorted(members.items(), key=lambda item: item[1].offset):
        last = field.offset + field.type.size
        if not runs or field.offset - end > _GAP or last - first > _RUN:
            runs.append({})
            first = field.offset
        runs[-1][name] = field
        end = max(end, last)
    return runs


class Placing:
    """One sk_buff while the code that looks at it is emitted. Operands are i64 unless said so.

    :ivar values: what is known so far, by name: members of the sk_buff, what steps 2 to 5 of the
        algorithm call H, pm, pn, n_set and so on, and "back": how far before data the frame's own
        bytes start (negative: behind it).

    :param skb: the sk_buff's address, not 0 where the code runs.
    :param type_: the type of the pointer.
    """

    def __init__(self, gen: Emitter, fields: SkbFields, skb: Operand, type_: Type) -> None:
        self.gen, self.ir, self.fields, self.skb = gen, gen.ir, fields, skb
        tracked = isinstance(type_, Pointer) and type_.tracked
        self.place = memory.Place(skb, "kernel", 0, tracked)
        self.values: dict[str, Operand] = {}
        self._notes = gen.alloc(_NOTES)
        self._placed = gen.ir.fresh("placed")

    # --- shorthands ---

    def compare(self, predicate: str, left: Operand, right: int | Operand) -> Operand:
        """A comparison of two i64 (an icmp predicate); an i1."""
        return self.ir.compare(predicate, "i64", left, str(right))

    def within(self, value: Operand, low: int, high: int) -> Operand:
        """Whether low <= value <= high, signed; an i1."""
        shifted = self.ir.op(f"sub i64 {value}, {low}")
        return self.compare("ule", shifted, high - low)

    def one_of(self, value: Operand, *numbers: int) -> Operand:
        """Whether a value is one of some numbers; an i1."""
        return self.any(*(self.compare("eq", value, n) for n in numbers))

    def all(self, *conditions: Operand) -> Operand:
        """Whether all of some i1 are true; an i1."""
        return self._fold("and", conditions)

    def any(self, *conditions: Operand) -> Operand:
        """Whether one of some i1 is true; an i1."""
        return self._fold("or", conditions)

    def _fold(self, op: str, conditions: tuple[Operand, ...]) -> Operand:
        result = conditions[0]
        for condition in conditions[1:]:
            result = self.ir.op(f"{op} i1 {result}, {condition}")
        return result

    def not_(self, condition: Operand) -> Operand:
        """The opposite of an i1."""
        return self.ir.op(f"xor i1 {condition}, true")

    def sub(self, left: Operand, right: Operand) -> Operand:
        """The difference of two i64."""
        return self.ir.op(f"sub i64 {left}, {right}")

    def add(self, left: Operand, right: int | Operand) -> Operand:
        """The sum of two i64."""
        return self.ir.op(f"add i64 {left}, {right}")

    def select(self, condition: Operand, then: int | Operand, otherwise: int | Operand) -> Operand:
        """One of two i64, by an i1."""
        return self.ir.select(condition, "i64", str(then), str(otherwise))

    def at_most(self, value: Operand, limit: int | Operand) -> Operand:
        """The smaller of the two, unsigned."""
        return self.select(self.compare("ult", value, limit), value, limit)

    def _members(self, place: memory.Place, members: dict[str, Field]) -> dict[str, Operand]:
        """Members of a struct, zero-extended.

        Where the verifier follows the pointer, each is a load. Elsewhere each would be a call of
        a helper: those that are near to each other are read at once.
        """
        if place.tracked:
            return {name: self._loaded(place, field) for name, field in members.items()}
        values: dict[str, Operand] = {}
        for run in _runs(members):
            start = min(field.offset for field in run.values())
            size = max(field.offset + field.type.size for field in run.values()) - start
            copy = self.gen.alloc(size)
            address = memory.address_of(self.gen, place.at(start))
            self.gen.read(copy, size, address, place.space)
            there = memory.Place(copy, "bpf", -start)
            values |= {name: self._loaded(there, field) for name, field in run.items()}
        return values

    def _loaded(self, place: memory.Place, field: Field) -> Operand:
        """A member. What it was read to, where it had to be read, is free again at once: some 20
        members would else take a third of the stack."""
        mark = self.ir.mark()
        value = memory.load_field(self.gen, place, field)
        self.ir.release(mark)
        return self.ir.resize(value, 8 * field.type.size, 64, False)

    def swap(self, value: Operand) -> Operand:
        """An i16 with its bytes swapped."""
        return self.ir.op(f"call i16 @llvm.bswap.i16(i16 {value})")

    # --- the algorithm ---

    def read_members(self) -> None:
        """Step 2."""
        values = self.values
        values |= dict.fromkeys(_SKB, "0") | self._members(self.place, self.fields.skb)
        mac, network = values["mac_header"], values["network_header"]
        headroom = self.sub(values["data"], values["head"])
        values["H"] = headroom
        n_set = self.all(self.compare("ne", network, 0), self.compare("ne", network, 0xFFFF))
        m_set = self.all(
            self.compare("ne", mac, layout.MAC_UNSET),
            self.any(self.compare("ne", mac, 0), n_set),
        )
        values["n_set"], values["m_set"] = n_set, m_set
        values["pm"], values["pn"] = self.sub(headroom, mac), self.sub(headroom, network)
        values["mac_len"] = self.sub(network, mac)

    def read_device(self) -> None:
        """Step 3: skb->dev may be NULL or something else altogether; what it says is checked."""
        values, fields = self.values, self.fields
        dev = memory.Place(values["dev"], "kernel", 0, self.place.tracked, True)
        wanted = fields.device if fields.net is None else {**fields.device, "net": fields.net}
        read = dict.fromkeys((*_DEVICE, "net"), "0") | self._members(dev, wanted)
        net = memory.Place(read.pop("net"), "kernel", 0, dev.tracked, True)
        inum = self._loaded(net, fields.inum) if fields.inum is not None else "0"
        valid = self.all(
            self.compare("ne", values["dev"], 0),
            self.within(read["ifindex"], 1, 0x7FFFFFFF),
            self.compare("uge", inum, layout.FIRST_NETNS),
        )
        values["dev_valid"] = valid
        for name, value in (*read.items(), ("netns", inum)):
            values[name] = self.select(valid, value, 0)
        values["eth"] = self.any(
            self.not_(valid),
            self.one_of(values["type"], layout.ARPHRD_ETHER, layout.ARPHRD_LOOPBACK),
        )

    def find_vlan(self) -> None:
        """Step 4."""
        values, known = self.values, self.fields.skb
        if "vlan_all" in known:  # 6.2 and later
            tagged = self.compare("ne", values["vlan_all"], 0)
        elif "vlan_present" in known:  # up to 6.1
            tagged = self.compare("ne", values["vlan_present"], 0)
        else:
            bit = self.ir.op(f"and i64 {values['vlan_tci']}, 4096")
            tagged = self.compare("ne", bit, 0)
        values["v"] = tagged

    def find_position(self) -> None:
        """Step 5: the first rule that holds notes what it found, and ends it.

        Bytes of the packet are looked at only where the headers' offsets leave a doubt. What was
        found goes through memory: the verifier does not know any more how it came about, and
        follows what depends on it once, not once for every way to get here.
        """
        ir, values = self.ir, self.values
        with ir.if_(self.compare("ule", values["H"], 0xFFFF)):
            with ir.if_(values["eth"]):
                self._place_by_network_header()
                self._place_by_mac_header()
            self._place_without_ethernet()
        self._found(layout.POSITION_UNKNOWN)
        ir.label(self._placed)
        for name, at in (("position", _POSITION), ("back", _BACK)):
            values[name] = ir.load("i64", ir.offset(self._notes, at), volatile=True)

    def _found(self, position: int, back: int | Operand = 0) -> None:
        ir = self.ir
        ir.store("i64", str(position), ir.offset(self._notes, _POSITION))
        ir.store("i64", str(back), ir.offset(self._notes, _BACK))
        ir.jump(self._placed)

    def _place_by_network_header(self) -> None:
        """Rule A, where Ethernet's headers are."""
        ir, pn, hhl = self.ir, self.values["pn"], self.values["hard_header_len"]
        with ir.if_(self.all(self.values["n_set"], self.compare("slt", pn, 0))):
            with ir.if_(self.compare("eq", pn, -layout.ETH_HLEN)):
                self._found(layout.POSITION_MAC)
            farther = self.within(pn, -layout.MAX_BEHIND_MAC, -layout.ETH_HLEN - 1)
            with ir.if_(farther), ir.if_(self._has_type(layout.TAG_TYPES)):
                self._found(layout.POSITION_MAC)
            long_header = self.compare("uge", hhl, layout.ETH_HLEN)
            with ir.if_(self.all(long_header, self.compare("eq", self.add(pn, hhl), 0))):
                self._found(layout.POSITION_MAC)

    def _place_by_mac_header(self) -> None:
        """Rules B, G, C, where Ethernet's headers are."""
        ir, values = self.ir, self.values
        pm, pn, mac_len = values["pm"], values["pn"], values["mac_len"]
        n_set, n_unset = values["n_set"], self.not_(values["n_set"])
        with ir.if_(values["m_set"]):
            network_fits = self.any(
                n_unset,
                self.compare("slt", pn, 0),
                self.compare("slt", mac_len, -layout.ETH_HLEN),
                self.one_of(mac_len, *layout.MAC_LENGTHS),
            )
            behind = self.within(pm, layout.ETH_HLEN, layout.MAX_BEHIND_MAC)
            with ir.if_(self.all(behind, network_fits)):
                self._found(layout.POSITION_BEHIND_MAC, pm)
            with ir.if_(self.compare("eq", pm, 0)):
                decapsulated = self.all(n_set, self.compare("sgt", pn, 0))
                with (
                    ir.if_(decapsulated),
                    ir.if_(self._starts_with_ip()),
                    ir.if_(self.not_(self._has_type(layout.FRAME_TYPES))),
                ):
                    self._found(layout.POSITION_NETWORK)
                with ir.if_(self.any(n_unset, self.compare("ne", pn, 0))):
                    self._found(layout.POSITION_MAC)

    def _place_without_ethernet(self) -> None:
        """Rules D, E, F: no Ethernet header is here, or none that could be found."""
        ir, values = self.ir, self.values
        pn, n_set = values["pn"], values["n_set"]
        with ir.if_(n_set):
            with ir.if_(self.within(pn, 0, layout.MAX_BETWEEN)):
                self._found(layout.POSITION_NETWORK, pn)
            with ir.if_(self.within(pn, -layout.MAX_BEHIND_MAC, -1)):
                self._found(layout.POSITION_LINK, pn)
        bare = self.all(self.not_(n_set), self.compare("eq", values["hard_header_len"], 0))
        at_mac = self.all(values["m_set"], self.compare("eq", values["pm"], 0))
        with ir.if_(self.all(self.not_(values["eth"]), at_mac, bare)):
            self._found(layout.POSITION_NETWORK)

    def _looked_at(self, offset: int, size: int) -> Operand:
        """The big-endian number of one or two bytes behind data; 0 if they cannot be read."""
        ir, bits = self.ir, 8 * size
        where = ir.offset(self._notes, _LOOKED)
        self.gen.read(where, size, self.add(self.values["data"], offset), "kernel")
        value = ir.load(f"i{bits}", where, volatile=True)
        return ir.resize(self.swap(value) if size == 2 else value, bits, 64, False)

    def _has_type(self, types: Iterable[int]) -> Operand:
        """Whether one of some EtherTypes stands where an Ethernet header at data has it; an i1."""
        return self.one_of(self._looked_at(12, 2), *types)

    def _starts_with_ip(self) -> Operand:
        """Whether data start with an IP header, of the version that the protocol says; an i1."""
        protocol = self.ir.resize(self.values["protocol"], 64, 16, False)
        ethertype = self.ir.resize(self.swap(protocol), 16, 64, False)
        version = self.ir.op(f"lshr i64 {self._looked_at(0, 1)}, 4")
        return self.any(
            *(
                self.all(self.compare("eq", ethertype, type_), self.compare("eq", version, number))
                for type_, number in layout.IP_VERSIONS.items()
            )
        )
