# SPDX-License-Identifier: Apache-2.0
"""The types of the bpftrace language: their size in memory, and how user space decodes them.

A type is an immutable value. Scalars (integers, booleans, pointers, enums and the opaque scalars
that functions define, such as kernel symbols) are held in registers by the code generator; all
others live in memory. Layouts are the ones that the BPF program writes to maps and events: natural
alignment, little-endian, padding zero.

A function with a result that only user space can make sense of (a symbol, a timestamp) defines its
own type beside itself, derived from :class:`Opaque`; nothing here needs to know it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from struct import iter_unpack
from typing import Any, Literal

from kcap.records import dataclass, field

Space = Literal["kernel", "user", "bpf", "ctx", "unknown"]
"""Where a pointer points: kernel or user memory (read through a helper), memory of the BPF
program itself (stack, map value), or the context that the program was called with."""

Buffer_ = bytes | bytearray | memoryview


class Type:
    """Base of all types. ``size`` and ``align`` are in bytes."""

    __slots__ = ()

    @property
    def size(self) -> int:
        """Bytes that a value takes in memory."""
        raise NotImplementedError

    @property
    def align(self) -> int:
        """Alignment of a value in memory, in bytes."""
        return min(8, self.size) or 1

    @property
    def is_scalar(self) -> bool:
        """Whether a value fits a register, so that code generation holds it there."""
        return False

    def decode(self, data: Buffer_, offset: int = 0) -> Any:
        """The Python value of the bytes at ``data[offset:offset + size]``.

        Integers become int, booleans bool, strings str, buffers bytes, arrays list, tuples tuple
        (records a dict by name), structs a dict by field name, enums int.
        """
        raise NotImplementedError

    def decode_all(self, parts: Iterable[Buffer_]) -> list[Any]:
        """The values of many, each of ``size`` bytes."""
        decode = self.decode
        return [decode(part) for part in parts]


@dataclass(frozen=True, slots=True)
class Void(Type):
    """No value: what ``printf`` returns."""

    @property
    def size(self) -> int:
        return 0

    def decode(self, data: Buffer_, offset: int = 0) -> None:
        return None

    def __str__(self) -> str:
        return "void"


@dataclass(frozen=True, slots=True)
class Unresolved(Type):
    """A type that an inference pass does not know yet; never reaches code generation."""

    @property
    def size(self) -> int:
        return 0

    def __str__(self) -> str:
        return "none"


@dataclass(frozen=True, slots=True)
class Integer(Type):
    """An integer of 1, 2, 4 or 8 bytes.

    :param flexible: it comes from non-negative literals only, so that either sign would do; an
        integer of definite sign that it meets decides. Only type inference looks at it.
    :param space: where the value would point if it were cast to a pointer, if known.
    """

    bytes: int
    signed: bool
    flexible: bool = field(default=False, compare=False)
    space: Space = field(default="unknown", compare=False)

    @property
    def size(self) -> int:
        return self.bytes

    @property
    def is_scalar(self) -> bool:
        return True

    @property
    def minimum(self) -> int:
        """The smallest value of the type."""
        return -(1 << (8 * self.bytes - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """The largest value of the type."""
        return (1 << (8 * self.bytes - (1 if self.signed else 0))) - 1

    def decode(self, data: Buffer_, offset: int = 0) -> int:
        return int.from_bytes(data[offset : offset + self.bytes], "little", signed=self.signed)

    def decode_all(self, parts: Iterable[Buffer_]) -> list[int]:
        code = {1: "b", 2: "h", 4: "i", 8: "q"}[self.bytes]
        unpacked = iter_unpack(f"<{code if self.signed else code.upper()}", b"".join(parts))
        return [value for (value,) in unpacked]

    def __str__(self) -> str:
        return f"{'' if self.signed else 'u'}int{8 * self.bytes}"


INT8, INT16, INT32, INT64 = (Integer(n, True) for n in (1, 2, 4, 8))
UINT8, UINT16, UINT32, UINT64 = (Integer(n, False) for n in (1, 2, 4, 8))


@dataclass(frozen=True, slots=True)
class Boolean(Type):
    """``true`` or ``false``, one byte."""

    @property
    def size(self) -> int:
        return 1

    @property
    def is_scalar(self) -> bool:
        return True

    def decode(self, data: Buffer_, offset: int = 0) -> bool:
        return data[offset] != 0

    def __str__(self) -> str:
        return "bool"


BOOL = Boolean()
VOID = Void()
UNRESOLVED = Unresolved()


@dataclass(frozen=True, slots=True)
class String(Type):
    """A NUL-terminated string.

    :param length: bytes in memory, the terminating NUL included.
    """

    length: int

    @property
    def size(self) -> int:
        return self.length

    @property
    def align(self) -> int:
        return 1

    def decode(self, data: Buffer_, offset: int = 0) -> str:
        raw = bytes(data[offset : offset + self.length])
        end = raw.find(0)
        return (raw if end < 0 else raw[:end]).decode("utf-8", "surrogateescape")

    def decode_all(self, parts: Iterable[Buffer_]) -> list[str]:
        cut = (bytes(part).partition(b"\0")[0] for part in parts)
        return [text.decode("utf-8", "surrogateescape") for text in cut]

    def __str__(self) -> str:
        return f"string[{self.length}]"


@dataclass(frozen=True, slots=True)
class Buffer(Type):
    """Bytes with their length: what ``buf()`` returns. In memory: u32 length, then the bytes.

    :param capacity: the most bytes that it holds.
    """

    capacity: int

    @property
    def size(self) -> int:
        return 4 + self.capacity

    @property
    def align(self) -> int:
        return 4

    def decode(self, data: Buffer_, offset: int = 0) -> bytes:
        length = int.from_bytes(data[offset : offset + 4], "little")
        return bytes(data[offset + 4 : offset + 4 + min(length, self.capacity)])

    def __str__(self) -> str:
        return f"buffer[{self.capacity}]"


@dataclass(frozen=True, slots=True)
class Pointer(Type):
    """A pointer, 8 bytes.

    :param target: what it points to; :class:`Void` for ``void *``.
    :param space: the address space that it is read in.
    :param tracked: the verifier knows its BTF type (it came from ``args`` of an fentry, fexit or
        rawtracepoint probe through struct members only), so that plain loads through it are
        allowed and helpers that want a BTF pointer take it.
    """

    target: Type
    space: Space = "kernel"
    tracked: bool = field(default=False, compare=False)

    @property
    def size(self) -> int:
        return 8

    @property
    def is_scalar(self) -> bool:
        return True

    def decode(self, data: Buffer_, offset: int = 0) -> int:
        return int.from_bytes(data[offset : offset + 8], "little")

    def plain_parts(self) -> tuple[object, ...]:
        """For :mod:`kcap.plain`: of a struct that it points to only the name, since that may point
        to any number of others."""
        target = self.target
        declared = target.declared() if isinstance(target, Struct) else target
        return declared, self.space, self.tracked

    def __str__(self) -> str:
        return f"{self.target}*" if isinstance(self.target, Pointer) else f"{self.target} *"


@dataclass(frozen=True, slots=True)
class Array(Type):
    """``length`` elements of one type, without padding between them.

    :param numbers: a script's cast made it, so that its elements are numbers even where they are
        as wide as a ``char``. Only printing looks at it.
    """

    element: Type
    length: int
    numbers: bool = field(default=False, compare=False)

    @property
    def size(self) -> int:
        return self.element.size * self.length

    @property
    def align(self) -> int:
        return self.element.align

    def decode(self, data: Buffer_, offset: int = 0) -> list[Any]:
        step, decode = self.element.size, self.element.decode
        return [decode(data, offset + i * step) for i in range(self.length)]

    def __str__(self) -> str:
        return f"{self.element}[{self.length}]"


@dataclass(frozen=True, slots=True)
class Enum(Type):
    """A C enum.

    :param name: its tag, or '' for an anonymous one.
    :param values: constant name by value (the first name of a value wins).
    """

    name: str
    bytes: int
    signed: bool
    values: Mapping[int, str] = field(compare=False, hash=False)

    @property
    def size(self) -> int:
        return self.bytes

    @property
    def is_scalar(self) -> bool:
        return True

    @property
    def integer(self) -> Integer:
        """The integer type of the same representation."""
        return Integer(self.bytes, self.signed)

    def decode(self, data: Buffer_, offset: int = 0) -> int:
        return self.integer.decode(data, offset)

    def __str__(self) -> str:
        return f"enum {self.name}".rstrip()


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a struct or union.

    :param offset: bytes from the start of the struct (for a bitfield: of the storage unit that is
        read, ``type.size`` bytes).
    :param bit_shift: for a bitfield, bits to the right of it in the storage unit.
    :param bit_size: its width in bits, or 0 when it is no bitfield.
    :param data_loc: a tracepoint's ``__data_loc`` field: a u32 of ``length << 16 | offset`` stands
        here, relative to the start of the context (kernel: include/trace/stages).
    :param slot: bytes of the context slot that holds it where that is wider than the type
        (8 for the arguments of BPF tracing programs), else 0.
    :param in_union: it is a member of a union, or found through an anonymous one, so that the
        verifier does not vouch for a pointer in it.
    """

    name: str
    offset: int
    type: Type
    bit_shift: int = 0
    bit_size: int = 0
    data_loc: bool = False
    slot: int = 0
    in_union: bool = False


