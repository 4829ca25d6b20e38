# SPDX-License-Identifier: Apache-2.0
"""Reading BTF lazily.

A kernel's BTF holds more than 100,000 types, of which a script needs a handful. Opening one walks
the records once to note where each begins, and does nothing else; a type is parsed when it is
asked for. Names are not indexed either: the string's offset is found by searching the string
section, and the records that use it by searching the type section for that offset, both at the
speed of memory. See Documentation/bpf/btf.rst for the format.
"""

from __future__ import annotations

import builtins
from array import array
from bisect import bisect_right
from mmap import MAP_PRIVATE, PROT_READ, mmap
from struct import Struct as Packing
from typing import TYPE_CHECKING, TypeVar

from kcap.btf import index, parse
from kcap.btf import types as t
from kcap.btf.errors import BtfError, BtfNotFoundError
from kcap.btf.index import Index

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    Buffer = bytes | memoryview | mmap

SYSFS = "/sys/kernel/btf"

_HEADER = Packing(parse.HEADER)
_U32 = Packing("<I")

T = TypeVar("T", bound=t.Type)

#: Types that are looked up by searching the bytes (1 ms each) before an index of names is made.
FEW = 40


class Btf:
    """The types of a kernel, of a kernel module, or of a BPF object.

    :param data: the whole blob, header first.
    :param base: for split BTF (a module's) the BTF it continues; its ids and strings come first.
    :param name: what it is called in messages: ``vmlinux``, a module's name.
    :param identity: a name that no other BTF has, to keep the records' places under; empty: they
        are not kept.
    :raises BtfError: the blob is not BTF, is cut short, or has unknown kinds.
    """

    first_id: int
    """The id of this BTF's first own type (1 unless it is split)."""
    end_id: int
    """The id behind the last."""
    end_string: int

    def __init__(
        self, data: Buffer, base: Btf | None = None, name: str = "", identity: str = ""
    ) -> None:
        if len(data) < parse.HEADER_SIZE:
            raise BtfError(f"{name or 'blob'}: {len(data)} bytes are too few for BTF")
        magic, version, _, header, type_at, type_len, str_at, str_len = _HEADER.unpack_from(data)
        if magic != parse.MAGIC or version != 1:
            raise BtfError(f"{name or 'blob'}: no BTF (magic {magic:#x}, version {version})")
        type_at += header
        str_at += header
        if type_at + type_len > len(data) or str_at + str_len > len(data) or type_len % 4:
            raise BtfError(f"{name or 'blob'}: BTF is cut short")
        self.name = name
        self.base = base
        view = memoryview(data)
        # bytes rather than memoryviews: these are what has find(). Two copies of some MB, ~1 ms.
        self._records = bytes(view[type_at : type_at + type_len])
        self._strings = bytes(view[str_at : str_at + str_len])
        self.first_id = base.end_id if base is not None else 1
        self._first_string = base.end_string if base is not None else 0
        self.end_string = self._first_string + len(self._strings)
        self._words: Sequence[int] = memoryview(self._records).cast("I")
        found = index.load(identity, len(self._words))
        if found is None:
            found = self._walk()
            index.store(identity, len(self._words), found)
        self._starts = found.starts
        self._enum_signs = found.enum_signs
        self.end_id = self.first_id + len(found.starts)
        self._parsed: dict[int, t.Type] = {}
        self._searches = 0
        self._indexes: dict[int, dict[str, list[int]]] = {}
        self._pointers: dict[str, tuple[frozenset[int], frozenset[int]]] = {}

    @classmethod
    def kernel(cls) -> Btf:
        """The running kernel's own BTF.

        :raises BtfNotFoundError: the kernel has none (CONFIG_DEBUG_INFO_BTF unset).
        """
        return cls(_read_sysfs("vmlinux"), None, "vmlinux", index.build_id())

    @classmethod
    def module(cls, name: str, base: Btf) -> Btf:
        """The BTF of a loaded kernel module (5.11 and later).

        :param name: the module, such as ``nf_tables``.
        :param base: the kernel's BTF.
        :raises BtfNotFoundError: the module is not loaded or has no BTF.
        """
        return cls(_read_sysfs(name), base, name)

    @classmethod
    def from_bytes(cls, data: bytes, base: Btf | None = None, name: str = "") -> Btf:
        """BTF from memory; arguments as for the class."""
        return cls(data, base, name)

    def _walk(self) -> Index:
        """Note where every record begins."""
        # an array is faster to read than a memoryview, and worth a copy here
        words, lengths = array("I", self._records), parse.RecordLengths()
        starts = array("I")
        note = starts.append
        pos, end = 0, len(words)
        try:
            while pos < end:
                note(pos)
                pos += lengths[words[pos + 1]]
        except IndexError:
            raise BtfError(f"{self.name or 'blob'}: BTF's last type is cut short") from None
        if pos != end:
            raise BtfError(f"{self.name or 'blob'}: BTF's last type is cut short")
        # pahole writes the sign of an enum since 1.24, which also brought ENUM64. Before, the flag
        # was never set and values were signed.
        enum_signs = any(
            parse.kind_of(info) == t.Enum64.KIND
            or (info >> 31 and parse.kind_of(info) == t.Enum.KIND)
            for info in lengths
        )
        return Index(starts, enum_signs)

    # Strings and records

    def string(self, offset: int) -> str:
        """The string at an offset of the string section.

        :raises BtfError: the offset is outside.
        """
        local = offset - self._first_string
        if local < 0:
            assert self.base is not None
            return self.base.string(offset)
        end = self._strings.find(b"\0", local)
        if end < 0:
            raise BtfError(f"{self.name or 'blob'}: no string at offset {offset}")
        return self._strings[local:end].decode("utf-8", "replace")

    def type(self, type_id: int) -> t.Type:
        """The type with an id; 0 is void.

        :raises BtfError: no such id.
        """
        found = self._parsed.get(type_id)
        if found is not None:
            return found
        if type_id == 0:
            found = t.Void(0, "void")
        elif type_id < self.first_id:
            assert self.base is not None
            return self.base.type(type_id)
        elif type_id >= self.end_id:
            raise BtfError(f"{self.name or 'blob'}: no type with id {type_id}")
        else:
            found = self._parse(type_id)
        self._parsed[type_id] = found
        return found

    def _parse(self, type_id: int) -> t.Type:
        pos = self._starts[type_id - self.first_id]
        found = parse.parse(self._words, pos, type_id, self.string)
        if self._enum_signs and found.__class__ is t.Enum and not found.signed:
            found.values = tuple((n, v & 0xFFFFFFFF) for n, v in found.values)
        return found

    def kind(self, type_id: int) -> int:
        """The kind number of a type, without parsing it (``Struct.KIND`` and so on)."""
        if type_id < self.first_id:
            return 0 if type_id == 0 or self.base is None else self.base.kind(type_id)
        return parse.kind_of(self._words[self._starts[type_id - self.first_id] + 1])

    def head(self, type_id: int) -> tuple[int, int, int]:
        """(kind number, offset of the name, id of the type or size that it tells) of a type,
        without parsing it."""
        if type_id < self.first_id:
            return (0, 0, 0) if type_id == 0 or self.base is None else self.base.head(type_id)
        words, at = self._words, self._starts[type_id - self.first_id]
        return parse.kind_of(words[at + 1]), words[at], words[at + 2]

    # Finding by name

    def _string_offset(self, name: str) -> int:
        """Offset of a string, in this or the base's section; -1 if there is none."""
        wanted = name.encode() + b"\0"
        if self.base is not None:
            found = self.base._string_offset(name)
            if found >= 0:
                return found
        found = self._strings.find(b"\0" + wanted)
        if found >= 0:
            return self._first_string + found + 1
        # A split BTF's section does not begin with the empty string.
        return self._first_string if self._strings.startswith(wanted) else -1

    def _uses(self, offset: int) -> Iterator[tuple[int, int]]:
        """(type id, index of the word in its record) of every word that equals ``offset``."""
        wanted, records, starts = _U32.pack(offset), self._records, self._starts
        at = records.find(wanted)
        while at >= 0:
            if at & 3:
                at = records.find(wanted, at + 1)
                continue
            index = bisect_right(starts, at >> 2) - 1
            yield self.first_id + index, (at >> 2) - starts[index]
            at = records.find(wanted, at + 4)

    def find_all(self, name: str, kind: builtins.type[T]) -> Iterator[T]:
        """Types with a name and of a kind, in the order of their ids, this BTF's own only.

        :param name: without ``struct`` and the like; nothing has the name ''.
        :param kind: ``Struct``, ``Union``, ``Func``, ... A base class (``Composite``, ``Type``)
            takes all its kinds.
        """
        if not name:  # anonymous types are not found by that
            return
        self._searches += 1
        if self._searches > FEW and kind.KIND > 0 and not kind.__subclasses__():
            for type_id in self._ids_of(kind.KIND).get(name, ()):
                found = self.type(type_id)
                assert isinstance(found, kind)
                yield found
            return
        offset = self._string_offset(name)
        if offset <= 0:
            return
        for type_id, word in self._uses(offset):
            if word == 0:
                found = self.type(type_id)
                if isinstance(found, kind):
                    yield found

    def _ids_of(self, kind: int) -> dict[str, list[int]]:
        """The ids of all types of a kind, by name."""
        if kind not in self._indexes:
            found: dict[str, list[int]] = {}
            for type_id, name in self._named(kind):
                found.setdefault(name, []).append(type_id)
            self._indexes[kind] = found
        return self._indexes[kind]

    def find(self, name: str, kind: builtins.type[T]) -> T | None:
        """The first type with a name and of a kind, this BTF's own before the base's, or None."""
        for found in self.find_all(name, kind):
            return found
        return self.base.find(name, kind) if self.base is not None else None

    def get(self, name: str, kind: builtins.type[T]) -> T:
        """As ``find``, for what has to be there.

        :raises BtfError: there is none.
        """
        found = self.find(name, kind)
        if found is None:
            raise BtfError(f"{self.name or 'BTF'} has no {kind.__name__.lower()} {name}")
        return found

    def enum_value(self, constant: str) -> tuple[t.Enum, int] | None:
        """The enumeration that has a constant, and the constant's value; None if none has.

        :param constant: such as ``SKB_DROP_REASON_NO_SOCKET``.
        """
        offset = self._string_offset(constant)
        if offset > 0:
            for type_id, word in self._uses(offset):
                if word >= 3 and self.kind(type_id) in (t.Enum.KIND, t.Enum64.KIND):
                    enum = self.type(type_id)
                    assert isinstance(enum, t.Enum)
                    for name, value in enum.values:
                        if name == constant:
                            return enum, value
        return self.base.enum_value(constant) if self.base is not None else None

    # Functions

    def functions(self) -> Iterator[tuple[int, str]]:
        """(id, name) of every function of this BTF (not the base's), in the order of ids."""
        return self.named(t.Func)

    def named(self, kind: builtins.type[t.Type]) -> Iterator[tuple[int, str]]:
        """(id, name) of every own type of one kind, in the order of ids."""
        return self._named(kind.KIND)

    def _named(self, kind: int) -> Iterator[tuple[int, str]]:
        words, first = array("I", self._records), self._first_string
        kinds = self._records[7::4]  # the uppermost byte of the word behind each
        found = [
            (type_id, words[pos])
            for type_id, pos in enumerate(self._starts, self.first_id)
            if kinds[pos] & 0x1F == kind
        ]
        if not self._strings.isascii():
            yield from ((type_id, self.string(offset)) for type_id, offset in found)
            return
        strings = self._strings.decode("ascii")
        find = strings.find
        for type_id, offset in found:
            at = offset - first
            if at >= 0:  # the common case without a call: there are 60,000 functions
                yield type_id, strings[at : find("\0", at)]
            else:
                yield type_id, self.string(offset)

    def prototypes_taking(self, struct: str) -> dict[int, int]:
        """Prototypes with a parameter that points to a struct (const, typedefs looked through).

        :return: the number of the first such parameter, by the prototype's id; the base's, too.
        """
        found = self.base.prototypes_taking(struct) if self.base is not None else {}
        for pointer in self._pointers_to(struct)[1]:
            for type_id, word in self._uses(pointer):
                # behind the three words of the record: name and type of each parameter
                if word >= 4 and not word % 2 and self.kind(type_id) == t.FuncProto.KIND:
                    index = (word - 4) // 2
                    found[type_id] = min(index, found.get(type_id, index))
        return found

    def functions_with(self, prototypes: Container[int]) -> Iterator[tuple[str, int]]:
        """(name, prototype's id) of every own function that has one of some prototypes."""
        words = array("I", self._records)
        for pos in self._starts:
            if words[pos + 1] >> 24 & 0x1F == t.Func.KIND and words[pos + 2] in prototypes:
                yield self.string(words[pos]), words[pos + 2]

    def _pointers_to(self, struct: str) -> tuple[frozenset[int], frozenset[int]]:
        """Ids of a struct, with const and the like, and ids of pointers to it; the base's, too."""
        found = self._pointers.get(struct)
        if found is None:
            of_base = self.base._pointers_to(struct) if self.base is not None else ((), ())
            targets = {*of_base[0], *(each.id for each in self.find_all(struct, t.Struct))}
            targets = self._through_modifiers(targets)
            pointers = self._referring(targets, (t.Ptr.KIND,))
            pointers = self._through_modifiers({*of_base[1], *pointers})
            found = self._pointers[struct] = frozenset(targets), frozenset(pointers)
        return found

    def _through_modifiers(self, ids: set[int]) -> set[int]:
        """Types, and what is made of them with const, volatile, typedef."""
        new = found = ids
        while new:
            new = self._referring(new, (t.Const.KIND, t.Volatile.KIND, t.Typedef.KIND)) - found
            found = found | new
        return found

    def _referring(self, ids: set[int], kinds: Container[int]) -> set[int]:
        """Own types of some kinds that refer to one of some types."""
        return {
            type_id
            for wanted in ids
            for type_id, word in self._uses(wanted)
            if word == 2 and self.kind(type_id) in kinds
        }

    def names(self, kind: builtins.type[t.Type]) -> Iterator[str]:
        """The names of all types of one kind, unnamed ones left out, this BTF's own."""
        return (name for _, name in self.named(kind) if name)

    def prototype_id(self, function: int) -> int:
        """The id of a function's prototype.

        :param function: its id, one of this BTF's own.
        """
        return self._words[self._starts[function - self.first_id] + 2]

    def prototype_words(self, prototype: int) -> tuple[Sequence[int], int]:
        """A prototype as it stands in BTF, for those who look at very many.

        :param prototype: its id, also one of the base's.
        :return: (string offset of the name and type id of each parameter in turn, an ellipsis left
            out; type id of the returned value, 0 for void).
        :raises BtfError: it is no prototype.
        """
        owner = self
        while prototype < owner.first_id and owner.base is not None:
            owner = owner.base
        if owner.kind(prototype) != t.FuncProto.KIND:
            raise BtfError(f"{self.name or 'blob'}: type {prototype} is no prototype")
        words, at = owner._words, owner._starts[prototype - owner.first_id]
        end = at + 3 + 2 * (words[at + 1] & parse.VLEN_MASK)
        if end > at + 3 and not words[end - 1]:  # an ellipsis
            end -= 2
        return words[at + 3 : end], words[at + 2]

    def prototype(self, function: t.Func) -> t.FuncProto:
        """The prototype of a function.

        :raises BtfError: the function's type is not a prototype.
        """
        proto = self.type(function.type_id)
        if not isinstance(proto, t.FuncProto):
            raise BtfError(f"{function.name}: its type {function.type_id} is no prototype")
        return proto


def _read_sysfs(name: str) -> Buffer:
    if "/" in name or name.startswith("."):
        raise BtfNotFoundError(f"{name!r} is not the name of a kernel module")
    path = f"{SYSFS}/{name}"
    try:
        with open(path, "rb", buffering=0) as file:
            try:
                # 6.16 and later; saves a copy through sysfs, page by page
                return mmap(file.fileno(), 0, MAP_PRIVATE, PROT_READ)
            except (OSError, ValueError):  # not mappable: read it
                return file.read()
    except FileNotFoundError as error:
        if name == "vmlinux":
            raise BtfNotFoundError(
                f"the kernel has no BTF: {path} does not exist",
                hint="use a kernel built with CONFIG_DEBUG_INFO_BTF=y (all current distributions "
                "have it)",
            ) from error
        raise BtfNotFoundError(
            f"no BTF for module {name}: {path} does not exist",
            hint=f"load the module (modprobe {name}); module BTF needs Linux 5.11 and "
            "CONFIG_DEBUG_INFO_BTF_MODULES=y",
        ) from error
    except OSError as error:
        raise BtfError(f"{path}: {error}") from error
