# SPDX-License-Identifier: Apache-2.0
"""Which files a uprobe or USDT target names: paths, wildcards, programs, libraries, processes."""

from __future__ import annotations

import os
from struct import calcsize, unpack_from
from typing import TYPE_CHECKING

from kcap.errors import FileError
from kcap.probes.names import has_wildcard
from kcap.probes.problems import no_match, suggestion
from kcap.records import dataclass
from kcap.symbols.archive import open_binary, split
from kcap.symbols.nearest import nearest
from kcap.symbols.perfile import kept_per_file

if TYPE_CHECKING:
    from kcap.probes.base import Part
    from kcap.probes.system import System
    from kcap.symbols.elf import ElfFile

LD_CACHE = "/etc/ld.so.cache"
_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER = "<20sIIBxxxIIII"
_ENTRY = "<iIIIQ"
_LIB64 = {"x86_64": 0x0300, "aarch64": 0x0A00, "riscv64": 0x1000}
"""The architecture bits of an entry's flags (sysdeps/generic/ldconfig.h of glibc)."""
_DIRECTORIES = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")


@dataclass(frozen=True, slots=True)
class Binary:
    """A file to probe.

    :param name: how the probe's name has it.
    :param path: where this process finds it (``/proc/PID/root/…`` for another mount namespace);
        in an archive it may be (``file.apk!/lib/libfoo.so``, :mod:`kcap.symbols.archive`).
    """

    name: str
    path: str

    def elf(self) -> ElfFile:
        """The file, read once as long as it stays the same.

        :raises FileError: it can't be read, or is no ELF file.
        """
        return _elf(self.path)


@kept_per_file
def _elf(path: str) -> ElfFile:
    from kcap.symbols.elf import ElfFile

    return ElfFile(path)


def find_binaries(part: Part, provider: str, rest: str, system: System) -> list[Binary]:
    """The files that the first part of an attach point names.

    :param part: a path, a path with wildcards, the name of a program in PATH or of a library
        (``libc``, ``libssl.so.3``); ``*`` or nothing for the files that processes have mapped.
    :param rest: what follows the provider, for messages.
    :raises NoMatchError: there is no such file.
    """
    found = matching_binaries(part.text, system)
    if found or (has_wildcard(part.text) and system.pid is None):
        return found
    if not part.text or has_wildcard(part.text):
        label = "no process has such a file mapped"
        raise no_match(provider, rest, part.span, label=label)
    help_, edits = suggestion(part.span, _near(part.text))
    raise no_match(
        provider,
        rest,
        part.span,
        label=f"target file '{part.text}' does not exist",
        notes=() if "/" in part.text else ("looked for in PATH and among the linker's libraries",),
        help=help_,
        edits=edits,
    )


def matching_binaries(text: str, system: System) -> list[Binary]:
    """As :func:`find_binaries`, empty where there is no such file."""
    if text in ("", "*"):
        return [b for b in _mapped(system) if b.name]
    if has_wildcard(text):
        return _globbed(text, system)
    path = text if "/" in text else _by_name(text, system.arch)
    if path is None:
        return []
    return [found] if (found := _seen_by(path, system)) is not None else []


def _seen_by(path: str, system: System) -> Binary | None:
    """The file as the traced process sees it, else as this process does."""
    if system.pid is not None and path.startswith("/"):
        inside = f"/proc/{system.pid}/root{path}"
        if os.path.isfile(split(inside)[0]):
            return Binary(path, inside)
    return Binary(path, path) if os.path.isfile(split(path)[0]) else None


def _globbed(text: str, system: System) -> list[Binary]:
    """Files that match a path with wildcards, and those of the process that do."""
    from kcap.probes.names import Pattern

    pattern = Pattern(text)
    if system.pid is not None:
        mapped = [b for b in _mapped(system) if pattern.matches(b.name)]
        if mapped:
            return mapped
    from glob import glob

    return [Binary(path, path) for path in sorted(glob(text)) if is_elf(path)]


