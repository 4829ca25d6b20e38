# SPDX-License-Identifier: Apache-2.0
"""Loading programs into a real kernel."""

from __future__ import annotations

import os

import pytest

from kcap.kernel import asm, features, uapi
from kcap.kernel.collection import Collection
from kcap.kernel.errors import CUT, LogSizeError, VerifierError
from kcap.kernel.programs import Program
from kcap.kernel.spec import CollectionSpec, FunctionSpec, MapSpec, ProgramSpec
from live.guest.kernel.handmade import COUNTER, counting

KPROBE = uapi.BPF_PROG_TYPE_KPROBE


def open_fds() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_a_collection_loads_and_closes_everything() -> None:
    before = open_fds()
    with Collection.load(CollectionSpec((COUNTER,), (counting(KPROBE),))) as loaded:
        assert list(loaded.maps) == ["counter"]
        assert list(loaded.programs) == ["counting"]
    assert open_fds() == before


def test_a_refused_program_carries_the_log_and_leaves_nothing_open() -> None:
    before = open_fds()
    bad = ProgramSpec("bad", KPROBE, asm.load(asm.R0, asm.R3) + asm.exit_())
    with pytest.raises(VerifierError) as caught:
        Collection.load(CollectionSpec((COUNTER,), (counting(KPROBE), bad)))
    error = caught.value
    assert error.summary == "R3 !read_ok"
    assert "bad: the kernel refused the program: R3 !read_ok (" in str(error)
    assert any("(79) r0 = *(u64 *)(r3 +0)" in line for line in error.log)
    assert open_fds() == before


def test_a_long_log_is_read_whole() -> None:
    # 20000 instructions at log level 1 are more than the first buffer holds
    code = asm.mov_imm(asm.R0, 0) * 20000 + asm.load(asm.R0, asm.R3) + asm.exit_()
    with pytest.raises(VerifierError) as caught:
        Program.load(ProgramSpec("long", KPROBE, code), {})
    assert len(caught.value.log) > 20000
    assert caught.value.truncated is False
    assert caught.value.summary == "R3 !read_ok"


def test_the_last_words_of_a_log_that_is_too_long_are_kept() -> None:
    # Up to 6.1 the kernel keeps the beginning of such a log, which alone is no use. A large number
    # makes the lines long; stores would, too, but 6.12 takes two minutes for 150,000 of them.
    code = asm.mov_imm(asm.R0, 0x7FFFFFFF) * 150_000 + asm.load(asm.R0, asm.R3) + asm.exit_()
    with pytest.raises(VerifierError) as caught:
        Program.load(ProgramSpec("longer", KPROBE, code), {})
    error = caught.value
    assert (error.truncated, error.summary) == (True, "R3 !read_ok")
    assert error.log.count(CUT) == 1
    assert 20_000 < error.omitted < 150_000


def test_a_log_can_be_asked_for() -> None:
    code = asm.mov_imm(asm.R0, 0) + asm.exit_()
    with Program.load(ProgramSpec("ok", KPROBE, code), {}, log_level=1) as program:
        assert any(line.startswith("processed 2 insns") for line in program.log)


def test_a_log_that_has_to_fit_a_buffer_and_does_not_is_an_error() -> None:
    code = asm.mov_imm(asm.R0, 0) * 40 + asm.exit_()
    Program.load(ProgramSpec("ok", KPROBE, code), {}, 1, log_size=1 << 14).close()
    for size in (2, 130):
        with pytest.raises(LogSizeError, match=f"(?s)for small.* Error code: -.*{size} bytes"):
            Program.load(ProgramSpec("small", KPROBE, code), {}, 1, log_size=size)


def test_a_program_with_a_function_loads() -> None:
    code = asm.call_function(1) + asm.exit_() + asm.mov_imm(asm.R0, 7) + asm.exit_()
    functions = (FunctionSpec("kprobe:x", 0), FunctionSpec("inner fn", 2))
    spec = ProgramSpec("two", uapi.BPF_PROG_TYPE_SOCKET_FILTER, code, functions=functions)
    with Program.load(spec, {}) as program:
        assert program.run(bytes(64)) == 7


def test_callbacks_load_where_the_kernel_has_them(kernel: str) -> None:
    version = tuple(map(int, kernel.split(".")))
    assert features.for_each_map_elem() is (version >= (5, 13))
    assert features.loop() is (version >= (5, 17))


def test_data_is_addressed_behind_the_maps_start() -> None:
    data = MapSpec(
        ".rodata", uapi.BPF_MAP_TYPE_ARRAY, 4, 16, 1, uapi.BPF_F_RDONLY_PROG,
        (41).to_bytes(8, "little") + (42).to_bytes(8, "little"), True,
    )  # fmt: skip
    from kcap.kernel.spec import Relocation

    code = asm.load_imm64(asm.R1, 0) + asm.load(asm.R0, asm.R1) + asm.exit_()
    relocations = (Relocation(0, "map_value", ".rodata", 8),)
    kind = uapi.BPF_PROG_TYPE_SOCKET_FILTER
    spec = ProgramSpec("reads", kind, code, relocations=relocations)
    with Collection.load(CollectionSpec((), (spec,), (data,))) as loaded:
        assert loaded.programs["reads"].run(bytes(64)) == 42