@dataclass(frozen=True, slots=True)
class Struct(Type):
    """A struct or union, from BTF, from a C definition, or the arguments of a probe.

    Fields are looked up on demand, since kernel structs are large and refer to each other.

    :param keyword: 'struct' or 'union', or 'args' for the arguments of a probe.
    :param name: its tag; '' for an anonymous one.
    :param bytes: its size, 0 when only declared.
    :param origin: what tells apart two types of the same name (the BTF type id, a definition).
    :param find: the field of a name (members of anonymous members included), or None.
    :param all_fields: every direct field, in order of declaration.
    """

    keyword: Literal["struct", "union", "args"]
    name: str
    bytes: int
    origin: object
    find: Callable[[str], Field | None] = field(compare=False, hash=False, repr=False)
    all_fields: Callable[[], tuple[Field, ...]] = field(compare=False, hash=False, repr=False)

    @property
    def size(self) -> int:
        return self.bytes

    @property
    def align(self) -> int:
        widest = 8 if self.bytes % 8 == 0 else 4 if self.bytes % 4 == 0 else 1
        if widest == 1 or self.keyword == "args":
            return widest
        fields = self.all_fields()
        aligned = [f.type.align for f in fields if f.offset % f.type.align == 0]
        return min(widest, max(aligned, default=1)) if fields else widest

    def decode(self, data: Buffer_, offset: int = 0) -> dict[str, Any]:
        return {f.name: decode_field(f, data, offset) for f in self.all_fields()}

    def plain_parts(self) -> tuple[object, ...]:
        """For :mod:`kcap.plain`: what decoding takes. Fields of anonymous members can't be looked
        up any more then."""
        return self.keyword, self.name, self.bytes, self.all_fields()

    @classmethod
    def from_plain(
        cls,
        keyword: Literal["struct", "union", "args"],
        name: str,
        size: int,
        fields: tuple[Field, ...],
    ) -> Struct:
        """A struct or union of these fields."""
        by_name = {item.name: item for item in fields}
        return cls(keyword, name, size, name, by_name.get, lambda: fields)

    def declared(self) -> Struct:
        """The same of which nothing but the name is known."""
        return self.from_plain(self.keyword, self.name, self.bytes, ())

    def __str__(self) -> str:
        return f"{self.keyword} {self.name}".rstrip()


