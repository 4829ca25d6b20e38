# SPDX-License-Identifier: Apache-2.0
"""The half of the copying loop that copies what is listed to the files' buffers."""

from __future__ import annotations

from typing import Final

from kcap.codegen.ir import Operand
from kcap.functions import skb_record as layout
from kcap.packet.copy_code import (
    DONE,
    DRAIN,
    ENTRY,
    EPB_HEAD,
    EPB_ID,
    FULL,
    HASH,
    KEY_START,
    KEY_WORDS,
    ODD,
    SITE,
    TARGET,
    TEMPLATE,
    TEMPLATES,
    WAY_PCAP,
    WAY_PCAPNG,
    Code,
)

#: Where 16 bytes at a time, and then 8, cover the key words and nothing else.
_KEY_VECTORS: Final = (40, 56, 72, 104, 120)
_KEY_WORD: Final = 88
#: Bytes of a block's tail that are copied at a time; buffers have room for as many behind.
TAIL_PIECE: Final = 32
_NO_SITE: Final = -1


def write() -> Code:
    """Copy what is listed; the result says why it stopped."""
    return _Write(Code("write", "ptr %drain")).build()


class _Write:
    """The code of :func:`write`, its variables in registers.

    :param c: the function that it is made in.
    """

    def __init__(self, c: Code) -> None:
        self.c = c
        self.entries = c.pointer(c.get("%drain", DRAIN, "entries"))
        self.sites = c.pointer(c.get("%drain", DRAIN, "sites"))
        self.first = c.get("%drain", DRAIN, "next")
        self.room = c.get("%drain", DRAIN, "room")
        listed = c.sub(c.get("%drain", DRAIN, "count"), self.first)
        fits = c.is_("ult", listed, self.room)
        self.stop = c.add(self.first, c.select(fits, "i64", listed, self.room))
        self.index = c.variable(self.first)
        #: The site of the record before, its file, and the first record since it is that.
        self.number = c.variable(_NO_SITE)
        self.site, self.target = c.alloca(8), c.alloca(8)
        self.way = c.variable(0)
        self.since = c.variable(self.first)
        #: Where the file's next record goes, and where its buffer ends.
        self.to, self.limit = c.variable(0), c.variable(0)

    def build(self) -> Code:
        """The whole of it."""
        c = self.c
        result = c.variable(DONE)
        with c.loop() as (_, end):
            index = c.load("i64", self.index)
            c.leave(c.is_("uge", index, self.stop), end)
            entry = c.element(self.entries, ENTRY, index)
            sample = c.pointer(c.get(entry, ENTRY, "sample"))
            number = c.narrow(32, sample, layout.FIELDS["site"].offset)
            with c.if_(c.is_("ne", number, c.load("i64", self.number))):
                self._leave_site()
                self._enter_site(number)
            flags = c.narrow(16, sample, layout.FIELDS["flags"].offset)
            c.leave(c.is_("ne", c.op(f"and i64 {flags}, {layout.FLAG_FIXUP}"), 0), "odd")
            self._write_one(sample)
            c.store("i64", c.add(index, 1), self.index)
        c.jump("out")
        for label, code in (("full", FULL), ("odd", ODD)):
            c.label(label)
            c.store("i64", str(code), result)
            c.jump("out")
        c.label("out")
        self._leave_site()
        self._account()
        c.ret(c.load("i64", result))
        return c

    def _enter_site(self, number: Operand) -> None:
        """Get ready for records of another site."""
        c = self.c
        site = c.element(self.sites, SITE, number)
        target = c.pointer(c.get(site, SITE, "target"))
        buffer = c.get(target, TARGET, "buffer")
        c.store("ptr", site, self.site)
        c.store("ptr", target, self.target)
        for value, variable in (
            (number, self.number),
            (c.get(site, SITE, "way"), self.way),
            (c.load("i64", self.index), self.since),
            (c.add(buffer, c.get(target, TARGET, "used")), self.to),
            (c.add(buffer, c.get(target, TARGET, "capacity")), self.limit),
        ):
            c.store("i64", value, variable)

    def _leave_site(self) -> None:
        """Account for the records of a site that were written, if there is one."""
        c = self.c
        with c.if_(c.is_("ne", c.load("i64", self.number), _NO_SITE)):
            site, target = c.load("ptr", self.site), c.load("ptr", self.target)
            written = c.sub(c.load("i64", self.index), c.load("i64", self.since))
            c.increase(site, SITE, "written", written)
            c.increase(target, TARGET, "count", written)
            used = c.sub(c.load("i64", self.to), c.get(target, TARGET, "buffer"))
            c.set(target, TARGET, "used", used)

    def _account(self) -> None:
        """Note how far it came, and what of it came after a later record."""
        c = self.c
        index = c.load("i64", self.index)
        last = c.variable(c.get("%drain", DRAIN, "last"))
        each = c.variable(self.first)
        with c.loop() as (_, end):  # the list is sorted: those that are late come first
            now = c.load("i64", each)
            c.leave(c.is_("uge", now, index), end)
            mono = c.get(c.element(self.entries, ENTRY, now), ENTRY, "mono")
            c.leave(c.is_("uge", mono, c.load("i64", last)), end)
            c.increase("%drain", DRAIN, "late")
            c.store("i64", c.add(now, 1), each)
        # Not all of them late: the youngest is the last.
        with c.if_(c.is_("ult", c.load("i64", each), index)):
            youngest = c.element(self.entries, ENTRY, c.sub(index, 1))
            c.set("%drain", DRAIN, "last", c.get(youngest, ENTRY, "mono"))
        c.set("%drain", DRAIN, "room", c.sub(self.room, c.sub(index, self.first)))
        c.set("%drain", DRAIN, "next", index)

    def _write_one(self, sample: Operand) -> None:
        """A record into its file's buffer; jumps to "odd" if that is Python's, "full" without
        room."""
        c = self.c
        caplen = c.narrow(32, sample, layout.PCAP_HEADER_OFFSET + 8)
        way = c.load("i64", self.way)
        pcap, other, pcapng, copied = "pcap", "other", "pcapng", "written"
        c.branch(c.is_("eq", way, WAY_PCAPNG), pcapng, other)
        c.label(other)
        c.branch(c.is_("eq", way, WAY_PCAP), pcap, "odd")
        c.label(pcap)
        length = c.add(caplen, layout.PCAP_HEADER_SIZE)
        to, past = self._place(length)
        c.copy_short("%drain", to, c.offset(sample, layout.PCAP_HEADER_OFFSET), length)
        c.store("i64", past, self.to)
        c.jump(copied)
        c.label(pcapng)
        self._write_block(sample, caplen)
        c.label(copied)

    def _place(self, length: Operand) -> tuple[Operand, Operand]:
        """Where a record of some length goes, and what address is behind it; jumps to "full"."""
        c = self.c
        to = c.load("i64", self.to)
        past = c.add(to, length)
        c.leave(c.is_("ugt", past, c.load("i64", self.limit)), "full")
        return c.pointer(to), past

    def _write_block(self, sample: Operand, caplen: Operand) -> None:
        """An Enhanced Packet Block; jumps to "odd" where there is no template, "full" without
        room."""
        c = self.c
        target = c.load("ptr", self.target)
        template = _template(c, target, sample)
        tail_size = c.get(template, TEMPLATE, "tail_size")
        c.leave(c.is_("eq", tail_size, 0), "odd")  # an empty slot, and a key of zeros
        padded = c.op(f"and i64 {c.add(caplen, 3)}, -4")
        behind = c.add(padded, EPB_HEAD)
        total = c.add(behind, tail_size)
        to, past = self._place(total)
        _write_head(c, template, sample, to, total)
        # Zeros where the padding will be; the packet is then copied over what is its own.
        with c.if_(c.is_("ne", padded, caplen)):
            c.put(0, to, c.sub(behind, 4))
        c.copy_short(
            "%drain", c.offset(to, EPB_HEAD), c.offset(sample, layout.PREFIX_OFFSET), caplen
        )
        _copy_tail(c, c.offset(to, behind), template, tail_size)
        skb = c.narrow(64, sample, layout.FIELDS["skb"].offset)
        identity = c.op(f"xor i64 {skb}, {c.get(target, TARGET, 'secret')}")
        end = c.pointer(past)
        c.store("i64", identity, c.offset(end, -EPB_ID), align=1)
        c.put(total, end, -4)
        c.store("i64", past, self.to)
        c.increase(template, TEMPLATE, "packets")


