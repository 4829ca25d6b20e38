# SPDX-License-Identifier: Apache-2.0
"""Types of BTF that comes and goes, as that of BPF programs does."""

from __future__ import annotations

from kcap import btf as b
from kcap.btf.build import BtfBuilder
from kcap.sema.kerneltypes import KernelTypes


def with_integer(size: int) -> b.Btf:
    """BTF whose type 1 is an integer of so many bytes."""
    builder = BtfBuilder()
    builder.integer("number", size)
    return b.Btf.from_bytes(builder.to_bytes())


def test_a_type_is_that_of_its_btf_though_another_had_the_same_address_before() -> None:
    types = KernelTypes()
    sizes = [1, 2, 4] * 10
    assert [types.from_btf(with_integer(size), 1).size for size in sizes] == sizes
