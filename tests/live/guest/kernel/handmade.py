# SPDX-License-Identifier: Apache-2.0
"""Programs by hand for the live tests of the kernel layer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kcap.kernel import asm, uapi
from kcap.kernel.helpers import Helper
from kcap.kernel.spec import MapSpec, ProgramSpec, Relocation

if TYPE_CHECKING:
    from kcap.kernel.maps import Map

COUNTER = MapSpec("counter", uapi.BPF_MAP_TYPE_ARRAY, 4, 8, 1)
TARGET = "__x64_sys_getppid"
TYPED_TARGET = "vfs_read"
"""A function with BTF, which system calls without arguments don't have."""


def trigger(times: int = 5) -> None:
    """Call what the programs are attached to, and nothing else that reads files."""
    fd = os.open("/dev/zero", os.O_RDONLY)
    for _ in range(times):
        os.getppid()
        os.read(fd, 1)
    os.close(fd)


def counting(kind: int, attach_type: int = 0, btf_id: int = 0) -> ProgramSpec:
    """A program that counts its runs in the map ``counter``."""
    code = (
        asm.load_imm64(asm.R1, 0)
        + asm.load(asm.R2, asm.R1)
        + asm.add_imm(asm.R2, 1)
        + asm.store(asm.R1, 0, asm.R2)
        + asm.mov_imm(asm.R0, 0)
        + asm.exit_()
    )
    relocations = (Relocation(0, "map_value", "counter"),)
    return ProgramSpec("counting", kind, code, attach_type, relocations, attach_btf_id=btf_id)


def storing_cookie(kind: int, attach_type: int = 0, btf_id: int = 0) -> ProgramSpec:
    """A program that stores bpf_get_attach_cookie in the map ``counter``."""
    code = (
        asm.call(Helper.get_attach_cookie)
        + asm.load_imm64(asm.R1, 0)
        + asm.store(asm.R1, 0, asm.R0)
        + asm.mov_imm(asm.R0, 0)
        + asm.exit_()
    )
    relocations = (Relocation(1, "map_value", "counter"),)
    return ProgramSpec("cookie", kind, code, attach_type, relocations, attach_btf_id=btf_id)


def value(counter: Map) -> int:
    """What is in the counter."""
    found = counter.lookup(bytes(4))
    assert found is not None
    return int.from_bytes(found, "little")