def _write_head(c: Code, template: Operand, sample: Operand, to: Operand, total: Operand) -> None:
    """The block up to the packet, and when the template's last packet was."""
    sec, nsec = (c.narrow(32, sample, layout.PCAP_HEADER_OFFSET + at) for at in (0, 4))
    time = c.add(c.op(f"mul i64 {sec}, 1000000000"), nsec)
    high = c.op(f"lshr i64 {time}, 32")
    interface = c.get(template, TEMPLATE, "interface")
    head: tuple[int | Operand, ...] = (6, total, interface, high, time)
    for number, value in enumerate(head):
        c.put(value, to, 4 * number)
    lengths = c.narrow(64, sample, layout.PCAP_HEADER_OFFSET + 8)  # captured, original
    c.store("i64", lengths, c.offset(to, 4 * len(head)), align=1)
    with c.if_(c.is_("ugt", time, c.get(template, TEMPLATE, "last_ns"))):
        c.set(template, TEMPLATE, "last_ns", time)


def _copy_tail(c: Code, to: Operand, template: Operand, size: Operand) -> None:
    """What stands behind the packet; some bytes more than that are read and written."""
    tail = c.pointer(c.get(template, TEMPLATE, "tail"))
    done = c.variable(0)
    c.store("i64", "0", done)
    with c.loop() as (_, end):
        at = c.load("i64", done)
        places = [at, c.add(at, 16)]
        c.copy_vectors(to, tail, places)
        on = c.add(at, TAIL_PIECE)
        c.store("i64", on, done)
        c.leave(c.is_("uge", on, size), end)


