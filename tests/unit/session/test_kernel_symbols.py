# SPDX-License-Identifier: Apache-2.0
"""Names of kernel addresses while modules come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcap.session import symbols
from kcap.session.symbols import LazyKernelSymbols
from kcap.symbols.kallsyms import Symbol

KERNEL = "ffffffff81000000 T ip_rcv\nffffffffc0000000 t trampoline\t[__builtin__ftrace]\n"
TUN = "ffffffffc0001000 t tun_do_read\t[tun]\n"
VETH = "veth 45056 0 - Live 0xffffffffbf000000\n"


def test_functions_of_a_module_that_comes_later_have_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symbols, "_LOOK_AGAIN", 0)
    kallsyms, modules = tmp_path / "kallsyms", tmp_path / "modules"
    kallsyms.write_text(KERNEL)
    modules.write_text(VETH)
    names = LazyKernelSymbols(str(tmp_path))
    assert names.find(0xFFFFFFFF81000005) == Symbol("ip_rcv", 5, "")
    kallsyms.write_text(KERNEL + TUN)
    modules.write_text(VETH.replace(" 0 ", " 2 "))  # another use of it
    assert names.symbolize(0xFFFFFFFFC0001005) == ("trampoline", 0x1005)
    modules.write_text("tun 69632 1 - Live 0xffffffffc0001000 (E)\n" + VETH)
    assert names.find(0xFFFFFFFFC0001005) == Symbol("tun_do_read", 5, "tun")


def test_names_stay_when_the_kernel_hides_addresses_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symbols, "_LOOK_AGAIN", 0)
    (tmp_path / "kallsyms").write_text(KERNEL + TUN)
    names = LazyKernelSymbols(str(tmp_path))
    assert names.symbolize(0xFFFFFFFFC0001005) == ("tun_do_read", 5)
    hidden = "".join(f"{0:016x}{line[16:]}\n" for line in (KERNEL + TUN).splitlines())
    (tmp_path / "kallsyms").write_text(hidden)
    (tmp_path / "modules").write_text(VETH)
    assert names.symbolize(0xFFFFFFFFC0001005) == ("tun_do_read", 5)


def test_kernel_without_modules_has_names(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(KERNEL)
    names = LazyKernelSymbols(str(tmp_path))
    assert names.symbolize(0xFFFFFFFFC0000001) == ("trampoline", 1)
