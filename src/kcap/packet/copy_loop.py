# SPDX-License-Identifier: Apache-2.0
"""The loop that copies packets from the rings to a file's buffer, in LLVM IR.

Python spends some 400 ns a packet on walking the rings, on sorting and on the list of what is to be
written; this loop spends 40 and the copying. It does exactly what ``PacketSink.consume`` does with
the packets that need no finishing touch, and stops at each of the others, so the files are the
same to the byte.

One function is called, ``i64 run(ptr drain)``, on the structures below; all members are 64 bits
wide. It does what three others do: ``collect``, ``write``, ``release``. It returns what ``write``
does; unless that is DONE it is called again, and goes on with ``write``.

``collect`` makes a list, sorted by time, of the rings' records that are older than ``until``. Each
CPU's records are nearly in order (an interrupt may put a younger one before one that is being
made), so the rings are merged, and what is still out of order is moved to its place. Younger
records stay in the ring, behind ``stop``; where a record was taken from among them is noted in the
ring's list ``taken`` (the kernel lets nobody write to its records). A record that runs over its
ring's end is put together in ``scratch``.

``write`` copies the listed records, from ``next`` on, to the buffers of their files, and returns
why it stopped: DONE; FULL, the buffer of the file of record ``next`` is to be written first; ODD,
record ``next`` is Python's. For a pcap file the bytes stand in the record as they are. For a
pcapng file the block's head is made here; the options at its end are the same for most packets of
a function and process: they come from a template, found by the record's fields; the template of the
packet before is tried first.

``release`` gives the rings' space up to what was listed back to the kernel, and notes how many
positions the lists ``taken`` have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kcap.codegen.ir import IRBuilder, Operand
from kcap.functions import skb_record as layout
from kcap.kernel import uapi

#: Members of the structures, by name their index among 64-bit numbers.
DRAIN: Final = (
    "rings", "ring_count", "entries", "count", "next", "until", "sites", "site_count", "room",
    "last", "late", "malformed", "corrupt", "memcpy", "listed", "noted",
)  # fmt: skip
RING: Final = (
    "data", "size", "control", "tail", "head", "held", "stop", "key", "sample", "scratch",
    "number", "taken", "taken_count",
)  # fmt: skip
#: Positions that a ring's list ``taken`` can hold. What finds no room in it waits its turn, and may
#: then come late.
TAKEN_MOST: Final = 64
ENTRY: Final = ("mono", "ring", "sample")
SITE: Final = ("way", "target", "written")
TARGET: Final = ("buffer", "capacity", "used", "count", "templates", "latest", "secret")
#: The fields of a record that the options of its block depend on: eleven words, and the half word
#: that "rest" holds. A template has the words where the record has them, counted from the first.
KEY_WORDS: Final = tuple(range(40, 96, 8)) + tuple(range(104, 136, 8))
KEY_START: Final = KEY_WORDS[0]
TEMPLATE: Final = (
    *(f"at{at}" for at in range(KEY_START, KEY_WORDS[-1] + 8, 8)),
    "rest", "interface", "tail", "tail_size", "packets", "last_ns",
)  # fmt: skip
#: Where 16 bytes at a time cover the key words and nothing else.
_KEY_VECTORS: Final = (40, 56, 72, 80, 104, 120)
#: Templates a file has: a power of two. One that is needed takes the place of another.
TEMPLATES: Final = 512

#: What ``write`` returns, and how records of a site go into their file.
DONE: Final = 0
FULL: Final = 1
ODD: Final = 2
WAY_PCAP: Final = 1
WAY_PCAPNG: Final = 2

#: An Enhanced Packet Block before and behind the packet: see kcap.packet.pcapng.
EPB_HEAD: Final = 28
#: From the end of the block back to the packet's identity.
EPB_ID: Final = 24

_SAMPLE: Final = uapi.PERF_RECORD_SAMPLE
_PERF_HEAD: Final = 12  # struct perf_event_header, u32 size of the raw data
_DATA_HEAD: Final = 1024  # data_head and data_tail in struct perf_event_mmap_page
_DATA_TAIL: Final = 1032
#: An odd number of the golden ratio, as in include/linux/hash.h.
HASH: Final = 0x9E3779B97F4A7C15


def size_of(struct: tuple[str, ...]) -> int:
    """Bytes of a structure."""
    return 8 * len(struct)


class _Code(IRBuilder):
    """A function of the loop. Operands are i64 unless said so."""

    def member(self, base: Operand, struct: tuple[str, ...], name: str) -> Operand:
        """A pointer to a member."""
        return self.offset(base, 8 * struct.index(name))

    def get(self, base: Operand, struct: tuple[str, ...], name: str) -> Operand:
        """A member's value."""
        return self.load("i64", self.member(base, struct, name))

    def set(self, base: Operand, struct: tuple[str, ...], name: str, value: int | Operand) -> None:
        """Set a member."""
        self.store("i64", str(value), self.member(base, struct, name))

    def increase(
        self, base: Operand, struct: tuple[str, ...], name: str, by: int | Operand = 1
    ) -> None:
        """Add to a member."""
        self.set(base, struct, name, self.add(self.get(base, struct, name), by))

    def element(self, array: Operand, struct: tuple[str, ...], index: Operand) -> Operand:
        """A pointer to a structure of an array."""
        return self.offset(array, self.op(f"mul i64 {index}, {size_of(struct)}"))

    def variable(self, value: int | Operand) -> Operand:
        """A variable on the stack, which LLVM makes a register of."""
        place = self.alloca(8)
        self.store("i64", str(value), place)
        return place

    def add(self, left: Operand, right: int | Operand) -> Operand:
        """The sum of two numbers."""
        return self.op(f"add i64 {left}, {right}")

    def sub(self, left: Operand, right: int | Operand) -> Operand:
        """Their difference."""
        return self.op(f"sub i64 {left}, {right}")

    def is_(self, predicate: str, left: Operand, right: int | Operand) -> Operand:
        """A comparison; an i1."""
        return self.compare(predicate, "i64", left, str(right))

    def narrow(self, bits: int, base: Operand, offset: int) -> Operand:
        """A number of ``bits`` bits at an offset, zero-extended; nothing is known of alignment."""
        return self.resize(
            self.load(f"i{bits}", self.offset(base, offset), align=1), bits, 64, False
        )

    def put(self, value: int | Operand, base: Operand, offset: int | Operand) -> None:
        """Store the lower 32 bits of a number at an offset."""
        narrow = str(value) if isinstance(value, int) else self.resize(value, 64, 32, False)
        self.store("i32", narrow, self.offset(base, offset), align=1)

    def copy(self, drain: Operand, to: Operand, source: Operand, count: int | Operand) -> None:
        """Copy bytes with the C library's memcpy."""
        memcpy = self.pointer(self.get(drain, DRAIN, "memcpy"))
        self.op(f"call ptr {memcpy}(ptr {to}, ptr {source}, i64 {count})")

    @contextmanager
    def loop(self) -> Iterator[tuple[str, str]]:
        """The instructions within run again and again; labels of its start and of its end."""
        start, end = self.fresh("loop"), self.fresh("done")
        self.label(start)
        yield start, end
        self.jump(start)
        self.label(end)

    def leave(self, condition: Operand, label: str) -> None:
        """Go to a label where the i1 is true."""
        on = self.fresh("on")
        self.branch(condition, label, on)
        self.label(on)


