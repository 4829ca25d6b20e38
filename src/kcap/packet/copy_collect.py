# SPDX-License-Identifier: Apache-2.0
"""The half of the copying loop that lists the rings' records in the order of time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kcap.codegen.ir import Operand
from kcap.functions import skb_record as layout
from kcap.kernel import uapi
from kcap.packet.copy_code import DRAIN, ENTRY, RING, TAKEN_MOST, Code

_SAMPLE: Final = uapi.PERF_RECORD_SAMPLE
_PERF_HEAD: Final = 12  # struct perf_event_header, u32 size of the raw data
_DATA_HEAD: Final = 1024  # data_head and data_tail in struct perf_event_mmap_page
_DATA_TAIL: Final = 1032


def functions() -> list[Code]:
    """The functions that are called where records are seldom: code of their own, so that the walk
    along a ring has the registers for itself."""
    return [_straighten(), _note(), _insert()]


def _straighten() -> Code:
    """Copy a record that the ring's end parts to the ring's scratch memory; the copy's address."""
    c = Code("straighten", "ptr %ring, ptr %drain, ptr %here, i64 %length")
    data, size = c.get("%ring", RING, "data"), c.get("%ring", RING, "size")
    scratch = c.pointer(c.get("%ring", RING, "scratch"))
    first = c.sub(c.add(data, size), c.address("%here"))
    c.copy("%drain", scratch, "%here", first)
    c.copy("%drain", c.offset(scratch, first), c.pointer(data), c.sub("%length", first))
    c.ret(c.address(scratch))
    return c


def _note() -> Code:
    """Whether a record is to be passed over: it was taken before from among younger ones, or is
    behind a younger one now and there is no room to note that it is taken. Else that is noted."""
    c = Code("note", "ptr %ring, i64 %position")
    taken = c.pointer(c.get("%ring", RING, "taken"))
    count = c.get("%ring", RING, "taken_count")
    index = c.variable(0)
    over, new = "over", "new"
    with c.loop():
        now = c.load("i64", index)
        c.leave(c.is_("uge", now, count), new)
        known = c.load("i64", c.offset(taken, c.op(f"shl i64 {now}, 3")))
        c.leave(c.is_("eq", known, "%position"), over)
        c.store("i64", c.add(now, 1), index)
    c.label(new)
    with c.if_(c.is_("ne", c.get("%ring", RING, "held"), 0)):
        c.leave(c.is_("uge", count, TAKEN_MOST), over)
        c.store("i64", "%position", c.offset(taken, c.op(f"shl i64 {count}, 3")))
        c.set("%ring", RING, "taken_count", c.add(count, 1))
    c.ret("0")
    c.label(over)
    c.ret("1")
    return c


def _insert() -> Code:
    """Put a record into the list, which has ``count`` entries: its place need not be the last."""
    c = Code("insert", "ptr %entries, i64 %count, i64 %key, i64 %number, ptr %sample")
    spot = c.variable("%count")
    with c.loop() as (_, found):
        to = c.load("i64", spot)
        c.leave(c.is_("eq", to, 0), found)
        before = c.element("%entries", ENTRY, c.sub(to, 1))
        mono = c.get(before, ENTRY, "mono")
        c.leave(c.is_("ult", mono, "%key"), found)
        other = c.get(before, ENTRY, "ring")
        tie = c.op(f"and i1 {c.is_('eq', mono, '%key')}, {c.is_('ule', other, '%number')}")
        c.leave(tie, found)
        _fill(c, c.element("%entries", ENTRY, to), mono, other, c.get(before, ENTRY, "sample"))
        c.store("i64", c.sub(to, 1), spot)
    entry = c.element("%entries", ENTRY, c.load("i64", spot))
    _fill(c, entry, "%key", "%number", c.address("%sample"))
    c.ret("0")
    return c


def _fill(c: Code, entry: Operand, mono: Operand, ring: Operand, sample: Operand) -> None:
    """Set an entry of the list."""
    for name, value in (("mono", mono), ("ring", ring), ("sample", sample)):
        c.set(entry, ENTRY, name, value)


def walk() -> Code:
    """List a ring's records as long as they are earlier than ``second``; the first that is not
    becomes the ring's next (key, sample), which is listed first when it is called again. Sets
    sample = 0 when there is no other.
    """
    c = Code("walk", "ptr %drain, ptr %ring, i64 %second")
    return _Walk(c).build()


