# SPDX-License-Identifier: Apache-2.0
"""BPF maps: creating, reading, writing, clearing.

Keys and values are bytes as they are in the map. A per-CPU map's value is the values of all
possible CPUs one behind the other, each padded to 8 bytes (kernel/bpf/syscall.c:
bpf_map_value_size).
"""

from __future__ import annotations

import errno
import os
import sys
from struct import pack, pack_into, unpack_from
from typing import TYPE_CHECKING

from kcap.closing import Closing
from kcap.kernel import cpus, permissions, uapi
from kcap.kernel.errors import syscall_error
from kcap.kernel.names import kernel_name
from kcap.kernel.syscall import ENOTSUPP, Buffer, bpf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kcap.kernel.spec import MapSpec

_ARRAYS = (uapi.BPF_MAP_TYPE_ARRAY, uapi.BPF_MAP_TYPE_PERCPU_ARRAY)
_BATCH_BYTES = 1 << 18
_NO_BATCH = (errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP)

_possible: list[int] = []


def possible_cpus() -> int:
    """How many values a per-CPU map has for a key."""
    if not _possible:
        _possible.extend(cpus.possible())
    return len(_possible)


class Map(Closing):
    """A map; it closes with its context, and vanishes when nothing holds it any more.

    :param fd: the map's file descriptor, which this object then owns.
    :param spec: what it was created from.
    """

    def __init__(self, fd: int, spec: MapSpec) -> None:
        self._fd = fd
        self.spec = spec
        self.per_cpu = spec.type in uapi.PER_CPU_MAP_TYPES
        self.stride = spec.value_size + 7 & ~7 if self.per_cpu else spec.value_size
        self.raw_size = self.stride * possible_cpus() if self.per_cpu else spec.value_size
        # One attribute buffer for all element commands: struct { map_fd, key, value, flags }.
        self._key = Buffer(spec.key_size)
        self._value = Buffer(self.raw_size)
        self._attr = Buffer(pack("<IxxxxQQQ", fd, self._key.address, self._value.address, 0))
        self._delete_attr = Buffer(pack("<IxxxxQ", fd, self._key.address))
        self._batches = True

    @classmethod
    def create(cls, spec: MapSpec) -> Map:
        """Create a map.

        :raises SyscallError: the kernel refused; PermissionDeniedError if for want of rights.
        """
        entries = spec.max_entries
        if not entries and spec.type == uapi.BPF_MAP_TYPE_PERF_EVENT_ARRAY:
            entries = max(cpus.possible()) + 1
        attr = pack(
            "<IIIIIII16s",
            spec.type,
            spec.key_size,
            spec.value_size,
            entries,
            spec.flags,
            0,
            0,
            kernel_name(spec.name),
        )
        try:
            fd = _create(attr)
        except OSError as error:
            hint = None
            if error.errno == errno.E2BIG:
                hint = "ask for fewer entries"
            elif error.errno == errno.ENOMEM:
                hint = "ask for fewer entries or smaller keys and values"
            raise syscall_error(f'create map "{spec.name}"', error, hint=hint) from error
        created = cls(fd, spec)
        try:
            created._fill()
        except BaseException:
            created.close()
            raise
        return created

    def _fill(self) -> None:
        if self.spec.contents is not None:
            size = self.spec.value_size
            for index in range(len(self.spec.contents) // size):
                value = self.spec.contents[index * size : (index + 1) * size]
                self.update(index.to_bytes(self.spec.key_size, sys.byteorder), value)
        if self.spec.freeze:
            try:
                bpf(uapi.BPF_MAP_FREEZE, Buffer(pack("<I", self._fd)))
            except OSError as error:
                raise syscall_error(f'freeze map "{self.spec.name}"', error) from error

    def fileno(self) -> int:
        """The file descriptor."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor; doing it twice is harmless."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _command(self, command: int, what: str, key: bytes, absent: int = errno.ENOENT) -> bool:
        """An element command; False if it fails with ``absent``."""
        self._check(key, self.spec.key_size, "key")
        self._key.set(key)
        try:
            deletes = command == uapi.BPF_MAP_DELETE_ELEM  # refuses a value's address
            bpf(command, self._delete_attr if deletes else self._attr)
        except OSError as error:
            if error.errno == absent:
                return False
            raise syscall_error(f'{what} map "{self.spec.name}"', error) from error
        return True

    def _check(self, data: bytes, size: int, what: str) -> None:
        if len(data) != size:
            name = self.spec.name
            raise ValueError(f"map {name}: {what} of {len(data)} bytes where it has {size}")

    def lookup(self, key: bytes) -> bytes | None:
        """The value of a key, ``raw_size`` bytes (all CPUs' values), or None if there is none.

        :raises SyscallError: any other failure.
        :raises ValueError: the key's size is wrong.
        """
        if not self._command(uapi.BPF_MAP_LOOKUP_ELEM, "look up in", key):
            return None
        return self._value.tobytes()

    def lookup_per_cpu(self, key: bytes) -> list[bytes] | None:
        """Each CPU's value of a key of a per-CPU map, or None if there is none."""
        value = self.lookup(key)
        return None if value is None else self.split(value)

    def split(self, value: bytes) -> list[bytes]:
        """The single CPUs' values in a value of a per-CPU map."""
        size = self.spec.value_size
        return [value[at : at + size] for at in range(0, len(value), self.stride)]

    def update(self, key: bytes, value: bytes, flags: int = uapi.BPF_ANY) -> None:
        """Set a key's value.

        :param value: ``value_size`` bytes, or ``raw_size`` for a per-CPU map; there a value of
            ``value_size`` bytes is given to every CPU.
        :param flags: BPF_ANY, BPF_NOEXIST, BPF_EXIST.
        :raises SyscallError: the map is full, frozen, ...
        """
        if self.per_cpu and len(value) == self.spec.value_size:
            value = value.ljust(self.stride, b"\0") * possible_cpus()
        self._check(value, self.raw_size, "value")
        self._value.set(value)
        pack_into("<Q", self._attr.view(), 24, flags)
        try:
            self._command(uapi.BPF_MAP_UPDATE_ELEM, "update", key, absent=-1)
        finally:
            pack_into("<Q", self._attr.view(), 24, 0)

    def delete(self, key: bytes) -> bool:
        """Delete a key; False if it was not there."""
        return self._command(uapi.BPF_MAP_DELETE_ELEM, "delete from", key)

    def keys(self) -> list[bytes]:
        """All keys.

        Keys that come and go meanwhile may be missing; none appears twice.
        """
        seen: dict[bytes, None] = {}
        self._key.set(bytes(self.spec.key_size))
        attr = Buffer(pack("<IxxxxQQ", self._fd, 0, self._value.address))
        following = Buffer(self.spec.key_size)
        pack_into("<Q", attr.view(), 16, following.address)
        # A key deleted meanwhile makes the kernel start over: bound the number of steps.
        for _ in range(2 * self.spec.max_entries + 1):
            try:
                bpf(uapi.BPF_MAP_GET_NEXT_KEY, attr)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    break
                raise syscall_error(f'list keys of map "{self.spec.name}"', error) from error
            seen[following.tobytes()] = None
            self._key.set(following.tobytes())
            pack_into("<Q", attr.view(), 8, self._key.address)
        return list(seen)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys with their values (``raw_size`` bytes each), read in batches where possible."""
        if self._batches:
            items = self._batch_items()
            if items is not None:
                yield from items
                return
            self._batches = False
        for key in self.keys():
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def _batch_items(self) -> list[tuple[bytes, bytes]] | None:
        """All items by BPF_MAP_LOOKUP_BATCH (5.6 and later), or None if the map can't.

        Per-CPU arrays can since 5.13; rings, stack traces and others can't.
        """
        size, raw = self.spec.key_size, self.raw_size
        count = max(1, min(self.spec.max_entries, _BATCH_BYTES // max(1, size + raw)))
        # A hash map's batch ends at a bucket: ENOSPC asks for more room than one bucket has.
        for room in (count, self.spec.max_entries):
            try:
                return self._read_batches(room)
            except OSError as error:
                if error.errno in _NO_BATCH:
                    return None
                if error.errno != errno.ENOSPC or room == self.spec.max_entries:
                    what = f'read map "{self.spec.name}"'
                    raise syscall_error(what, error) from error
        return None

    def _read_batches(self, count: int) -> list[tuple[bytes, bytes]]:
        size, raw = self.spec.key_size, self.raw_size
        keys, values = Buffer(size * count), Buffer(raw * count)
        position = Buffer(max(size, 4))
        attr = Buffer(
            pack(
                "<QQQQIIQQ",
                0,
                position.address,
                keys.address,
                values.address,
                count,
                self._fd,
                0,
                0,
            )
        )
        items: list[tuple[bytes, bytes]] = []
        done = False
        while not done:
            pack_into("<I", attr.view(), 32, count)
            try:
                bpf(uapi.BPF_MAP_LOOKUP_BATCH, attr)
            except OSError as error:
                if error.errno != errno.ENOENT:  # ENOENT: this is the last batch
                    raise
                done = True
            (found,) = unpack_from("<I", attr.view(), 32)
            some_keys, some_values = keys.tobytes(size * found), values.tobytes(raw * found)
            items += zip(
                [some_keys[at : at + size] for at in range(0, size * found, size)],
                [some_values[at : at + raw] for at in range(0, raw * found, raw)],
                strict=True,
            )
            pack_into("<Q", attr.view(), 0, position.address)
        return items

    def clear(self) -> None:
        """Delete all keys; set all values of an array to zero."""
        if self.spec.type in _ARRAYS:
            zero = bytes(self.raw_size)
            for index in range(self.spec.max_entries):
                self.update(pack("<I", index), zero)
            return
        for key in self.keys():
            self.delete(key)


def _create(attr: bytes) -> int:
    try:
        return bpf(uapi.BPF_MAP_CREATE, Buffer(attr))
    except OSError as error:
        # Before 5.11 EPERM may mean that the memory is more than RLIMIT_MEMLOCK allows.
        if error.errno != errno.EPERM or not permissions.raise_memlock_limit():
            raise
    return bpf(uapi.BPF_MAP_CREATE, Buffer(attr))