def module() -> str:
    """The text of the module."""
    return "\n".join(
        [
            # Called in one place each: to save registers for it would cost more than it does.
            *(
                part.text().replace(" #0 {", " #0 alwaysinline {", 1)
                for part in (_advance(), _collect(), _write(), _release())
            ),
            _run().text(),
            # no-builtins: a loop must not become a call of memcpy, which nobody would link.
            'attributes #0 = { nounwind "no-builtins" }',
        ]
    )


def _run() -> _Code:
    """All that is done with one look at the rings, or what is left of it to do."""
    c = _Code("run", "ptr %drain", ".text")
    with c.if_(c.is_("eq", c.get("%drain", DRAIN, "listed"), 0)):
        c.op("call i64 @collect(ptr %drain)")
        c.set("%drain", DRAIN, "next", 0)
        c.set("%drain", DRAIN, "listed", 1)
    why = c.op("call i64 @write(ptr %drain)")
    with c.if_(c.is_("eq", why, DONE)):
        c.set("%drain", DRAIN, "noted", c.op("call i64 @release(ptr %drain)"))
        c.set("%drain", DRAIN, "listed", 0)
    c.ret(why)
    return c


def _advance() -> _Code:
    """Find a ring's next record that is to be taken: sets key and sample, or sample = 0."""
    c = _Code("advance", "ptr %drain, ptr %ring")
    size = c.get("%ring", RING, "size")
    mask = c.sub(size, 1)
    data = c.pointer(c.get("%ring", RING, "data"))
    head = c.get("%ring", RING, "head")
    c.set("%ring", RING, "sample", 0)
    with c.loop() as (again, end):
        tail = c.get("%ring", RING, "tail")
        c.leave(c.is_("uge", tail, head), end)
        at = c.op(f"and i64 {tail}, {mask}")
        here = c.offset(data, at)
        kind = c.narrow(32, here, 0)
        length = c.narrow(16, here, 6)
        corrupt, sane = c.fresh("corrupt"), c.fresh("sane")
        c.branch(c.is_("eq", length, 0), corrupt, sane)
        c.label(corrupt)
        c.set("%drain", DRAIN, "corrupt", 1)
        c.jump(end)
        c.label(sane)
        c.set("%ring", RING, "tail", c.add(tail, length))
        c.leave(c.is_("ne", kind, _SAMPLE), again)
        c.leave(_is_taken(c, tail), again)
        record = _in_one_piece(c, data, size, here, at, length)
        sample = c.offset(record, _PERF_HEAD)
        _drop_malformed(c, record, sample, tail, again)
        mono = c.narrow(64, sample, 0)
        _leave_young(c, mono, tail, again)
        with c.if_(c.is_("ne", c.get("%ring", RING, "held"), 0)):
            _take(c, tail, again)
        c.set("%ring", RING, "key", mono)
        c.set("%ring", RING, "sample", c.address(sample))
        c.jump(end)
    c.ret("0")
    return c


