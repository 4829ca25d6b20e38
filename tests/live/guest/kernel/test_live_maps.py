# SPDX-License-Identifier: Apache-2.0
"""Maps of a real kernel."""

from __future__ import annotations

from struct import pack

import pytest

from kcap.kernel import uapi
from kcap.kernel.errors import SyscallError
from kcap.kernel.maps import Map, possible_cpus
from kcap.kernel.spec import MapSpec


def hash_map(entries: int = 100, kind: int = uapi.BPF_MAP_TYPE_HASH) -> Map:
    return Map.create(MapSpec("a hash map: long name", kind, 4, 8, entries))


def test_what_is_written_is_read() -> None:
    with hash_map() as m:
        m.update(b"key1", b"value  1")
        m.update(b"key1", b"value  2")
        assert m.lookup(b"key1") == b"value  2"
        assert m.lookup(b"key2") is None


def test_a_deleted_key_is_gone() -> None:
    with hash_map() as m:
        m.update(b"key1", b"value  1")
        assert m.delete(b"key1") is True
        assert m.delete(b"key1") is False
        assert m.lookup(b"key1") is None


def test_flags_decide_about_existing_keys() -> None:
    with hash_map() as m:
        with pytest.raises(SyscallError, match="ENOENT"):
            m.update(b"key1", b"value  1", uapi.BPF_EXIST)
        m.update(b"key1", b"value  1", uapi.BPF_NOEXIST)
        with pytest.raises(SyscallError, match="EEXIST"):
            m.update(b"key1", b"value  1", uapi.BPF_NOEXIST)


def test_a_full_map_says_so() -> None:
    with hash_map(1) as m:
        m.update(b"key1", bytes(8))
        with pytest.raises(SyscallError, match=r"can't update map .*E2BIG"):
            m.update(b"key2", bytes(8))


@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize("count", [0, 1, 5000])
@pytest.mark.parametrize("kind", [uapi.BPF_MAP_TYPE_HASH, uapi.BPF_MAP_TYPE_LRU_HASH])
def test_all_items_are_listed_once(batches: bool, count: int, kind: int) -> None:
    with hash_map(20000, kind) as m:
        m._batches = batches
        wanted = {pack("<I", i): pack("<Q", i * i) for i in range(count)}
        for key, value in wanted.items():
            m.update(key, value)
        items = list(m.items())
        assert len(items) == count
        assert dict(items) == wanted


def test_batches_are_used_for_hash_maps() -> None:
    with hash_map() as m:
        m.update(b"key1", bytes(8))
        assert m._batch_items() == [(b"key1", bytes(8))]


def test_items_of_an_array_are_all_its_entries() -> None:
    with Map.create(MapSpec("a", uapi.BPF_MAP_TYPE_ARRAY, 4, 8, 3)) as m:
        m.update(pack("<I", 1), b"abcdefgh")
        expected = [bytes(8), b"abcdefgh", bytes(8)]
        assert [v for _, v in m.items()] == expected
        assert [k for k, _ in m.items()] == [pack("<I", i) for i in range(3)]


@pytest.mark.parametrize("kind", [uapi.BPF_MAP_TYPE_PERCPU_HASH, uapi.BPF_MAP_TYPE_PERCPU_ARRAY])
def test_a_per_cpu_map_has_a_value_for_every_cpu(kind: int) -> None:
    with Map.create(MapSpec("p", kind, 4, 4, 2)) as m:
        values = [pack("<I", i + 7) for i in range(possible_cpus())]
        m.update(bytes(4), b"".join(v + bytes(4) for v in values))
        assert m.lookup_per_cpu(bytes(4)) == values
        assert m.split(dict(m.items())[bytes(4)]) == values
        m.update(bytes(4), b"same")
        assert m.lookup_per_cpu(bytes(4)) == [b"same"] * possible_cpus()


def test_clearing_empties_a_hash_and_zeroes_an_array() -> None:
    with hash_map() as m:
        for i in range(50):
            m.update(pack("<I", i), bytes(8))
        m.clear()
        assert list(m.items()) == []
    with Map.create(MapSpec("a", uapi.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 2)) as m:
        m.update(bytes(4), b"12345678")
        m.clear()
        assert m.lookup_per_cpu(bytes(4)) == [bytes(8)] * possible_cpus()


def test_constants_are_written_and_frozen() -> None:
    spec = MapSpec(
        ".rodata", uapi.BPF_MAP_TYPE_ARRAY, 4, 5, 1, uapi.BPF_F_RDONLY_PROG, b"const", True
    )
    with Map.create(spec) as m:
        assert m.lookup(bytes(4)) == b"const"
        with pytest.raises(SyscallError, match="EPERM"):
            m.update(bytes(4), b"other")


def test_a_map_that_is_too_large_is_refused_with_a_hint() -> None:
    with pytest.raises(SyscallError) as caught:
        hash_map(1 << 31)
    assert caught.value.hint is not None
