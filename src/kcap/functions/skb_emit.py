# SPDX-License-Identifier: Apache-2.0
"""The BPF side of ``skboutput()``: builds the record that ``skb_record`` defines, and sends it.

The numbered steps are those of the algorithm in ``skb_record``'s documentation; its ``place()`` is
the reference that tests compare this with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kcap.codegen import memory
from kcap.functions import skb_record as layout
from kcap.kernel import uapi
from kcap.kernel.helpers import Helper
from kcap.kernel.spec import MapSpec
from kcap.sema.types import Field, Pointer, Struct, Type

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.ir import Operand
    from kcap.sema import tree

#: The perf event array that samples go through, and the clock offset that user space keeps.
PACKETS_MAP = "kcap_packets"
REALTIME_MAP = "kcap_realtime"

#: Where code generation collects the sites of a script (``Compiled.collected``).
PACKET_SITES = "packet sites"

_BPF_F_CURRENT_CPU = 0xFFFFFFFF
_EINVAL = -22
_FIRST_NETNS = 0xEFFFFFF0

_SKB = (
    *("head", "data", "len", "data_len", "mac_header", "network_header", "protocol", "mark"),
    *("skb_iif", "queue_mapping", "sk", "dev"),
    *("vlan_tci", "vlan_proto", "vlan_present", "vlan_all"),
)
_DEVICE = ("ifindex", "type", "hard_header_len")


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


@dataclass(eq=False, slots=True)
class PacketSite:
    """One skboutput() call of a script.

    :param path: the file, as the script spells it.
    :param offset: the offset argument if it is constant; None otherwise.
    :param probe: the name of the probe that it stands in.
    :param fields: the members of sk_buff and of what it points to.
    """

    path: str
    offset: int | None
    probe: str
    fields: SkbFields


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


def emit(
    gen: Emitter, site: PacketSite, skb: tree.Expr, length: tree.Expr, offset: tree.Expr
) -> Operand:
    """Emit a call; its result, an i64: 0, or a negative error."""
    return _Record(gen, site, gen.value(skb), skb.type).emit(
        gen.value64(length), gen.value64(offset)
    )


class _Record:
    """One record while the code that builds it is emitted. Operands are i64 unless said so."""

    def __init__(self, gen: Emitter, site: PacketSite, skb: Operand, type_: Type) -> None:
        self.gen, self.ir, self.site, self.skb = gen, gen.ir, site, skb
        tracked = isinstance(type_, Pointer) and type_.tracked
        self.place = memory.Place(skb, "kernel", 0, tracked)
        self.at = gen.alloc(layout.METADATA_MAX)
        self.values: dict[str, Operand] = {}

    # --- shorthands ---

    def compare(self, predicate: str, left: Operand, right: int | Operand) -> Operand:
        return self.ir.compare(predicate, "i64", left, str(right))

    def within(self, value: Operand, low: int, high: int) -> Operand:
        """Whether low <= value <= high, signed; an i1."""
        shifted = self.ir.op(f"sub i64 {value}, {low}")
        return self.compare("ule", shifted, high - low)

    def one_of(self, value: Operand, *numbers: int) -> Operand:
        return self.any(*(self.compare("eq", value, n) for n in numbers))

    def all(self, *conditions: Operand) -> Operand:
        return self._fold("and", conditions)

    def any(self, *conditions: Operand) -> Operand:
        return self._fold("or", conditions)

    def _fold(self, op: str, conditions: tuple[Operand, ...]) -> Operand:
        result = conditions[0]
        for condition in conditions[1:]:
            result = self.ir.op(f"{op} i1 {result}, {condition}")
        return result

    def not_(self, condition: Operand) -> Operand:
        return self.ir.op(f"xor i1 {condition}, true")

    def sub(self, left: Operand, right: Operand) -> Operand:
        return self.ir.op(f"sub i64 {left}, {right}")

    def add(self, left: Operand, right: int | Operand) -> Operand:
        return self.ir.op(f"add i64 {left}, {right}")

    def select(self, condition: Operand, then: int | Operand, otherwise: int | Operand) -> Operand:
        return self.ir.select(condition, "i64", str(then), str(otherwise))

    def at_most(self, value: Operand, limit: int | Operand) -> Operand:
        """The smaller of the two, unsigned."""
        return self.select(self.compare("ult", value, limit), value, limit)

    def put(self, name: str, value: int | Operand) -> None:
        """Store a field of the record."""
        where = layout.FIELDS[name]
        bits = 8 * where.size
        narrow = str(value) if isinstance(value, int) else self.ir.resize(value, 64, bits, False)
        self.ir.store(f"i{bits}", narrow, self.ir.offset(self.at, where.offset))

    def field(self, name: str) -> Operand:
        """A member of the sk_buff, zero-extended; 0 where this kernel has none."""
        found = self.site.fields.skb.get(name)
        if found is None:
            return "0"
        value = memory.load_field(self.gen, self.place, found)
        return self.ir.resize(value, 8 * found.type.size, 64, False)

    # --- the algorithm ---

    def emit(self, length: Operand, offset: Operand) -> Operand:
        result = self.ir.alloca(8, 8)
        self.ir.store("i64", str(_EINVAL), result)
        with self.gen.if_(self.compare("ne", self.skb, 0)):
            real = self._times()
            self._fields()
            self._device()
            self._vlan()
            self._position()
            prefix_len = self._prefix()
            self._flags(offset)
            payload_len = self._length(length, offset, prefix_len)
            self._pcap_header(real, prefix_len, payload_len)
            self.ir.store("i64", self._send(prefix_len, payload_len), result)
        return self.ir.load("i64", result)

    def _times(self) -> Operand:
        """Step 1."""
        gen, ir = self.gen, self.ir
        mono = gen.helper(Helper.ktime_get_ns)
        self.put("mono_ns", mono)
        clock = gen.auxiliary_map(MapSpec(REALTIME_MAP, uapi.BPF_MAP_TYPE_ARRAY, 4, 8, 1))
        key = ir.alloca(4, 4)
        ir.store("i32", "0", key)
        found = gen.lookup(clock, key)
        real = ir.alloca(8, 8)
        ir.store("i64", mono, real)
        with gen.if_(ir.compare("ne", "ptr", found, "null")):
            ir.store("i64", self.add(mono, ir.load("i64", found)), real)
        return ir.load("i64", real)

    def _fields(self) -> None:
        """Step 2, and what the record says of the process."""
        gen, ir, values = self.gen, self.ir, self.values
        for name in _SKB:
            values[name] = self.field(name)
        for name in ("mark", "skb_iif", "protocol", "vlan_proto", "vlan_tci", "queue_mapping"):
            self.put(name, values[name])
        self.put("mac_header", values["mac_header"])
        self.put("network_header", values["network_header"])
        self.put("skb", self.skb)
        self.put("skb_len", values["len"])
        self.put("data_len", values["data_len"])
        ids = gen.helper(Helper.get_current_pid_tgid)
        self.put("pid", ir.op(f"lshr i64 {ids}, 32"))
        self.put("tid", ids)
        self.put("cpu", gen.helper(Helper.get_smp_processor_id))
        comm = ir.offset(self.at, layout.FIELDS["comm"].offset)
        gen.helper(Helper.get_current_comm, f"ptr {comm}", "i32 16")
        self.put("site", gen.module.collect(PACKET_SITES, self.site))
        self.put("probe", gen.index)
        self.put("func", 0)
        self.put("reserved", 0)
        self.put("reserved2", 0)
        headroom = self.sub(values["data"], values["head"])
        mac, network = values["mac_header"], values["network_header"]
        values["H"] = headroom
        self.put("headroom", self.at_most(headroom, layout.MAC_UNSET))
        n_set = self.all(self.compare("ne", network, 0), self.compare("ne", network, 0xFFFF))
        m_set = self.all(
            self.compare("ne", mac, layout.MAC_UNSET),
            self.any(self.compare("ne", mac, 0), n_set),
        )
        values["n_set"], values["m_set"] = n_set, m_set
        values["pm"], values["pn"] = self.sub(headroom, mac), self.sub(headroom, network)
        values["mac_len"] = self.sub(network, mac)

    def _device(self) -> None:
        """Step 3: skb->dev may be NULL or something else altogether; what it says is checked."""
        gen, ir, values, fields = self.gen, self.ir, self.values, self.site.fields
        dev = memory.Place(values["dev"], "kernel", 0, self.place.tracked, True)
        read = {name: self._member(dev, fields.device.get(name)) for name in _DEVICE}
        net = memory.Place(self._member(dev, fields.net), "kernel", 0, dev.tracked, True)
        inum = self._member(net, fields.inum)
        valid = self.all(
            self.compare("ne", values["dev"], 0),
            self.within(read["ifindex"], 1, 0x7FFFFFFF),
            self.compare("uge", inum, _FIRST_NETNS),
        )
        values["dev_valid"] = valid
        for name, value in (*read.items(), ("netns", inum)):
            values[name] = self.select(valid, value, 0)
        self.put("ifindex", values["ifindex"])
        self.put("dev_type", values["type"])
        self.put("hard_header_len", values["hard_header_len"])
        self.put("netns", values["netns"])
        name = self.select(valid, self.add(values["dev"], fields.name_offset), 0)
        gen.read(ir.offset(self.at, layout.FIELDS["dev_name"].offset), 16, name, "kernel")
        values["eth"] = self.any(
            self.not_(valid),
            self.one_of(values["type"], layout.ARPHRD_ETHER, layout.ARPHRD_LOOPBACK),
        )

    def _member(self, place: memory.Place, field: Field | None) -> Operand:
        if field is None:
            return "0"
        value = memory.load_field(self.gen, place, field)
        return self.ir.resize(value, 8 * field.type.size, 64, False)

    def _vlan(self) -> None:
        """Step 4."""
        values, known = self.values, self.site.fields.skb
        if "vlan_all" in known:  # 6.2 and later
            tagged = self.compare("ne", values["vlan_all"], 0)
        elif "vlan_present" in known:  # up to 6.1
            tagged = self.compare("ne", values["vlan_present"], 0)
        else:
            bit = self.ir.op(f"and i64 {values['vlan_tci']}, 4096")
            tagged = self.compare("ne", bit, 0)
        values["v"] = tagged

    def _position(self) -> None:
        """Step 5: rules A to F, the first that holds."""
        values = self.values
        eth, n_set, m_set = values["eth"], values["n_set"], values["m_set"]
        pm, pn, hhl = values["pm"], values["pn"], values["hard_header_len"]
        at_link_header = self.compare("eq", self.add(pn, hhl), 0)
        long_header = self.compare("uge", hhl, layout.ETH_HLEN)
        rule_a = self.all(
            eth,
            n_set,
            self.any(
                self.one_of(pn, *(-n for n in layout.MAC_LENGTHS)),
                self.all(long_header, at_link_header),
            ),
        )
        network_fits = self.any(
            self.not_(n_set),
            self.compare("slt", pn, 0),
            self.one_of(values["mac_len"], *layout.MAC_LENGTHS),
            self.compare("slt", values["mac_len"], 0),
        )
        behind = self.within(pm, layout.ETH_HLEN, layout.MAX_BEHIND_MAC)
        rule_b = self.all(eth, m_set, behind, network_fits)
        at_mac = self.compare("eq", pm, 0)
        rule_c = self.all(eth, m_set, at_mac, self.any(self.not_(n_set), self.compare("ne", pn, 0)))
        rule_d = self.all(n_set, self.within(pn, 0, layout.MAX_BETWEEN))
        rule_e = self.all(n_set, self.within(pn, -128, -1))
        bare = self.all(self.not_(n_set), self.compare("eq", hhl, 0))
        rule_f = self.all(self.not_(eth), m_set, at_mac, bare)
        position: int | Operand = layout.POSITION_UNKNOWN
        for rule, meaning in (
            (rule_f, layout.POSITION_NETWORK),
            (rule_e, layout.POSITION_LINK),
            (rule_d, layout.POSITION_NETWORK),
            (rule_c, layout.POSITION_MAC),
            (rule_b, layout.POSITION_BEHIND_MAC),
            (rule_a, layout.POSITION_MAC),
        ):
            position = self.select(rule, meaning, position)
        sane = self.compare("ule", values["H"], 0xFFFF)
        values["position"] = self.select(sane, position, layout.POSITION_UNKNOWN)
        self.put("position", values["position"])
        # Rule F has no network header: the packet starts at data.
        between = self.select(n_set, pn, 0)
        values["between"] = self.select(self.compare("slt", between, 0), 0, between)

    def _prefix(self) -> Operand:
        """Step 6; the prefix's length."""
        gen, ir, values = self.gen, self.ir, self.values
        start = ir.offset(self.at, layout.PREFIX_OFFSET)
        length = ir.alloca(8, 8)
        ir.store("i64", "0", length)
        behind = self.compare("eq", values["position"], layout.POSITION_BEHIND_MAC)
        values["behind"] = behind
        made = self.one_of(values["position"], layout.POSITION_NETWORK, layout.POSITION_LINK)
        values["made"] = made
        with gen.if_(behind):
            self._prefix_behind_mac(start, length)
        with gen.if_(made):
            self._prefix_made(start, length)
        # The verifier has to see a bound on the very register that the helper gets.
        return self.at_most(ir.opaque(ir.load("i64", length)), layout.MAX_PREFIX)

    def _prefix_behind_mac(self, start: Operand, length: Operand) -> None:
        gen, ir, values = self.gen, self.ir, self.values
        mac = self.add(values["head"], values["mac_header"])
        tagged, plain, end = (ir.fresh(stem) for stem in ("tagged", "plain", "prefixed"))
        ir.branch(values["v"], tagged, plain)
        ir.label(tagged)
        gen.read(start, 12, mac, "kernel")
        self._tag(ir.offset(start, 12))
        rest = self.at_most(ir.opaque(self.add(values["pm"], -12)), layout.MAX_BEHIND_MAC - 12)
        gen.read(ir.offset(start, 16), rest, self.add(mac, 12), "kernel")
        ir.store("i64", self.add(values["pm"], 4), length)
        ir.jump(end)
        ir.label(plain)
        whole = self.at_most(ir.opaque(values["pm"]), layout.MAX_BEHIND_MAC)
        gen.read(start, whole, mac, "kernel")
        ir.store("i64", values["pm"], length)
        ir.label(end)

    def _prefix_made(self, start: Operand, length: Operand) -> None:
        gen, ir, values = self.gen, self.ir, self.values
        ir.store("i64", "0", start, align=1)
        ir.store("i32", "0", ir.offset(start, 8), align=1)
        network = self.compare("eq", values["position"], layout.POSITION_NETWORK)
        between = self.at_most(
            ir.opaque(self.select(network, values["between"], 0)), layout.MAX_BETWEEN
        )
        source = self.sub(values["data"], between)
        ethertype = ir.resize(values["protocol"], 64, 16, False)
        tagged, plain, end = (ir.fresh(stem) for stem in ("tagged", "plain", "made"))
        ir.branch(values["v"], tagged, plain)
        ir.label(tagged)
        self._tag(ir.offset(start, 12))
        ir.store("i16", ethertype, ir.offset(start, 16), align=1)
        gen.read(ir.offset(start, 18), between, source, "kernel")
        ir.store("i64", self.add(between, layout.ETH_HLEN + 4), length)
        ir.jump(end)
        ir.label(plain)
        ir.store("i16", ethertype, ir.offset(start, 12), align=1)
        gen.read(ir.offset(start, layout.ETH_HLEN), between, source, "kernel")
        ir.store("i64", self.add(between, layout.ETH_HLEN), length)
        ir.label(end)

    def _tag(self, where: Operand) -> None:
        """The VLAN tag that the device driver took out of the data."""
        ir, values = self.ir, self.values
        ir.store("i16", ir.resize(values["vlan_proto"], 64, 16, False), where, align=1)
        tci = ir.resize(values["vlan_tci"], 64, 16, False)
        ir.store("i16", self._swap(tci), ir.offset(where, 2), align=1)

    def _swap(self, value: Operand) -> Operand:
        return self.ir.op(f"call i16 @llvm.bswap.i16(i16 {value})")

    def _flags(self, offset: Operand) -> None:
        """Step 9."""
        ir, values = self.ir, self.values
        protocol = ir.resize(values["protocol"], 64, 16, False)
        ethertype = ir.resize(self._swap(protocol), 16, 64, False)
        at_mac = self.compare("eq", values["position"], layout.POSITION_MAC)
        fixup = self.any(
            self.all(at_mac, values["v"]),
            self.one_of(values["position"], layout.POSITION_LINK, layout.POSITION_UNKNOWN),
            self.compare("ne", offset, 0),
            self.all(values["made"], self.compare("ult", ethertype, layout.ETH_P_802_3_MIN)),
        )
        flags = "0"
        for condition, flag in (
            (values["v"], layout.FLAG_VLAN_VALID),
            (
                self.all(values["v"], self.any(values["made"], values["behind"])),
                layout.FLAG_VLAN_IN_PREFIX,
            ),
            (fixup, layout.FLAG_FIXUP),
            (values["dev_valid"], layout.FLAG_DEV_VALID),
            (self.compare("ne", values["sk"], 0), layout.FLAG_HAS_SK),
            (values["made"], layout.FLAG_MADE_HEADER),
        ):
            flags = ir.op(f"or i64 {flags}, {self.select(condition, flag, 0)}")
        self.put("flags", flags)
        self.put("arg_offset", offset)

    def _length(self, length: Operand, offset: Operand, prefix_len: Operand) -> Operand:
        """Step 7: what is asked for, what there is, what fits a sample."""
        wanted = self.add(self.at_most(length, 0xFFFF), self.at_most(offset, 0xFFFF))
        room = self.sub(str(layout.MAX_SAMPLE - layout.PREFIX_OFFSET), prefix_len)
        available = self.at_most(self.values["len"], room)
        payload = self.at_most(wanted, available)
        self.put("payload_len", payload)
        self.put("prefix_len", prefix_len)
        return payload

    def _pcap_header(self, real: Operand, prefix_len: Operand, payload_len: Operand) -> None:
        """Steps 1 and 8: the 16 bytes that a nanosecond pcap file has before a packet."""
        ir = self.ir
        for index, value in enumerate(
            (
                ir.op(f"udiv i64 {real}, 1000000000"),
                ir.op(f"urem i64 {real}, 1000000000"),
                self.add(prefix_len, payload_len),
                self.add(prefix_len, self.values["len"]),
            )
        ):
            where = ir.offset(self.at, layout.PCAP_HEADER_OFFSET + 4 * index)
            ir.store("i32", ir.resize(value, 64, 32, False), where)

    def _send(self, prefix_len: Operand, payload_len: Operand) -> Operand:
        """Steps 10 and 11."""
        gen, ir = self.gen, self.ir
        ring = gen.auxiliary_map(MapSpec(PACKETS_MAP, uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 0))
        shifted = ir.op(f"shl i64 {payload_len}, 32")
        flags = ir.op(f"or i64 {shifted}, {_BPF_F_CURRENT_CPU}")
        size = self.add(prefix_len, layout.PREFIX_OFFSET)
        status = gen.helper(
            Helper.skb_output,
            f"ptr {ir.pointer(self.skb)}",
            f"ptr {ring}",
            f"i64 {flags}",
            f"ptr {self.at}",
            f"i64 {size}",
        )
        with gen.if_(self.compare("ne", status, 0)):
            gen.count_lost("packet", gen.context.name, self.site)
        return status