def is_elf(path: str) -> bool:
    """Whether a file, or one in an archive, is a regular ELF file that can be read."""
    try:
        if not os.path.isfile(split(path)[0]):
            return False
        with open_binary(path) as file:
            return file.read(4) == b"\x7fELF"
    except (OSError, FileError):
        return False


def _mapped(system: System) -> list[Binary]:
    """The files that the traced process (all processes without one) has mapped to execute."""
    from kcap.symbols.process import parse_maps

    pids = [str(system.pid)] if system.pid is not None else _pids()
    found: dict[str, Binary] = {}
    for pid in pids:
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
                mappings = parse_maps(file.read())
        except OSError:  # the process has ended, or is not ours to look at
            continue
        for mapping in mappings:
            if mapping.path not in found:
                name = next(filter(is_elf, mapping.names(pid)), None)
                if name is not None:
                    found[mapping.path] = Binary(mapping.path, name)
    return [found[path] for path in sorted(found)]


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdecimal()]


def _by_name(name: str, arch: str) -> str | None:
    """The path of a program in PATH, or of a library."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    for soname, path in libraries(arch):
        if soname == name or soname.startswith((f"{name}.so", f"lib{name}.so")):
            return path
    return None


def libraries(arch: str) -> tuple[tuple[str, str], ...]:
    """(soname, path) of the libraries that the dynamic linker knows."""
    return _libraries(LD_CACHE, arch)


@kept_per_file
def _libraries(ld_cache: str, arch: str) -> tuple[tuple[str, str], ...]:
    try:
        with open(ld_cache, "rb") as file:
            found = parse_ld_cache(file.read(), arch)
    except OSError:  # musl, or a small system without cache
        found = ()
    return found or tuple(_in_directories(arch))


def parse_ld_cache(data: bytes, arch: str) -> tuple[tuple[str, str], ...]:
    """(soname, path) of the entries of ``ld.so.cache`` (glibc's newer format) for 64 bits.

    Offsets of strings count from the header, which may stand behind one of the older format.
    """
    at = data.find(_MAGIC)
    if at < 0:
        return ()
    wanted = _LIB64.get(arch)
    _, count, *_ = unpack_from(_HEADER, data, at)
    first, size = at + 48, calcsize(_ENTRY)
    found = []
    for index in range(count):
        flags, key, value, _, _ = unpack_from(_ENTRY, data, first + index * size)
        if wanted is None or flags & 0xFF00 == wanted:
            found.append((_c_string(data, at + key), _c_string(data, at + value)))
    return tuple(found)


def _c_string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode("utf-8", "surrogateescape")


def _in_directories(arch: str) -> list[tuple[str, str]]:
    directories = [f"{path}/{arch}-linux-gnu" for path in ("/lib", "/usr/lib")]
    found = []
    for directory in (*directories, *_DIRECTORIES):
        try:
            names = sorted(os.listdir(directory))
        except OSError:  # not every system has each
            continue
        found += [(name, f"{directory}/{name}") for name in names if ".so" in name]
    return found


def _near(text: str) -> list[str]:
    """Files in the same directory, or libraries, whose names are like ``text``'s."""
    directory, slash, name = text.rpartition("/")
    if not slash:
        return nearest(name, {soname.partition(".so")[0] for soname, _ in libraries("")})
    try:
        names = os.listdir(directory or "/")
    except OSError:  # no such directory: nothing to propose
        return []
    return [f"{directory}/{near}" for near in nearest(name, names)]


def readable_elf(binary: Binary, part: Part, provider: str, rest: str) -> ElfFile:
    """The file's symbols.

    :raises NoMatchError: it is no ELF file that can be probed.
    """
    try:
        return binary.elf()
    except FileError as error:
        raise no_match(provider, rest, part.span, label=error.message) from error