def decode_field(item: Field, data: Buffer_, base: int) -> Any:
    """The Python value of one field of a struct that starts at ``data[base]``."""
    value = item.type.decode(data, base + item.offset)
    if item.bit_size and isinstance(value, int):
        value = (value >> item.bit_shift) & ((1 << item.bit_size) - 1)  # no sign, as in bpftrace
    return value


@dataclass(frozen=True, slots=True)
class Tuple(Type):
    """A tuple ``(a, b)`` or, with names, a record ``(x=a, y=b)``."""

    elements: tuple[Type, ...]
    names: tuple[str, ...] | None = None

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each element starts, in bytes."""
        at, offsets = 0, []
        for element in self.elements:
            at = round_up(at, element.align)
            offsets.append(at)
            at += element.size
        return tuple(offsets)

    @property
    def size(self) -> int:
        if not self.elements:
            return 0
        return round_up(self.offsets[-1] + self.elements[-1].size, self.align)

    @property
    def align(self) -> int:
        return max((e.align for e in self.elements), default=1)

    def decode(self, data: Buffer_, offset: int = 0) -> Any:
        pairs = zip(self.elements, self.offsets, strict=True)
        values = tuple(e.decode(data, offset + at) for e, at in pairs)
        return values if self.names is None else dict(zip(self.names, values, strict=True))

    def decode_all(self, parts: Iterable[Buffer_]) -> list[Any]:
        whole = list(parts)
        columns = [
            element.decode_all([part[at : at + element.size] for part in whole])
            for element, at in zip(self.elements, self.offsets, strict=True)
        ]
        rows = list(zip(*columns, strict=True)) if columns else [()] * len(whole)
        if self.names is None:
            return rows
        return [dict(zip(self.names, row, strict=True)) for row in rows]

    def __str__(self) -> str:
        if self.names is None:
            return f"({','.join(map(str, self.elements))})"
        pairs = zip(self.names, self.elements, strict=True)
        return f"({','.join(f'{n}={t}' for n, t in pairs)})"


class Opaque(Type):
    """A value that only user space can make sense of: a symbol, an address, a time, a stack.

    Derived types are defined beside the function that yields them. ``decode`` gives what is
    needed to resolve it; ``resolve`` turns that into what is printed.
    """

    __slots__ = ()

    @property
    def names_processes(self) -> bool:
        """Whether it is an address of a process, printed by name."""
        return False

    def resolve(self, value: Any, environment: Any) -> str | int:
        """What is printed for a decoded value.

        :param environment: what user space knows (symbols, clocks, users): `output.environment`.
        """
        raise NotImplementedError

    def resolve_key(self, value: Any, environment: Any) -> str | int:
        """What is printed of it in a map's key."""
        return self.resolve(value, environment)