def _in_one_piece(
    c: _Code, data: Operand, size: Operand, here: Operand, at: Operand, length: Operand
) -> Operand:
    """Where a record of the ring can be read: one that its end parts is copied.

    :param here: where it begins, and ``at`` the offset of that in the ring's data.
    """
    place = c.alloca(8)
    c.store("ptr", here, place)
    past = c.add(at, length)
    with c.if_(c.is_("ugt", past, size)):
        scratch = c.pointer(c.get("%ring", RING, "scratch"))
        first = c.sub(size, at)
        c.copy("%drain", scratch, here, first)
        c.copy("%drain", c.offset(scratch, first), data, c.sub(length, first))
        c.store("ptr", scratch, place)
    return c.load("ptr", place)


def _drop_malformed(c: _Code, record: Operand, sample: Operand, tail: Operand, again: str) -> None:
    """Count and pass over a record whose lengths don't add up, or of no site."""
    raw = c.narrow(32, record, 8)
    bad, long, good = c.fresh("bad"), c.fresh("long"), c.fresh("good")
    c.branch(c.is_("ult", raw, layout.PREFIX_OFFSET), bad, long)
    c.label(long)
    payload = c.narrow(32, sample, layout.FIELDS["payload_len"].offset)
    prefix = c.narrow(16, sample, layout.FIELDS["prefix_len"].offset)
    caplen = c.narrow(32, sample, layout.PCAP_HEADER_OFFSET + 8)
    site = c.narrow(32, sample, layout.FIELDS["site"].offset)
    fits = c.is_("ule", c.add(caplen, layout.PREFIX_OFFSET), raw)
    adds_up = c.is_("eq", c.add(payload, prefix), caplen)
    known = c.is_("ult", site, c.get("%drain", DRAIN, "site_count"))
    both = c.op(f"and i1 {fits}, {adds_up}")
    c.branch(c.op(f"and i1 {both}, {known}"), good, bad)
    c.label(bad)
    with c.if_(c.is_("ne", c.get("%ring", RING, "held"), 0)):
        _take(c, tail, again)
    c.increase("%drain", DRAIN, "malformed")
    c.jump(again)
    c.label(good)


