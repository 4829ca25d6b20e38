# SPDX-License-Identifier: Apache-2.0
"""tracefs: which functions can be traced, which events there are, and what events carry."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from kcap.errors import FileError
from kcap.kernel.errors import SyscallError
from kcap.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
#: Those in the kernel, those in programs and libraries.
PROBE_EVENTS = ("kprobe_events", "uprobe_events")
BLACKLIST = "/sys/kernel/debug/kprobes/blacklist"

# Bytes of the C types of array elements in format files, where the length is an expression.
_SIZES = {
    "char": 1,
    "signed char": 1,
    "unsigned char": 1,
    "bool": 1,
    "u8": 1,
    "__u8": 1,
    "uint8_t": 1,
    "u16": 2,
    "__u16": 2,
    "__be16": 2,
    "short": 2,
    "unsigned short": 2,
    "int": 4,
    "unsigned int": 4,
    "u32": 4,
    "__u32": 4,
    "__be32": 4,
    "long": 8,
    "unsigned long": 8,
    "u64": 8,
    "__u64": 8,
}


@dataclass(slots=True, frozen=True)
class Field:
    """A field of an event.

    :param name: its name.
    :param type: the C type; of an element for arrays, ``__data_loc`` left out.
    :param offset: bytes from the start of the record.
    :param size: bytes in the record (4 for a data location).
    :param signed: whether numbers are signed.
    :param location: ``""``; ``"data"``: a u32 with the offset from the record's start in its low
        and the length in its high 16 bits (``__data_loc``); ``"rel"``: the same, from the field's
        end (``__rel_loc``, 5.17).
    :param array_length: elements of an array in place; None if it is none or its element's size
        is not known.
    :param is_array: whether it is an array, in place or elsewhere.
    """

    name: str
    type: str
    offset: int
    size: int
    signed: bool
    location: str = ""
    array_length: int | None = None
    is_array: bool = False


@dataclass(slots=True, frozen=True)
class EventFormat:
    """What an event carries.

    :param name: the event.
    :param id: what perf_event_open takes.
    :param fields: in the order of the record, the ``common_`` ones first.
    """

    name: str
    id: int
    fields: tuple[Field, ...]

    @property
    def arguments(self) -> tuple[Field, ...]:
        """The fields that are the event's own."""
        return tuple(f for f in self.fields if not f.name.startswith("common_"))

    def field(self, name: str) -> Field | None:
        """A field by name, or None."""
        return next((f for f in self.fields if f.name == name), None)


@dataclass(slots=True, frozen=True)
class ProbeEvent:
    """An event that somebody has defined: a kprobe or uprobe that has a name.

    :param user: in a program or library instead of the kernel.
    :param is_return: at a function's return.
    """

    user: bool
    is_return: bool


def parse_format(text: str) -> EventFormat:
    """Read a ``format`` file.

    :raises ValueError: the text is none.
    """
    name, number = "", -1
    fields = []
    for line in text.splitlines():
        if line.startswith("name:"):
            name = line[5:].strip()
        elif line.startswith("ID:"):
            number = int(line[3:])
        elif line.startswith("\tfield:"):
            fields.append(_field(line))
    if not name or number < 0:
        raise ValueError("no name or ID in the event's format")
    return EventFormat(name, number, tuple(fields))


def _field(line: str) -> Field:
    # "\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:1;"; the declaration may hold ':' or ';'
    # only in the former's place.
    declaration, *rest = line.strip().removeprefix("field:").split(";\t")
    facts = dict(part.rstrip(";").split(":", 1) for part in rest)
    size = int(facts["size"])
    location = ""
    for prefix, kind in (("__data_loc ", "data"), ("__rel_loc ", "rel")):
        if declaration.startswith(prefix):
            declaration, location = declaration.removeprefix(prefix), kind
    if location:  # "char[] name"
        element, _, name = declaration.rpartition(" ")
        c_type = element.replace("[]", "").strip()
        length, is_array = None, True
    else:
        head, bracket, inside = declaration.partition("[")
        c_type, name = _split(head)
        is_array = bool(bracket)
        length = _length(inside.rstrip("]"), c_type, size) if is_array else None
    signed = facts.get("signed", "0") == "1"
    return Field(name, c_type, int(facts["offset"]), size, signed, location, length, is_array)


