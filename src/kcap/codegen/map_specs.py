# SPDX-License-Identifier: Apache-2.0
"""What BPF map each map of a script is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.kernel import uapi
from kcap.kernel.spec import MapSpec
from kcap.sema.types import UINT64, Aggregate, Type, round_up

if TYPE_CHECKING:
    from kcap.sema import tree

_KINDS = {
    "": uapi.BPF_MAP_TYPE_HASH,
    "hash": uapi.BPF_MAP_TYPE_HASH,
    "lruhash": uapi.BPF_MAP_TYPE_LRU_HASH,
    "percpuhash": uapi.BPF_MAP_TYPE_PERCPU_HASH,
    "percpulruhash": uapi.BPF_MAP_TYPE_LRU_PERCPU_HASH,
}


def symbol(name: str) -> str:
    """The symbol of a script's map: ``@x`` is AT_x."""
    return f"AT_{name[1:]}"


def spec(map_: tree.Map) -> MapSpec:
    """The BPF map that holds a map of the script."""
    value = map_.value
    if isinstance(value, Aggregate):
        layout = value.map_layout(map_.key)
        entries = layout.entries or (1 if map_.key is None else map_.max_entries)
        kind, size = _KINDS[map_.kind or "percpuhash"], layout.value.size
        if map_.in_array:
            kind, size = uapi.BPF_MAP_TYPE_PERCPU_ARRAY, layout.set_at + 8
        bytes_ = layout.key.size if map_.key is None else key_size(layout.key)
        return MapSpec(symbol(map_.name), kind, bytes_, size, entries)
    bytes_ = key_size(key_type(map_))
    entries = 1 if map_.key is None else map_.max_entries
    return MapSpec(symbol(map_.name), _KINDS[map_.kind], bytes_, value.size, entries)


def key_type(map_: tree.Map) -> Type:
    """The type of the key in BPF; a map without keys is a hash of one u64 key, 0, so that it can
    be told whether it was ever set."""
    return map_.key if map_.key is not None else UINT64


def key_size(type_: Type) -> int:
    """Bytes of a key in BPF: whole words for a scalar, extended by its sign. The kernel compares
    keys a word at a time, and what is less than a word byte by byte (memcmp() in lib/string.c)."""
    return round_up(type_.size, 8) if type_.is_scalar else type_.size