def _leave_young(c: _Code, mono: Operand, tail: Operand, again: str) -> None:
    """Leave a record that is too young in the ring, which is given back up to the first of them."""
    young, take = c.fresh("young"), c.fresh("take")
    c.branch(c.is_("uge", mono, c.get("%drain", DRAIN, "until")), young, take)
    c.label(young)
    with c.if_(c.is_("eq", c.get("%ring", RING, "held"), 0)):
        c.set("%ring", RING, "held", 1)
        c.set("%ring", RING, "stop", tail)
    c.jump(again)
    c.label(take)


def _is_taken(c: _Code, position: Operand) -> Operand:
    """Whether the record at a position was taken before from among younger ones; an i1."""
    taken = c.pointer(c.get("%ring", RING, "taken"))
    count = c.get("%ring", RING, "taken_count")
    index = c.variable(0)
    c.store("i64", "0", index)
    with c.loop() as (_, end):
        now = c.load("i64", index)
        c.leave(c.is_("uge", now, count), end)
        known = c.load("i64", c.offset(taken, c.op(f"shl i64 {now}, 3")))
        c.leave(c.is_("eq", known, position), end)
        c.store("i64", c.add(now, 1), index)
    return c.is_("ult", c.load("i64", index), count)


def _take(c: _Code, position: Operand, full: str) -> None:
    """Note that the record at a position is taken; goes to a label if there is no room for that."""
    count = c.get("%ring", RING, "taken_count")
    c.leave(c.is_("uge", count, TAKEN_MOST), full)
    taken = c.pointer(c.get("%ring", RING, "taken"))
    c.store("i64", position, c.offset(taken, c.op(f"shl i64 {count}, 3")))
    c.set("%ring", RING, "taken_count", c.add(count, 1))


def _collect() -> _Code:
    """Fill the list of entries, sorted by (mono, ring)."""
    c = _Code("collect", "ptr %drain")
    rings = c.pointer(c.get("%drain", DRAIN, "rings"))
    ring_count = c.get("%drain", DRAIN, "ring_count")
    entries = c.pointer(c.get("%drain", DRAIN, "entries"))
    with _each(c, rings, ring_count) as ring:
        control = c.pointer(c.get(ring, RING, "control"))
        head = c.op(f"load atomic i64, ptr {c.offset(control, _DATA_HEAD)} acquire, align 8")
        c.set(ring, RING, "head", head)
        c.set(ring, RING, "tail", c.load("i64", c.offset(control, _DATA_TAIL)))
        c.set(ring, RING, "held", 0)
        c.op(f"call i64 @advance(ptr %drain, ptr {ring})")
    count = c.variable(0)
    with c.loop() as (_, finished):
        best, second = _earliest(c, rings, ring_count)
        c.leave(c.compare("eq", "ptr", best, "null"), finished)
        # Mostly the next record is of the same ring again.
        with c.loop() as (_, other):
            _insert(c, entries, best, c.load("i64", count))
            c.store("i64", c.add(c.load("i64", count), 1), count)
            c.op(f"call i64 @advance(ptr %drain, ptr {best})")
            c.leave(c.is_("eq", c.get(best, RING, "sample"), 0), other)
            c.leave(c.is_("uge", c.get(best, RING, "key"), second), other)
    c.set("%drain", DRAIN, "count", c.load("i64", count))
    c.ret("0")
    return c


@contextmanager
def _each(c: _Code, rings: Operand, ring_count: Operand) -> Iterator[Operand]:
    """The instructions within run for each ring; a pointer to it."""
    index = c.variable(0)
    c.store("i64", "0", index)
    with c.loop() as (_, end):
        now = c.load("i64", index)
        c.leave(c.is_("uge", now, ring_count), end)
        yield c.element(rings, RING, now)
        c.store("i64", c.add(now, 1), index)


def _insert(c: _Code, entries: Operand, ring: Operand, count: Operand) -> None:
    """Put a ring's record into the list, which has ``count`` entries."""
    key, number = c.get(ring, RING, "key"), c.get(ring, RING, "number")
    spot = c.variable(0)
    c.store("i64", count, spot)
    with c.loop() as (_, found):
        to = c.load("i64", spot)
        c.leave(c.is_("eq", to, 0), found)
        before = c.element(entries, ENTRY, c.sub(to, 1))
        mono = c.get(before, ENTRY, "mono")
        c.leave(c.is_("ult", mono, key), found)
        other = c.get(before, ENTRY, "ring")
        tie = c.op(f"and i1 {c.is_('eq', mono, key)}, {c.is_('ule', other, number)}")
        c.leave(tie, found)
        behind = c.element(entries, ENTRY, to)
        for name, value in (
            ("mono", mono), ("ring", other), ("sample", c.get(before, ENTRY, "sample"))
        ):  # fmt: skip
            c.set(behind, ENTRY, name, value)
        c.store("i64", c.sub(to, 1), spot)
    entry = c.element(entries, ENTRY, c.load("i64", spot))
    c.set(entry, ENTRY, "mono", key)
    c.set(entry, ENTRY, "ring", number)
    c.set(entry, ENTRY, "sample", c.get(ring, RING, "sample"))


