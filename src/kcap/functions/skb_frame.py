# SPDX-License-Identifier: Apache-2.0
"""An sk_buff's frame as BPF code sees it, byte by byte: what a capture file would hold.

The frame is the one that ``skboutput()`` writes: it starts with the MAC header wherever skb->data
points, with a made Ethernet header (zero addresses) where the packet has none, and a VLAN tag that
the driver took out of the data stands in it again. Its first bytes are copied to scratch memory;
bytes behind those are read when they are asked for. Bytes in fragments cannot be read: the frame
ends there, though its length counts them. A load of theirs fails, and is remembered
(:meth:`Frame.out_of_reach`).

Layout of the scratch memory::

    0    i64  how far the frame's first byte stands behind ROOM
    8    i64  bytes of the frame that can be read
    16   i64  what to add to an offset in the frame for the kernel address of the byte
    ROOM      at most 18 bytes of header that are not in memory one after the other
    ROOM+18   the bytes that are, the first REST
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kcap.functions import skb_record as layout
from kcap.functions.skb_place import Placing, SkbFields

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.ir import Operand
    from kcap.sema.types import Type

_SHIFT: Final = 0
_READABLE: Final = 8
_ORIGIN: Final = 16
ROOM: Final = 24
#: The longest header that is put together: made, with a tag.
HEADER: Final = layout.ETH_HLEN + 4
REST: Final = 222
#: Offsets below this may be loaded from the copy, whatever header there is.
WINDOW: Final = REST
_SHIFT_MASK: Final = 31
SIZE: Final = ROOM + _SHIFT_MASK + REST + 11
_ETH_P_EXPERIMENTAL: Final = 0x88B5
_ETH_P_802_2: Final = 0x0004
_MAX_802_3: Final = 1500


class Frame(Placing):
    """The frame of an sk_buff; :meth:`build` comes first.

    :ivar length: the frame's length with its fragments, i64.
    :param at_mac: data stand at the MAC header if the sk_buff does not say where they stand.
    """

    def __init__(
        self, gen: Emitter, fields: SkbFields, skb: Operand, type_: Type, *, at_mac: bool
    ) -> None:
        super().__init__(gen, fields, skb, type_)
        self._at_mac = at_mac
        self._at = gen.alloc(SIZE)
        self._word = gen.alloc(4)
        self._wanted = gen.ir.alloca(8)
        gen.ir.store("i64", "0", self._wanted)
        self.length: Operand = "0"
        self._readable: Operand = "0"
        self._start: Operand = ""

    def build(self) -> None:
        """Find the frame and copy its first bytes."""
        self.read_members()
        self.read_device()
        self.find_vlan()
        self.find_position()
        values = self.values
        source, rest, linear = self._source()
        unknown = self.compare("eq", values["position"], layout.POSITION_UNKNOWN)
        made = self.one_of(values["position"], layout.POSITION_NETWORK, layout.POSITION_LINK)
        if not self._at_mac:
            made = self.any(made, unknown)
        tagged = self.all(values["v"], self.not_(unknown))
        if self._at_mac:
            tagged = values["v"]
        split = self.all(tagged, self.not_(made), self.compare("uge", linear, 12))
        skip = self.select(split, 12, 0)
        header = self.select(made, layout.ETH_HLEN, 0)
        header = self.add(header, self.select(self.all(made, tagged), 4, 0))
        header = self.select(split, 16, header)
        self._copy(self.add(source, skip), self.sub(linear, skip))
        with self.ir.if_(split):
            self._split_header(source)
        with self.ir.if_(made):
            self._made_header(tagged, unknown, rest)
        self.length = self.sub(self.add(rest, header), skip)
        readable = self.sub(self.add(linear, header), skip)
        origin = self.sub(self.add(source, skip), header)
        self._remember(header, readable, origin)

    def _source(self) -> tuple[Operand, Operand, Operand]:
        """Where the frame's own bytes start in memory, how many there are, how many of them are
        not in fragments."""
        values = self.values
        back = values["back"]
        source = self.sub(values["data"], back)
        rest = self._not_negative(self.add(values["len"], back))
        linear = self._not_negative(self.sub(rest, values["data_len"]))
        return source, rest, linear

    def _not_negative(self, value: Operand) -> Operand:
        return self.select(self.compare("slt", value, 0), 0, value)

    def _copy(self, source: Operand, available: Operand) -> None:
        count = self.at_most(self.ir.opaque(available), REST)
        self.gen.read(self.ir.offset(self._at, ROOM + HEADER), count, source, "kernel")

    def _split_header(self, source: Operand) -> None:
        """Both addresses, and the tag between them and what follows."""
        start = self.ir.offset(self._at, ROOM + HEADER - 16)
        self.gen.read(start, 12, source, "kernel")
        self._tag(self.ir.offset(start, 12))

    def _made_header(self, tagged: Operand, unknown: Operand, rest: Operand) -> None:
        """Addresses of zeros, the tag if there is one, the type."""
        ir = self.ir
        start = ir.offset(self._at, ROOM)
        ethertype = self._ethertype(unknown, rest)
        for at in (0, 4, 8, 12):
            ir.store("i32", "0", ir.offset(start, at), align=1)
        with ir.if_(tagged):
            self._tag(ir.offset(start, 12))
        narrow = self.swap(ir.resize(ethertype, 64, 16, False))
        ir.store("i16", narrow, ir.offset(start, 16), align=1)

    def _tag(self, where: Operand) -> None:
        ir, values = self.ir, self.values
        ir.store("i16", ir.resize(values["vlan_proto"], 64, 16, False), where, align=1)
        tci = self.swap(ir.resize(values["vlan_tci"], 64, 16, False))
        ir.store("i16", tci, ir.offset(where, 2), align=1)

    def _ethertype(self, unknown: Operand, rest: Operand) -> Operand:
        """The type field of a made header, as ``kcap.packet.frame`` finds it."""
        ir = self.ir
        protocol = self.swap(ir.resize(self.values["protocol"], 64, 16, False))
        known = ir.resize(protocol, 16, 64, False)
        byte = ir.load("i8", ir.offset(self._at, ROOM + HEADER), volatile=True)
        version = ir.op(f"lshr i64 {ir.resize(byte, 8, 64, False)}, 4")
        some = self.compare("ne", rest, 0)
        guess: Operand = str(_ETH_P_EXPERIMENTAL)
        for type_, number in reversed(layout.IP_VERSIONS.items()):
            guess = self.select(self.compare("eq", version, number), type_, guess)
        guess = self.select(some, guess, _ETH_P_EXPERIMENTAL)
        llc = self.all(
            self.compare("eq", known, _ETH_P_802_2), self.compare("ule", rest, _MAX_802_3)
        )
        guess = self.select(llc, rest, guess)
        short = self.compare("ult", known, layout.ETH_P_802_3_MIN)
        found = self.select(short, guess, known)
        return self.select(unknown, _ETH_P_EXPERIMENTAL, found)

    def _remember(self, header: Operand, readable: Operand, origin: Operand) -> None:
        """Put what depends on the position through memory: the verifier then takes it for unknown
        and follows the filter once, not once for every way to get here."""
        ir, at = self.ir, self._at
        ir.store("i64", self.sub(str(HEADER), header), ir.offset(at, _SHIFT))
        ir.store("i64", readable, ir.offset(at, _READABLE))
        ir.store("i64", origin, ir.offset(at, _ORIGIN))
        shift = ir.load("i64", ir.offset(at, _SHIFT), volatile=True)
        inside = ir.op(f"and i64 {ir.opaque(shift)}, {_SHIFT_MASK}")
        self._start = ir.offset(ir.offset(at, ROOM), inside)
        self._readable = ir.load("i64", ir.offset(at, _READABLE), volatile=True)

    def out_of_reach(self) -> Operand:
        """Whether a load failed only because its bytes are in fragments; an i1."""
        wanted = self.ir.load("i64", self._wanted)
        inside = self.compare("ule", wanted, self.length)
        return self.all(self.compare("ne", wanted, 0), inside)

    # --- loads ---

    def load(self, offset: Operand | int, size: int, missing: str) -> Operand:
        """The big-endian number of ``size`` bytes at an offset in the frame, an i32.

        :param offset: a number, or an i64 that is not negative.
        :param missing: the label to jump to when the frame does not have these bytes.
        """
        ir = self.ir
        result = ir.alloca(4, 4)
        there, end = ir.fresh("there"), ir.fresh("loaded")
        last = offset + size if isinstance(offset, int) else self.add(offset, size)
        beyond = ir.fresh("beyond")
        ir.branch(self.compare("ule", str(last), self._readable), there, beyond)
        ir.label(beyond)
        ir.store("i64", str(last), self._wanted)
        ir.jump(missing)
        ir.label(there)
        if isinstance(offset, int):
            near = offset + size <= WINDOW
            pointer = ir.offset(self._start, offset) if near else self._far(offset, size, missing)
            self._take(pointer, size, result)
            return ir.load("i32", result)
        close, away = ir.fresh("close"), ir.fresh("away")
        index = ir.opaque(offset)
        ir.branch(self.compare("ule", index, WINDOW - size), close, away)
        ir.label(close)
        self._take(ir.offset(self._start, index), size, result)
        ir.jump(end)
        ir.label(away)
        self._take(self._far(offset, size, missing), size, result)
        ir.label(end)
        return ir.load("i32", result)

    def _far(self, offset: Operand | int, size: int, missing: str) -> Operand:
        """Read bytes behind the copy; a pointer to them."""
        ir = self.ir
        origin = ir.load("i64", ir.offset(self._at, _ORIGIN), volatile=True)
        status = self.gen.read(self._word, size, self.add(origin, offset), "kernel")
        got = ir.fresh("got")
        ir.branch(self.compare("eq", status, 0), got, missing)
        ir.label(got)
        return self._word

    def _take(self, pointer: Operand, size: int, result: Operand) -> None:
        ir = self.ir
        value = ir.load(f"i{8 * size}", pointer, align=1)
        if size > 1:
            value = ir.op(f"call i{8 * size} @llvm.bswap.i{8 * size}(i{8 * size} {value})")
        ir.store("i32", ir.resize(value, 8 * size, 32, False), result)