@dataclass(frozen=True, slots=True)
class MapLayout:
    """The BPF map behind a map of the script whose values are aggregates: a per-CPU hash, or for
    most maps without keys a per-CPU array (``tree.Map.in_array``).

    :param key: type of the BPF map's key; a map without keys has the one key 0, of UINT32.
    :param value: type of one CPU's value.
    :param entries: how many keys at most; 0: the limit of the script's map.
    """

    key: Type
    value: Type
    entries: int = 0

    @property
    def key_size(self) -> int:
        """Bytes of the BPF map's key."""
        return self.key.size

    @property
    def set_at(self) -> int:
        """In a per-CPU array: where behind the value the u64 lies that says that it was set."""
        return round_up(self.value.size, 8)


class OpaqueWord(Opaque):
    """An opaque value of eight bytes that fits a register: an address, an id, a time."""

    __slots__ = ()

    @property
    def size(self) -> int:
        return 8

    @property
    def is_scalar(self) -> bool:
        return True

    def decode(self, data: Buffer_, offset: int = 0) -> int:
        return int.from_bytes(data[offset : offset + 8], "little")


class Aggregate(Type):
    """The value of a map that only a map function (``count()``, ``hist()``…) writes.

    ``decode`` gives one CPU's part; ``reduce`` puts the parts of all CPUs together.
    """

    __slots__ = ()

    def reduce(self, parts: list[Any]) -> Any:
        """One value out of one decoded part for each possible CPU."""
        raise NotImplementedError

    def merge(self, other: Aggregate) -> Aggregate | None:
        """The value type of a map that both are assigned to, or None if they don't go together."""
        return self if self == other else None

    @property
    def castable(self) -> Type | None:
        """The type that it turns into in an expression, or None if it cannot be read there."""
        return None

    def map_layout(self, key: Type | None) -> MapLayout:
        """The BPF map for it; an aggregate may extend the key (histograms: by the bucket).

        :param key: the key of the script's map, or None for a map without keys.
        """
        return MapLayout(key, self) if key is not None else MapLayout(UINT32, self, 1)

    def collect(
        self, entries: Iterable[tuple[Any, list[Any]]], keyed: bool
    ) -> list[tuple[Any, Any]]:
        """The script's (key, value) pairs (key None without keys) out of the BPF map's entries.

        :param entries: the BPF map's decoded key, and the decoded part of each possible CPU.
        :param keyed: whether the script's map has a key.
        """
        return [(key if keyed else None, self.reduce(parts)) for key, parts in entries]

    def emit_read(self, map_: str, key: str, gen: Any) -> str:
        """Emit reading it in an expression, over all CPUs: an i64 of type :attr:`castable`.

        :param map_: operand of the BPF map.
        :param key: pointer to the key, as :meth:`map_layout` has it.
        :param gen: the emitter (``codegen.emitter.Emitter``).
        """
        raise NotImplementedError(f"{self} cannot be read in an expression")


def round_up(value: int, multiple: int) -> int:
    """``value`` rounded up to the next multiple."""
    return (value + multiple - 1) // multiple * multiple


def is_integral(type_: Type) -> bool:
    """Whether arithmetic takes it as an integer: integers, booleans and enums."""
    return isinstance(type_, Integer | Boolean | Enum)