def _earliest(c: _Code, rings: Operand, ring_count: Operand) -> tuple[Operand, Operand]:
    """The ring with the earliest record, or null; and the time of the earliest of any other."""
    best = c.alloca(8)
    c.store("ptr", "null", best)
    least, second = c.variable(-1), c.variable(-1)
    index = c.variable(0)
    c.store("i64", "-1", least)
    c.store("i64", "-1", second)
    c.store("i64", "0", index)
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


def _release() -> _Code:
    """Let the kernel have what is listed, and what of it was passed over."""
    c = _Code("release", "ptr %drain")
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


def _write() -> _Code:
    """Copy what is listed; the result says why it stopped."""
    c = _Code("write", "ptr %drain")
    entries = c.pointer(c.get("%drain", DRAIN, "entries"))
    count = c.get("%drain", DRAIN, "count")
    sites = c.pointer(c.get("%drain", DRAIN, "sites"))
    result = c.variable(DONE)
    next_ = c.variable(c.get("%drain", DRAIN, "next"))
    room = c.variable(c.get("%drain", DRAIN, "room"))
    last = c.variable(c.get("%drain", DRAIN, "last"))
    full, odd, out = "full", "odd", "out"
    with c.loop() as (_, end):
        index = c.load("i64", next_)
        c.leave(c.is_("uge", index, count), end)
        c.leave(c.is_("eq", c.load("i64", room), 0), end)
        entry = c.element(entries, ENTRY, index)
        sample = c.pointer(c.get(entry, ENTRY, "sample"))
        site = c.element(sites, SITE, c.narrow(32, sample, layout.FIELDS["site"].offset))
        target = c.pointer(c.get(site, SITE, "target"))
        flags = c.narrow(16, sample, layout.FIELDS["flags"].offset)
        c.leave(c.is_("ne", c.op(f"and i64 {flags}, {layout.FLAG_FIXUP}"), 0), odd)
        _write_one(c, c.get(site, SITE, "way"), target, sample)
        c.increase(target, TARGET, "count")
        c.increase(site, SITE, "written")
        mono, before = c.get(entry, ENTRY, "mono"), c.load("i64", last)
        early = c.is_("ult", mono, before)
        with c.if_(early):
            c.increase("%drain", DRAIN, "late")
        c.store("i64", c.select(early, "i64", before, mono), last)
        c.store("i64", c.sub(c.load("i64", room), 1), room)
        c.store("i64", c.add(index, 1), next_)
    c.jump(out)
    for label, code in ((full, FULL), (odd, ODD)):
        c.label(label)
        c.store("i64", str(code), result)
        c.jump(out)
    c.label(out)
    for name, value in (("next", next_), ("room", room), ("last", last)):
        c.set("%drain", DRAIN, name, c.load("i64", value))
    c.ret(c.load("i64", result))
    return c


def _write_one(c: _Code, way: Operand, target: Operand, sample: Operand) -> None:
    """A record into its file's buffer; jumps to "odd" if that is Python's, "full" without room."""
    used = c.get(target, TARGET, "used")
    to = c.offset(c.pointer(c.get(target, TARGET, "buffer")), used)
    caplen = c.narrow(32, sample, layout.PCAP_HEADER_OFFSET + 8)
    pcap, other, pcapng, copied = "pcap", "other", "pcapng", "copied"
    c.branch(c.is_("eq", way, WAY_PCAP), pcap, other)
    c.label(pcap)
    length = c.add(caplen, layout.PCAP_HEADER_SIZE)
    past = c.add(used, length)
    c.leave(c.is_("ugt", past, c.get(target, TARGET, "capacity")), "full")
    c.copy("%drain", to, c.offset(sample, layout.PCAP_HEADER_OFFSET), length)
    c.set(target, TARGET, "used", past)
    c.jump(copied)
    c.label(other)
    c.branch(c.is_("eq", way, WAY_PCAPNG), pcapng, "odd")
    c.label(pcapng)
    _write_block(c, target, sample, to, caplen)
    c.label(copied)


