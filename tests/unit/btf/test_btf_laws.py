# SPDX-License-Identifier: Apache-2.0
"""Laws of reading what was written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kcap import btf as b
from kcap.btf.build import BtfBuilder

names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=6)


@given(st.dictionaries(names, st.lists(names, max_size=5, unique=True), min_size=1, max_size=20))
def test_every_struct_written_is_found_by_its_name(structs: dict[str, list[str]]) -> None:
    w = BtfBuilder()
    u32 = w.integer("u32", 4)
    for name, members in structs.items():
        w.struct(name, 4 * len(members), [b.Member(m, u32, 32 * i) for i, m in enumerate(members)])
    btf = b.Btf.from_bytes(w.to_bytes())
    for name, members in structs.items():
        found = btf.get(name, b.Struct)
        assert [m.name for m in found.members] == members


@given(st.dictionaries(names, st.integers(-(1 << 31), (1 << 31) - 1), min_size=1, max_size=20))
def test_every_constant_written_is_found_by_its_name(values: dict[str, int]) -> None:
    w = BtfBuilder()
    w.enum("e", list(values.items()), signed=True)
    w.struct("decoy", 0, [])
    btf = b.Btf.from_bytes(w.to_bytes())
    for name, value in values.items():
        found = btf.enum_value(name)
        assert found is not None
        assert found[1] == value
