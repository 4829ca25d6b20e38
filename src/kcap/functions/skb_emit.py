# SPDX-License-Identifier: Apache-2.0
"""The BPF side of ``skboutput()``: builds the record that ``skb_record`` defines, and sends it.

The numbered steps are those of the algorithm in ``skb_record``'s documentation; its ``place()`` is
the reference that tests compare this with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen import memory
from kcap.functions import registers
from kcap.functions import skb_record as layout
from kcap.functions.packet_site import (
    LOST_MAP,
    PACKET_SITES,
    PACKETS_MAP,
    REALTIME_MAP,
    PacketSite,
)
from kcap.functions.probe_builtins import load_register
from kcap.functions.skb_place import Placing, SkbFields
from kcap.kernel import uapi
from kcap.kernel.helpers import Helper
from kcap.kernel.spec import MapSpec
from kcap.sema.types import Field, Integer, Pointer, Struct

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.ir import Operand
    from kcap.sema import tree
    from kcap.sema.types import Type

_LOST_ENTRIES = 1024

#: Most bytes of a packet that are copied where bpf_skb_output cannot be called.
LINEAR_MAX = 16384

_BPF_F_CURRENT_CPU = 0xFFFFFFFF
_EINVAL = -22


def emit(
    gen: Emitter,
    site: PacketSite,
    skb: tree.Expr,
    length: tree.Expr,
    offset: tree.Expr,
    reason: tree.Expr | None = None,
) -> Operand:
    """Emit a call; its result, an i64: 0, or a negative error.

    :param reason: why the packet is dropped, where the probe is told.
    """
    record = _Record(gen, site, gen.value(skb), skb.type)
    if reason is not None:
        record.reason = gen.value64(reason)
    return record.emit(gen.value64(length), gen.value64(offset))


class _Record(Placing):
    """One record while the code that builds it is emitted. Operands are i64 unless said so."""

    def __init__(self, gen: Emitter, site: PacketSite, skb: Operand, type_: Type) -> None:
        assert isinstance(type_, Pointer)
        assert isinstance(type_.target, Struct)
        super().__init__(gen, SkbFields.of(type_.target), skb, type_)
        self.site = site
        self.reason: Operand = "0"
        self.at = gen.alloc(layout.METADATA_MAX + (LINEAR_MAX if site.linear else 0))

    def put(self, name: str, value: int | Operand) -> None:
        """Store a field of the record."""
        where = layout.FIELDS[name]
        bits = 8 * where.size
        narrow = str(value) if isinstance(value, int) else self.ir.resize(value, 64, bits, False)
        self.ir.store(f"i{bits}", narrow, self.ir.offset(self.at, where.offset))

    # --- the algorithm ---

    def emit(self, length: Operand, offset: Operand) -> Operand:
        result = self.ir.alloca(8, 8)
        self.ir.store("i64", str(_EINVAL), result)
        with self.gen.if_(self.compare("ne", self.skb, 0)):
            real = self._times()
            self._fields()
            self._device()
            self.find_vlan()
            self.find_position()
            self.put("position", self.values["position"])
            prefix_len = self._prefix()
            self._flags(offset)
            payload_len = self._length(length, offset, prefix_len)
            self._pcap_header(real, prefix_len, payload_len)
            send = self._send_linear if self.site.linear else self._send
            self.ir.store("i64", send(prefix_len, payload_len), result)
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
        self.read_members()
        for name in ("mark", "skb_iif", "protocol", "vlan_proto", "vlan_tci", "queue_mapping"):
            self.put(name, values[name])
        self.put("mac_header", values["mac_header"])
        self.put("network_header", values["network_header"])
        self.put("skb", self.skb)
        self.put("skb_len", values["len"])
        self.put("data_len", values["data_len"])
        ids = gen.process_ids()
        self.put("pid", ir.op(f"lshr i64 {ids}, 32"))
        self.put("tid", ids)
        self.put("cpu", gen.helper(Helper.get_smp_processor_id))
        comm = ir.offset(self.at, layout.FIELDS["comm"].offset)
        gen.helper(Helper.get_current_comm, f"ptr {comm}", "i32 16")
        self.put("site", gen.module.collect(PACKET_SITES, self.site))
        self.put("probe", gen.index)
        # Only kprobes have one program for several functions.
        several = gen.context.arguments == "registers" and len(gen.context.targets) > 1
        self.put("func", load_register(gen, registers.current().pc) if several else 0)
        self.put("reserved", 0)
        self.put("reason", self.reason)
        self.put("headroom", self.at_most(values["H"], layout.MAC_UNSET))

    def _device(self) -> None:
        """Step 3."""
        ir, values = self.ir, self.values
        self.read_device()
        self.put("ifindex", values["ifindex"])
        self.put("dev_type", values["type"])
        self.put("hard_header_len", values["hard_header_len"])
        self.put("netns", values["netns"])
        self._device_name(ir.offset(self.at, layout.FIELDS["dev_name"].offset))

    def _device_name(self, to: Operand) -> None:
        """The last field of step 3: two loads where the verifier follows the pointer."""
        ir, valid, start = self.ir, self.values["dev_valid"], self.fields.name_offset
        dev = memory.Place(self.values["dev"], "kernel", 0, self.place.tracked, True)
        if not dev.tracked:
            name = self.select(valid, self.add(dev.base, start), 0)
            self.gen.read(to, layout.FIELDS["dev_name"].size, name, "kernel")
            return
        for part in range(0, layout.FIELDS["dev_name"].size, 8):
            word = self._loaded(dev, Field("name", start + part, Integer(8, False)))
            ir.store("i64", self.select(valid, word, 0), ir.offset(to, part))

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
        rest = self.at_most(ir.opaque(self.add(values["back"], -12)), layout.MAX_BEHIND_MAC - 12)
        gen.read(ir.offset(start, 16), rest, self.add(mac, 12), "kernel")
        ir.store("i64", self.add(values["back"], 4), length)
        ir.jump(end)
        ir.label(plain)
        whole = self.at_most(ir.opaque(values["back"]), layout.MAX_BEHIND_MAC)
        gen.read(start, whole, mac, "kernel")
        ir.store("i64", values["back"], length)
        ir.label(end)

    def _prefix_made(self, start: Operand, length: Operand) -> None:
        gen, ir, values = self.gen, self.ir, self.values
        ir.store("i64", "0", start, align=1)
        ir.store("i32", "0", ir.offset(start, 8), align=1)
        network = self.compare("eq", values["position"], layout.POSITION_NETWORK)
        between = self.at_most(
            ir.opaque(self.select(network, values["back"], 0)), layout.MAX_BETWEEN
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
        ir.store("i16", self.swap(tci), ir.offset(where, 2), align=1)

    def _flags(self, offset: Operand) -> None:
        """Step 9."""
        ir, values = self.ir, self.values
        protocol = ir.resize(values["protocol"], 64, 16, False)
        ethertype = ir.resize(self.swap(protocol), 16, 64, False)
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
            ("true" if self.site.linear else "false", layout.FLAG_LINEAR_ONLY),
        ):
            flags = ir.op(f"or i64 {flags}, {self.select(condition, flag, 0)}")
        self.put("flags", flags)
        self.put("arg_offset", offset)

    def _length(self, length: Operand, offset: Operand, prefix_len: Operand) -> Operand:
        """Step 7: what is asked for, what there is, what fits a sample."""
        wanted = self.add(self.at_most(length, 0xFFFF), self.at_most(offset, 0xFFFF))
        room = self.sub(str(layout.MAX_SAMPLE - layout.PREFIX_OFFSET), prefix_len)
        available = self.at_most(self.values["len"], room)
        if self.site.linear:
            linear = self.sub(self.values["len"], self.values["data_len"])
            available = self.at_most(self.at_most(available, linear), LINEAR_MAX)
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
        self._count(status)
        return status

    def _send_linear(self, prefix_len: Operand, payload_len: Operand) -> Operand:
        """Steps 10 and 11 without bpf_skb_output: the payload is copied behind the prefix."""
        gen, ir = self.gen, self.ir
        ring = gen.auxiliary_map(MapSpec(PACKETS_MAP, uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 0))
        behind = self.at_most(ir.opaque(prefix_len), layout.MAX_PREFIX)
        count = self.at_most(ir.opaque(payload_len), LINEAR_MAX)
        dest = ir.offset(ir.offset(self.at, layout.PREFIX_OFFSET), behind)
        gen.read(dest, count, self.values["data"], "kernel")
        whole = self.add(self.add(prefix_len, payload_len), layout.PREFIX_OFFSET)
        size = self.at_most(ir.opaque(whole), layout.METADATA_MAX + LINEAR_MAX)
        status = gen.helper(
            Helper.perf_event_output,
            f"ptr {gen.ctx}",
            f"ptr {ring}",
            f"i64 {_BPF_F_CURRENT_CPU}",
            f"ptr {self.at}",
            f"i64 {size}",
        )
        self._count(status)
        return status

    def _count(self, status: Operand) -> None:
        with self.gen.if_(self.compare("ne", status, 0)):
            self.gen.count_lost("packet", self.gen.context.name, self.site)
            if layout.is_pcapng(self.site.path):
                self._count_by_interface()

    def _count_by_interface(self) -> None:
        """Step 11 for a pcapng: the fields of the record that are the key, and one more."""
        gen, ir = self.gen, self.ir
        size = sum(layout.FIELDS[name].size for name in layout.LOST_KEY)
        # A hash of its own for every CPU: nobody else adds to what is found here.
        spec = MapSpec(LOST_MAP, uapi.BPF_MAP_TYPE_PERCPU_HASH, size, 8, _LOST_ENTRIES)
        map_ = gen.auxiliary_map(spec)
        key, at = gen.alloc(size, 8), 0
        for name in layout.LOST_KEY:
            where = layout.FIELDS[name]
            for part in range(0, where.size, 8):
                bits = 8 * min(where.size, 8)
                word = ir.load(f"i{bits}", ir.offset(self.at, where.offset + part))
                ir.store(f"i{bits}", word, ir.offset(key, at))
                at += bits // 8
        found = gen.lookup(map_, key)
        known, new, end = (ir.fresh(stem) for stem in ("known", "new", "counted"))
        ir.branch(ir.compare("ne", "ptr", found, "null"), known, new)
        ir.label(known)
        ir.store("i64", self.add(ir.load("i64", found), 1), found)
        ir.jump(end)
        ir.label(new)
        one = ir.alloca(8, 8)
        ir.store("i64", "1", one)
        # What the map cannot take is in the site's counter all the same.
        gen.helper(Helper.map_update_elem, f"ptr {map_}", f"ptr {key}", f"ptr {one}", "i64 0")
        ir.label(end)
