# SPDX-License-Identifier: Apache-2.0
"""``probe`` and ``func`` of targets that share a program; ``printf()`` of a pinned iterator."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest

from kcap.codegen.compile import compile_script
from kcap.codegen.compiled import CompiledProgram
from kcap.codegen.module import Features
from kcap.functions.registry import all_functions
from kcap.kernel import uapi
from kcap.kernel.helpers import Helper
from kcap.kernel.spec import MapSpec
from kcap.lang import ast
from kcap.lang.diagnostic import ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.sema.analyzer import analyze
from kcap.sema.config import Config
from kcap.sema.kerneltypes import KernelTypes
from kcap.sema.probe import ProbeContext

NAMES = ["kprobe:vfs_read", "kprobe:vfs_write"]


class One:
    """Resolves to one context."""

    def __init__(self, context: ProbeContext) -> None:
        self.context = context

    def join(self, contexts: Sequence[ProbeContext]) -> Sequence[ProbeContext]:
        return contexts

    def resolve(self, attach_point: ast.AttachPoint, uses: Collection[str]) -> list[ProbeContext]:
        return [self.context]


def compiled(
    text: str, context: ProbeContext, **features: Any
) -> tuple[CompiledProgram, dict[str, MapSpec]]:
    types = KernelTypes(None)
    script = analyze(
        parse(Source("test", text)),
        functions=all_functions(),
        probes=One(context),
        types=types,
        config=Config(),
    )
    made = compile_script(script, Features(**features))
    return made.programs[0], {spec.name: spec for spec in made.maps}


def shared(index: str) -> ProbeContext:
    extra: dict[str, Any] = {
        "target_names": NAMES,
        "target_index": index,
        "many_functions": True,
    }
    kind = uapi.BPF_PROG_TYPE_KPROBE
    return ProbeContext("kprobe", "kprobe:vfs_*", kind, arguments="registers", extra=extra)


def helpers(program: CompiledProgram) -> set[int]:
    """The helpers that a program calls."""
    code = program.spec.insns
    calls = (code[at : at + 8] for at in range(0, len(code), 8) if code[at] == 0x85)
    return {int.from_bytes(call[4:], "little") for call in calls}


def test_the_cookie_finds_the_probe_in_a_table() -> None:
    program, maps = compiled("kprobe:vfs_* { @[probe] = 1; }", shared("cookie"))
    table = maps["kcap_probes_0"]
    assert (table.value_size, table.max_entries) == (24, 2)
    assert table.contents == b"".join(name.encode().ljust(24, b"\0") for name in NAMES)
    assert Helper.get_attach_cookie in helpers(program)
    assert "kcap_probes_0" in {relocation.symbol for relocation in program.spec.relocations}


def test_without_cookies_loading_gives_the_place_in_the_table() -> None:
    program, _ = compiled("kprobe:vfs_* { @[probe] = 1; }", shared("load"))
    assert Helper.get_attach_cookie not in helpers(program)
    assert "kcap_target_index" in {each.symbol for each in program.spec.relocations}


def test_func_is_asked_of_the_kernel_or_given_when_loading() -> None:
    text = "kprobe:vfs_* { @[func] = 1; }"
    program, _ = compiled(text, shared("load"))
    assert Helper.get_func_ip in helpers(program)
    program, _ = compiled(text, shared("load"), func_ip=False)
    assert Helper.get_func_ip not in helpers(program)
    assert "kcap_target_address" in {each.symbol for each in program.spec.relocations}


def pinned() -> ProbeContext:
    kind = uapi.BPF_PROG_TYPE_TRACING
    return ProbeContext("iter", "iter:task:x", kind, uapi.BPF_TRACE_ITER, extra={"pin": "/x"})


def test_printf_of_a_pinned_iterator_is_the_kernels() -> None:
    text = 'iter:task:x { printf("%-5d|%s|%lx 1%%|%p\\n", pid, comm, 1 << 40, 3); }'
    program, maps = compiled(text, pinned())
    assert Helper.seq_printf in helpers(program)
    assert Helper.ringbuf_reserve not in helpers(program)
    assert "kcap_events" not in maps


@pytest.mark.parametrize("conversion", ["%.3s", "%r", "%o"])
def test_what_the_kernel_can_not_print_is_refused(conversion: str) -> None:
    value = {"%r": "buf(comm, 4)", "%o": "1"}.get(conversion, "comm")
    with pytest.raises(ScriptError) as caught:
        compiled(f'iter:task:x {{ printf("{conversion}", {value}); }}', pinned())
    (error,) = caught.value.errors
    assert error.title.startswith("printf: the kernel can't print this by %")
