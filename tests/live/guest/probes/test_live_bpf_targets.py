# SPDX-License-Identifier: Apache-2.0
"""``fentry:bpf:…``: tracing loaded BPF programs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

import kcap
from kcap import btf as b
from kcap.btf.build import BtfBuilder, func_info
from kcap.kernel import asm, programs, uapi
from kcap.kernel.btfs import load_btf
from kcap.kernel.info import program_ids
from kcap.kernel.programs import Program
from kcap.kernel.spec import FunctionSpec, ProgramSpec
from kcap.probes.fentry import Fentry
from kcap.probes.listing import list_probes
from kcap.probes.system import System
from support import PATIENCE
from support.tracing import Running

TARGET = """
tracepoint:syscalls:sys_enter_getpriority { @seen = count(); }
tracepoint:syscalls:sys_enter_setpriority { for ($i : 0..3) { @sum = sum($i); } }
"""
NAME = "tracepoint_syscalls_sys_enter_getpriority_1"


ADD = 0x0F  # BPF_ALU64 | BPF_ADD | BPF_X


def wait_for(running: Running, name: str, least: int) -> dict[object, int]:
    """Return a map's entries when they add up to so many."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = dict(running.trace.runtime.read_map(running.trace.checked.script.maps[name]))
        if sum(found.values()) >= least:
            return found
        time.sleep(0.05)
    raise AssertionError(f"@{name} has {found}")


def test_entry_and_return_of_a_program_are_traced_and_it_still_works() -> None:
    with Running(TARGET) as target:
        listed = list(list_probes(f"fentry:bpf:*:{NAME}", System()))
        (probe,) = listed
        number = int(probe.split(":")[2])
        assert number in set(program_ids())
        script = (
            f"fentry:bpf:{NAME} {{ @[probe] = count(); }} "
            f"fexit:bpf:{number}:{NAME} {{ @[probe] = count(); }}"
        )
        with Running(script) as tracer:
            os.getpriority(os.PRIO_PROCESS, 0)
            os.getpriority(os.PRIO_PROCESS, 0)
            found = wait_for(tracer, "@", 4)
        assert found == {probe: 2, probe.replace("fentry", "fexit"): 2}
        assert wait_for(target, "@seen", 2) == {None: 2}


def typed_functions(spec: ProgramSpec, fds: list[int]) -> tuple[int, bytes, int, bytes]:
    """BTF of ``int classify(struct __sk_buff *skb)`` and ``int add(int n, struct pair *pair)``."""
    w = BtfBuilder()
    int_, u32 = w.integer("int", 4, 1), w.integer("unsigned int", 4)
    long_ = w.integer("long", 8, 1)
    skb = w.pointer(w.struct("__sk_buff", 8, [b.Member("len", u32, 0), b.Member("mark", u32, 32)]))
    pair = w.struct("pair", 16, [b.Member("first", long_, 0), b.Member("second", long_, 64)])
    classify = w.func("classify", w.func_proto(int_, [b.Param("skb", skb)]), 1)
    params = [b.Param("n", int_), b.Param("pair", w.pointer(pair))]
    add = w.func("add", w.func_proto(int_, params))
    fds.append(load_btf(w.to_bytes()))
    places = [function.insn for function in spec.functions]
    return fds[-1], func_info(zip(places, (classify, add), strict=True)), 2, b""


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """A program whose BTF has types; it returns add(7, &{40, 2})."""
    main = (
        asm.store_imm(asm.R10, -16, 40)
        + asm.store_imm(asm.R10, -8, 2)
        + asm.mov_imm(asm.R1, 7)
        + asm.mov(asm.R2, asm.R10)
        + asm.add_imm(asm.R2, -16)
        + asm.call_function(1)
        + asm.exit_()
    )
    add = (
        asm.load(asm.R0, asm.R2)
        + asm.load(asm.R3, asm.R2, 8)
        + asm.insn(ADD, asm.R0, asm.R3)
        + asm.insn(ADD, asm.R0, asm.R1)
        + asm.exit_()
    )
    functions = (FunctionSpec("classify", 0), FunctionSpec("add", len(main) // 8))
    monkeypatch.setattr(programs, "_function_info", typed_functions)
    spec = ProgramSpec("classify", uapi.BPF_PROG_TYPE_SCHED_CLS, main + add, functions=functions)
    with Program.load(spec, {}) as program:
        monkeypatch.undo()
        yield program


def test_arguments_of_a_programs_functions_have_the_types_of_its_btf(typed: Program) -> None:
    listed = [name for name in list_probes("fentry:bpf:*", System()) if name.endswith(":add")]
    (probe,) = listed
    assert list(Fentry().parameters(probe, System())) == ["int n", "struct pair * pair"]
    here = probe.removeprefix("fentry:").removesuffix(":add")
    script = f"""
        fentry:{here}:add {{ printf("%d %d %d\\n", args.n, args.pair->first, args.pair->second); }}
        fexit:{here}:add {{ printf("%d = %d\\n", args.n, retval); }}
        fentry:{here}:classify {{ printf("%d %s\\n", args.skb->len, args.skb->dev->name); }}
        fexit:{here}:classify {{ printf("%d\\n", retval); exit(); }}
    """
    with Running(script) as tracer:
        assert typed.run(bytes(64)) == 49
        tracer.wait()
    # The verifier takes no pointers to structs for arguments of functions that are not global, so
    # that the kernel does not trust the types of add(): what it returns stands elsewhere.
    assert tracer.text.strip().split("\n")[-4:] == ["64 lo", "7 40 2", "7 = 49", "49"]


@pytest.mark.needs("loop")
def test_a_wildcard_stands_for_the_functions_of_all_programs() -> None:
    with (
        Running(TARGET) as target,
        Running("fentry:bpf:*priority* { @[func] = count(); }") as tracer,
    ):
        os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))
        assert sum(wait_for(tracer, "@", 3).values()) == 3
        assert wait_for(target, "@sum", 3) == {None: 3}
        assert not tracer.trace.system.skipped


def test_a_program_that_is_not_there_is_said_so() -> None:
    with pytest.raises(kcap.KcapError) as caught:
        kcap.compile("fentry:bpf:no_such_program { }")
    assert "no BPF program has such a function" in str(caught.value) or "No matches" in str(
        caught.value
    )
