# SPDX-License-Identifier: Apache-2.0
"""Reading this machine's own BTF, where it has some."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcap import btf as b
from kcap.btf import render

pytestmark = pytest.mark.skipif(
    not Path("/sys/kernel/btf/vmlinux").exists(), reason="the kernel has no BTF"
)


@pytest.fixture(scope="module")
def vmlinux() -> b.Btf:
    return b.Btf.kernel()


def test_sk_buff_has_the_members_that_capture_reads(vmlinux: b.Btf) -> None:
    skb = vmlinux.get("sk_buff", b.Struct)
    for name in ("head", "data", "len", "data_len", "mac_header", "network_header", "dev", "sk"):
        assert b.find_member(vmlinux, skb, name) is not None


def test_ip_rcv_has_its_prototype(vmlinux: b.Btf) -> None:
    text = render.signature(vmlinux, vmlinux.get("ip_rcv", b.Func))
    assert text.startswith("int ip_rcv(struct sk_buff *skb, struct net_device *dev, ")


def test_every_type_parses_and_renders(vmlinux: b.Btf) -> None:
    step = 7  # a seventh of them is enough, and quick
    for type_id in range(1, vmlinux.end_id, step):
        assert render.declaration(vmlinux, type_id, "x")


def test_kinds_have_the_sizes_of_x86_64(vmlinux: b.Btf) -> None:
    assert b.size_of(vmlinux, vmlinux.get("pid_t", b.Typedef).id) == 4
    assert b.size_of(vmlinux, vmlinux.get("list_head", b.Struct).id) == 16