def _split(declaration: str) -> tuple[str, str]:
    """("const char *", "filename") of ``const char * filename``."""
    text = declaration.strip()
    start = len(text)
    while start and (text[start - 1].isalnum() or text[start - 1] == "_"):
        start -= 1
    return text[:start].strip(), text[start:]


def _length(inside: str, c_type: str, size: int) -> int | None:
    if inside.isdigit():
        return int(inside)
    element = 8 if c_type.endswith("*") else _SIZES.get(c_type)
    return size // element if element else None


class Tracefs:
    """tracefs at a directory.

    :param path: where it is mounted.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def find(cls, places: tuple[str, ...] = PLACES) -> Tracefs:
        """The tracefs that is mounted.

        :raises SyscallError: none is, or it may not be read.
        """
        denied = False
        for place in places:
            try:
                os.stat(f"{place}/events")
                return cls(place)
            except PermissionError:
                denied = True
            except OSError:  # not mounted here
                continue
        if denied:
            raise SyscallError("tracefs may not be read", 13, hint="run as root (sudo)")
        raise SyscallError(
            "tracefs is not mounted",
            2,
            hint=f"mount it: mount -t tracefs tracefs {PLACES[0]}",
        )

    def traceable_functions(self) -> Iterator[tuple[str, str]]:
        """(name, module) of the functions that fentry and kprobe_multi can attach to; the module is
        empty for the kernel's own. In the order of addresses; names may repeat.

        :raises FileError: the kernel has no function tracer.
        """
        for line in self._read("available_filter_functions").splitlines():
            # "name", "name [module]"
            name, _, module = line.partition(" ")
            yield name, module.strip("[]")

    @cached_property
    def traceable(self) -> frozenset[str]:
        """Names of all traceable functions, the kernel's and modules'.

        :raises FileError: the kernel has no function tracer.
        """
        text = self._read("available_filter_functions")
        if " " not in text:
            return frozenset(text.splitlines())
        return frozenset(line.partition(" ")[0] for line in text.splitlines())

    def events(self) -> list[tuple[str, str]]:
        """(category, name) of all events, sorted.

        :raises FileError: the list can't be read.
        """
        lines = self._read("available_events").splitlines()
        pairs = (line.partition(":") for line in lines)
        return sorted((category, name) for category, _, name in pairs)

    def probe_events(self) -> dict[tuple[str, str], ProbeEvent]:
        """Which of the events (category, name) are probes that ``kprobe_events`` and
        ``uprobe_events`` list."""
        found = {}
        for user, file in enumerate(PROBE_EVENTS):
            with suppress(FileError):  # a kernel that is built without
                for line in self._read(file).splitlines():
                    # "r16:kprobes/myprobe vfs_read ret=$retval"
                    kind, _, name = line.partition(" ")[0].partition(":")
                    category, _, event = name.partition("/")
                    found[category, event] = ProbeEvent(bool(user), kind.startswith("r"))
        return found

    def event_id(self, category: str, name: str) -> int:
        """The number that perf_event_open takes.

        :raises FileError: no such event.
        """
        return int(self._event_file(category, name, "id"))

    def event_format(self, category: str, name: str) -> EventFormat:
        """What an event carries.

        :raises FileError: no such event.
        """
        return parse_format(self._event_file(category, name, "format"))

    def _event_file(self, category: str, name: str, file: str) -> str:
        if "/" in category or "/" in name:
            raise FileError(f"no tracepoint {category}:{name}", self.path)
        path = f"events/{category}/{name}/{file}"
        if not os.path.exists(f"{self.path}/{path}"):
            hint = "its module may not be loaded; list them: kcap -l 'tracepoint:*'"
            where = f"{self.path}/{path}"
            raise FileError(f"no tracepoint {category}:{name}", where, hint=hint)
        return self._read(path)

    def _read(self, name: str) -> str:
        path = f"{self.path}/{name}"
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError as error:
            hint = None
            if name == "available_filter_functions":
                hint = "the kernel needs CONFIG_DYNAMIC_FTRACE=y"
            raise FileError(f"can't read {path}: {error.strerror}", path, hint=hint) from error


def kprobe_blacklist(path: str = BLACKLIST) -> frozenset[str]:
    """Functions that refuse kprobes; empty if debugfs doesn't say."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            # "0xffffffff81000000-0xffffffff81000010\tname"
            return frozenset(line.split()[1] for line in file if len(line.split()) > 1)
    except OSError:  # debugfs not mounted, or not for us: the kernel answers when attaching
        return frozenset()
