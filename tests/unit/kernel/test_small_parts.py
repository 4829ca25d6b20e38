# SPDX-License-Identifier: Apache-2.0
"""Names, CPU lists, numbers, instructions, relocations, clocks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from kcap.kernel import asm, cpus, helpers, names, pidns, uapi
from kcap.kernel.helpers import Helper
from kcap.kernel.maps import Map
from kcap.kernel.programs import relocate
from kcap.kernel.spec import FunctionSpec, ProgramSpec, Relocation


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0\n", [0]), ("0-3,8\n", [0, 1, 2, 3, 8]), ("0-1,4-5", [0, 1, 4, 5]), ("\n", [])],
)
def test_cpu_lists(text: str, expected: list[int]) -> None:
    assert cpus.parse_list(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kprobe:ip_rcv", b"kprobe_ip_rcv"),
        (".rodata", b".rodata"),
        ("@a long map name", b"_a_long_map_nam"),
        ("2fast", b"_2fast"),
        ("", b"_"),
    ],
)
def test_names_are_what_the_kernel_takes(name: str, expected: bytes) -> None:
    assert names.kernel_name(name) == expected


def test_helpers_are_known_by_name_and_number() -> None:
    assert Helper.skb_output == 111
    assert helpers.number("bpf_perf_event_output") == helpers.number("perf_event_output") == 25
    assert helpers.name(181) == "bpf_loop"
    assert helpers.name(5000) == "helper#5000"
    assert sorted(helpers.NAMES) == list(range(1, 212))


@pytest.mark.skipif(not Path("/sys/kernel/btf/vmlinux").exists(), reason="the kernel has no BTF")
def test_numbers_are_those_of_the_running_kernel() -> None:
    from kcap.btf import Btf

    btf = Btf.kernel()
    constants = {name: value for name, value in vars(uapi).items() if name.isupper()}
    constants |= {f"BPF_FUNC_{name}": number for number, name in helpers.NAMES.items()}
    found = {name: btf.enum_value(name) for name in constants}
    assert {name: constants[name] for name in constants if found[name]} == {
        name: value[1] for name, value in found.items() if value
    }
    assert sum(value is not None for value in found.values()) > 250


def test_instructions_are_encoded() -> None:
    assert asm.mov_imm(asm.R0, -1).hex() == "b7000000ffffffff"
    assert asm.load(asm.R2, asm.R10, -8).hex() == "79a2f8ff00000000"
    assert asm.load_imm64(asm.R1, 0x1122334455667788, 2).hex() == "18210000887766550000000044332211"
    assert asm.call(111).hex() == "850000006f000000"


class FakeMap:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


def test_relocations_are_filled_in() -> None:
    code = (
        asm.load_imm64(asm.R1, 0)
        + asm.load_imm64(asm.R2, 0)
        + asm.load_imm64(asm.R3, 0)
        + asm.exit_()
        + asm.exit_()
    )
    spec = ProgramSpec(
        "p",
        uapi.BPF_PROG_TYPE_KPROBE,
        code,
        relocations=(
            Relocation(0, "map", "m"),
            Relocation(2, "map_value", ".data", 24),
            Relocation(4, "func", "callback"),
        ),
        functions=(FunctionSpec("p", 0), FunctionSpec("callback", 7)),
    )
    maps = {"m": cast("Map", FakeMap(11)), ".data": cast("Map", FakeMap(12))}
    assert relocate(spec, maps) == (
        asm.load_imm64(asm.R1, 11, uapi.BPF_PSEUDO_MAP_FD)
        + asm.load_imm64(asm.R2, 24 << 32 | 12, uapi.BPF_PSEUDO_MAP_VALUE)
        + asm.load_imm64(asm.R3, 2, uapi.BPF_PSEUDO_FUNC)
        + asm.exit_()
        + asm.exit_()
    )


def test_a_relocation_must_be_at_a_load() -> None:
    spec = ProgramSpec("p", 2, asm.exit_() * 2, relocations=(Relocation(0, "map", "m"),))
    with pytest.raises(ValueError, match="instruction 0 is no 64-bit load"):
        relocate(spec, {"m": cast("Map", FakeMap(1))})


def test_a_pid_namespace_is_told_as_the_kernel_numbers_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stat:
        st_dev = os.makedev(1, 300)
        st_ino = 4026532199

    assert pidns.own(str(tmp_path / "missing")) is None
    monkeypatch.setattr(os, "stat", lambda _: Stat)
    assert pidns.own() == (1 << 20 | 300, 4026532199)
    Stat.st_ino = pidns.INITIAL
    assert pidns.own() is None