def _differs(c: Code, template: Operand, sample: Operand, rest: Operand) -> Operand:
    """Whether a template is not the one of a record; an i1."""
    mixed = ""
    for at in _KEY_VECTORS:
        ours = c.load("<2 x i64>", c.offset(sample, at), align=1)
        known = c.load("<2 x i64>", c.offset(template, at - KEY_START), align=16)
        differ = c.op(f"xor <2 x i64> {ours}, {known}")
        mixed = c.op(f"or <2 x i64> {mixed}, {differ}") if mixed else differ
    vectors = c.compare("ne", "i128", c.op(f"bitcast <2 x i64> {mixed} to i128"), "0")
    word = c.narrow(64, sample, _KEY_WORD)
    other = c.op(f"xor i64 {word}, {c.get(template, TEMPLATE, f'at{_KEY_WORD}')}")
    halves = c.op(f"xor i64 {rest}, {c.get(template, TEMPLATE, 'rest')}")
    return c.op(f"or i1 {vectors}, {c.is_('ne', c.op(f'or i64 {other}, {halves}'), 0)}")


def _template(c: Code, target: Operand, sample: Operand) -> Operand:
    """The template of a record; jumps to "odd" where there is none."""
    # Flags, position, and a byte that is 0.
    low = c.narrow(32, sample, layout.FIELDS["flags"].offset)
    reason = c.op(f"shl i64 {c.narrow(32, sample, layout.FIELDS['reason'].offset)}, 32")
    rest = c.op(f"or i64 {low}, {reason}")
    latest = c.pointer(c.get(target, TARGET, "latest"))
    place = c.alloca(8)
    c.store("ptr", latest, place)
    with c.if_(_differs(c, latest, sample, rest)):
        words = [c.narrow(64, sample, at) for at in KEY_WORDS]
        mixed = words[0]
        for word in (*words[1:], rest):
            mixed = c.op(f"xor i64 {c.op(f'mul i64 {mixed}, {HASH}')}, {word}")
        mixed = c.op(f"mul i64 {mixed}, {HASH}")
        slot = c.op(f"lshr i64 {mixed}, {64 - (TEMPLATES.bit_length() - 1)}")
        template = c.element(c.pointer(c.get(target, TARGET, "templates")), TEMPLATE, slot)
        c.leave(_differs(c, template, sample, rest), "odd")
        c.set(target, TARGET, "latest", c.address(template))
        c.store("ptr", template, place)
    return c.load("ptr", place)