def _differs(c: _Code, template: Operand, sample: Operand, rest: Operand) -> Operand:
    """Whether a template is not the one of a record; an i1."""
    mixed = ""
    for at in _KEY_VECTORS:
        ours = c.load("<2 x i64>", c.offset(sample, at), align=1)
        known = c.load("<2 x i64>", c.offset(template, at - KEY_START), align=1)
        differ = c.op(f"xor <2 x i64> {ours}, {known}")
        mixed = c.op(f"or <2 x i64> {mixed}, {differ}") if mixed else differ
    halves = [c.op(f"extractelement <2 x i64> {mixed}, i32 {half}") for half in (0, 1)]
    words = c.op(f"or i64 {halves[0]}, {halves[1]}")
    other = c.op(f"xor i64 {rest}, {c.get(template, TEMPLATE, 'rest')}")
    return c.is_("ne", c.op(f"or i64 {words}, {other}"), 0)


def _template(c: _Code, target: Operand, sample: Operand) -> Operand:
    """The template of a record; jumps to "odd" where there is none."""
    position = c.op(f"shl i64 {c.narrow(8, sample, layout.FIELDS['position'].offset)}, 16")
    flags = c.narrow(16, sample, layout.FIELDS["flags"].offset)
    reason = c.op(f"shl i64 {c.narrow(32, sample, layout.FIELDS['reason'].offset)}, 32")
    rest = c.op(f"or i64 {c.op(f'or i64 {flags}, {position}')}, {reason}")
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


def _write_block(c: _Code, target: Operand, sample: Operand, to: Operand, caplen: Operand) -> None:
    """An Enhanced Packet Block; jumps to "odd" where there is no template, "full" without room."""
    template = _template(c, target, sample)
    tail_size = c.get(template, TEMPLATE, "tail_size")
    c.leave(c.is_("eq", tail_size, 0), "odd")  # an empty slot, and a key of zeros
    padded = c.op(f"and i64 {c.add(caplen, 3)}, -4")
    behind = c.add(padded, EPB_HEAD)
    total = c.add(behind, tail_size)
    past = c.add(c.get(target, TARGET, "used"), total)
    c.leave(c.is_("ugt", past, c.get(target, TARGET, "capacity")), "full")
    sec, nsec, original = (
        c.narrow(32, sample, layout.PCAP_HEADER_OFFSET + at) for at in (0, 4, 12)
    )
    time = c.add(c.op(f"mul i64 {sec}, 1000000000"), nsec)
    high = c.op(f"lshr i64 {time}, 32")
    interface = c.get(template, TEMPLATE, "interface")
    head: tuple[int | Operand, ...] = (6, total, interface, high, time, caplen, original)
    for number, value in enumerate(head):
        c.put(value, to, 4 * number)
    # Zeros where the padding will be; the packet is then copied over what is its own.
    last = c.sub(behind, 4)
    with c.if_(c.is_("ne", padded, 0)):
        c.put(0, to, last)
    c.copy("%drain", c.offset(to, EPB_HEAD), c.offset(sample, layout.PREFIX_OFFSET), caplen)
    c.copy("%drain", c.offset(to, behind), c.pointer(c.get(template, TEMPLATE, "tail")), tail_size)
    skb = c.narrow(64, sample, layout.FIELDS["skb"].offset)
    identity = c.op(f"xor i64 {skb}, {c.get(target, TARGET, 'secret')}")
    c.store("i64", identity, c.offset(to, c.sub(total, EPB_ID)), align=1)
    c.put(total, to, c.sub(total, 4))
    c.set(target, TARGET, "used", past)
    c.increase(template, TEMPLATE, "packets")
    latest = c.get(template, TEMPLATE, "last_ns")
    c.set(
        template, TEMPLATE, "last_ns",
        c.select(c.is_("ugt", time, latest), "i64", time, latest),
    )  # fmt: skip
