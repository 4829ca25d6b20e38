# SPDX-License-Identifier: Apache-2.0
"""What the parts of the copying loop share: the structures in memory, and how its code is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from kcap.codegen.ir import IRBuilder, Operand

#: Members of the structures, by name their index among 64-bit numbers.
DRAIN: Final = (
    "rings", "ring_count", "entries", "count", "next", "until", "sites", "site_count", "room",
    "last", "late", "malformed", "corrupt", "memcpy", "listed", "noted", "newest",
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

#: An odd number of the golden ratio, as in include/linux/hash.h.
HASH: Final = 0x9E3779B97F4A7C15


def size_of(struct: tuple[str, ...]) -> int:
    """Bytes of a structure."""
    return 8 * len(struct)


class Code(IRBuilder):
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

    def copy_short(self, drain: Operand, to: Operand, source: Operand, count: Operand) -> None:
        """Copy bytes: 16 to 128 of them without a call, the last 16 wherever they begin."""
        long, end = self.fresh("long"), self.fresh("copied")
        self.leave(self.is_("ugt", self.sub(count, 16), 112), long)
        for least, vectors in ((64, 4), (32, 2), (0, 1)):
            less = self.fresh("less")
            if least:
                self.leave(self.is_("ule", count, least), less)
            starts = [self.sub(count, 16 * number) for number in range(1, vectors + 1)]
            self.copy_vectors(to, source, [*(16 * n for n in range(vectors)), *starts])
            self.jump(end)
            if least:
                self.label(less)
        self.label(long)
        self.copy(drain, to, source, count)
        self.label(end)

    def copy_vectors(self, to: Operand, source: Operand, places: Sequence[int | Operand]) -> None:
        """Copy 16 bytes at each of some offsets; all are read before one is written."""
        found = [self.load("<2 x i64>", self.offset(source, at), align=1) for at in places]
        for at, vector in zip(places, found, strict=True):
            self.store("<2 x i64>", vector, self.offset(to, at), align=1)

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