class _Walk:
    """The code of :func:`walk`, its variables in registers.

    :param c: the function that it is made in.
    """

    def __init__(self, c: Code) -> None:
        self.c = c
        ring, drain = "%ring", "%drain"
        size = c.get(ring, RING, "size")
        self.data = c.pointer(c.get(ring, RING, "data"))
        self.end = c.offset(self.data, size)
        self.head = c.get(ring, RING, "head")
        self.number = c.get(ring, RING, "number")
        self.entries = c.pointer(c.get(drain, DRAIN, "entries"))
        self.until = c.get(drain, DRAIN, "until")
        self.site_count = c.get(drain, DRAIN, "site_count")
        tail = c.get(ring, RING, "tail")
        self.here = c.alloca(8)
        c.store("ptr", c.offset(self.data, c.op(f"and i64 {tail}, {c.sub(size, 1)}")), self.here)
        self.left = c.variable(c.sub(self.head, tail))
        self.count = c.variable(c.get(drain, DRAIN, "count"))
        self.newest = c.variable(c.get(drain, DRAIN, "newest"))
        marked = c.op(f"or i64 {c.get(ring, RING, 'held')}, {c.get(ring, RING, 'taken_count')}")
        #: Not 0 when it matters which records were taken before, or are taken now.
        self.marked = c.variable(marked)

    def build(self) -> Code:
        """The whole of it."""
        c = self.c
        pending = c.get("%ring", RING, "sample")
        with c.if_(c.is_("ne", pending, 0)):
            self._append(c.get("%ring", RING, "key"), c.pointer(pending))
        c.set("%ring", RING, "sample", 0)
        with c.loop() as (again, end):
            left = c.load("i64", self.left)
            c.leave(c.is_("sle", left, 0), end)
            sample, length = self._next(left, end, again)
            self._drop_malformed(sample, length, left, again)
            mono = c.narrow(64, sample, 0)
            self._leave_young(mono, left, again)
            self._pass_over_marked(left, again)
            with c.if_(c.is_("uge", mono, "%second")):
                c.set("%ring", RING, "key", mono)
                c.set("%ring", RING, "sample", c.address(sample))
                c.jump(end)
            self._append(mono, sample)
        c.set("%ring", RING, "tail", c.sub(self.head, c.load("i64", self.left)))
        c.set("%drain", DRAIN, "count", c.load("i64", self.count))
        c.set("%drain", DRAIN, "newest", c.load("i64", self.newest))
        c.ret("0")
        return c

    def _next(self, left: Operand, end: str, again: str) -> tuple[Operand, Operand]:
        """The sample of the record that is next, in one piece, and the record's length; goes on
        behind it."""
        c = self.c
        here = c.load("ptr", self.here)
        head = c.load("i64", here, align=1)
        length = c.op(f"lshr i64 {head}, 48")
        c.leave(c.is_("eq", length, 0), self._corrupt(end))
        place = c.alloca(8)
        c.store("ptr", here, place)
        behind = c.offset(here, length)
        c.store("ptr", behind, self.here)
        c.store("i64", c.sub(left, length), self.left)
        with c.if_(c.compare("uge", "ptr", behind, self.end)):
            over = c.sub(c.address(behind), c.address(self.end))
            c.store("ptr", c.offset(self.data, over), self.here)
            with c.if_(c.is_("ne", over, 0)):
                piece = c.op(
                    f"call i64 @straighten(ptr %ring, ptr %drain, ptr {here}, i64 {length}) #1"
                )
                c.store("ptr", c.pointer(piece), place)
        kind = c.op(f"trunc i64 {head} to i32")
        c.leave(c.compare("ne", "i32", kind, str(_SAMPLE)), again)
        return c.offset(c.load("ptr", place), _PERF_HEAD), length

    def _corrupt(self, end: str) -> str:
        """The label of what is done about a record without a length."""
        c = self.c
        corrupt, on = c.fresh("corrupt"), c.fresh("on")
        c.jump(on)
        c.label(corrupt)
        c.set("%drain", DRAIN, "corrupt", 1)
        c.jump(end)
        c.label(on)
        return corrupt

    def _drop_malformed(self, sample: Operand, length: Operand, left: Operand, again: str) -> None:
        """Count and pass over a record whose lengths don't add up, or of no site."""
        c = self.c
        bad, good = c.fresh("bad"), c.fresh("good")
        raw = c.sub(length, _PERF_HEAD)
        c.leave(c.is_("ult", raw, layout.PREFIX_OFFSET), bad)
        payload = c.narrow(32, sample, layout.FIELDS["payload_len"].offset)
        prefix = c.narrow(16, sample, layout.FIELDS["prefix_len"].offset)
        caplen = c.narrow(32, sample, layout.PCAP_HEADER_OFFSET + 8)
        site = c.narrow(32, sample, layout.FIELDS["site"].offset)
        c.leave(c.is_("ugt", c.add(caplen, layout.PREFIX_OFFSET), raw), bad)
        c.leave(c.is_("ne", c.add(payload, prefix), caplen), bad)
        c.branch(c.is_("ult", site, self.site_count), good, bad)
        c.label(bad)
        self._pass_over_marked(left, again)
        c.increase("%drain", DRAIN, "malformed")
        c.jump(again)
        c.label(good)

    def _leave_young(self, mono: Operand, left: Operand, again: str) -> None:
        """Leave a record that is too young in the ring, which is given back up to the first."""
        c = self.c
        with c.if_(c.is_("uge", mono, self.until)):
            with c.if_(c.is_("eq", c.get("%ring", RING, "held"), 0)):
                c.set("%ring", RING, "held", 1)
                c.set("%ring", RING, "stop", c.sub(self.head, left))
                c.store("i64", "1", self.marked)
            c.jump(again)

    def _pass_over_marked(self, left: Operand, again: str) -> None:
        """Pass over what was taken before; note what is taken from among younger ones."""
        c = self.c
        with c.if_(c.is_("ne", c.load("i64", self.marked), 0)):
            position = c.sub(self.head, left)
            over = c.op(f"call i64 @note(ptr %ring, i64 {position}) #1")
            c.leave(c.is_("ne", over, 0), again)

    def _append(self, mono: Operand, sample: Operand) -> None:
        """List a record: mostly it is the youngest so far."""
        c = self.c
        older, last, listed = c.fresh("older"), c.fresh("last"), c.fresh("listed")
        count = c.load("i64", self.count)
        c.branch(c.is_("ule", mono, c.load("i64", self.newest)), older, last)
        c.label(older)
        c.op(
            f"call i64 @insert(ptr {self.entries}, i64 {count}, i64 {mono}, "
            f"i64 {self.number}, ptr {sample}) #1"
        )
        c.jump(listed)
        c.label(last)
        entry = c.element(self.entries, ENTRY, count)
        _fill(c, entry, mono, self.number, c.address(sample))
        c.store("i64", mono, self.newest)
        c.label(listed)
        c.store("i64", c.add(count, 1), self.count)


def collect() -> Code:
    """Fill the list of entries, sorted by (mono, ring)."""
    c = Code("collect", "ptr %drain")
    rings = c.pointer(c.get("%drain", DRAIN, "rings"))
    ring_count = c.get("%drain", DRAIN, "ring_count")
    c.set("%drain", DRAIN, "count", 0)
    c.set("%drain", DRAIN, "newest", 0)
    with _each(c, rings, ring_count) as ring:
        control = c.pointer(c.get(ring, RING, "control"))
        head = c.op(f"load atomic i64, ptr {c.offset(control, _DATA_HEAD)} acquire, align 8")
        c.set(ring, RING, "head", head)
        c.set(ring, RING, "tail", c.load("i64", c.offset(control, _DATA_TAIL)))
        c.set(ring, RING, "held", 0)
        c.set(ring, RING, "sample", 0)
        c.op(f"call i64 @walk(ptr %drain, ptr {ring}, i64 0)")
    with c.loop() as (_, finished):
        best, second = _earliest(c, rings, ring_count)
        c.leave(c.compare("eq", "ptr", best, "null"), finished)
        c.op(f"call i64 @walk(ptr %drain, ptr {best}, i64 {second})")
    c.ret("0")
    return c


@contextmanager
def _each(c: Code, rings: Operand, ring_count: Operand) -> Iterator[Operand]:
    """The instructions within run for each ring; a pointer to it."""
    index = c.variable(0)
    with c.loop() as (_, end):
        now = c.load("i64", index)
        c.leave(c.is_("uge", now, ring_count), end)
        yield c.element(rings, RING, now)
        c.store("i64", c.add(now, 1), index)


def _earliest(c: Code, rings: Operand, ring_count: Operand) -> tuple[Operand, Operand]:
    """The ring with the earliest record, or null; and the time of the earliest of any other."""
    best = c.alloca(8)
    c.store("ptr", "null", best)
    least, second = c.variable(-1), c.variable(-1)
    index = c.variable(0)
    with c.loop() as (start, end):
        now = c.load("i64", index)
        c.leave(c.is_("uge", now, ring_count), end)
        c.store("i64", c.add(now, 1), index)
        ring = c.element(rings, RING, now)
        c.leave(c.is_("eq", c.get(ring, RING, "sample"), 0), start)
        key, first = c.get(ring, RING, "key"), c.load("i64", least)
        sooner = c.is_("ult", key, first)
        later = c.select(sooner, "i64", first, key)
        runner_up = c.load("i64", second)
        nearer = c.is_("ult", later, runner_up)
        c.store("i64", c.select(nearer, "i64", later, runner_up), second)
        c.store("i64", c.select(sooner, "i64", key, first), least)
        c.store("ptr", c.select(sooner, "ptr", ring, c.load("ptr", best)), best)
    return c.load("ptr", best), c.load("i64", second)


def release() -> Code:
    """Let the kernel have what is listed, and what of it was passed over."""
    c = Code("release", "ptr %drain")
    rings = c.pointer(c.get("%drain", DRAIN, "rings"))
    noted = c.variable(0)
    with _each(c, rings, c.get("%drain", DRAIN, "ring_count")) as ring:
        held = c.is_("ne", c.get(ring, RING, "held"), 0)
        tail = c.select(held, "i64", c.get(ring, RING, "stop"), c.get(ring, RING, "tail"))
        c.set(ring, RING, "tail", tail)
        control = c.pointer(c.get(ring, RING, "control"))
        c.line(f"store atomic i64 {tail}, ptr {c.offset(control, _DATA_TAIL)} release, align 8")
        c.store("i64", c.add(c.load("i64", noted), c.get(ring, RING, "taken_count")), noted)
    c.ret(c.load("i64", noted))
    return c
