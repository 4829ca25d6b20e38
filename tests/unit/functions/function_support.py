# SPDX-License-Identifier: Apache-2.0
"""Scripts with the real functions, through checking, code generation and LLVM, without a kernel."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest

from kcap.btf import Btf
from kcap.btf import types as b
from kcap.btf.build import BtfBuilder
from kcap.codegen.compile import Compiled, compile_script, generate
from kcap.codegen.environment import Environment
from kcap.codegen.module import Features
from kcap.functions.registry import all_functions
from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.sema import tree
from kcap.sema.analyzer import analyze
from kcap.sema.config import Config
from kcap.sema.kerneltypes import KernelTypes
from kcap.sema.probe import ProbeContext
from kcap.sema.types import UINT64

#: Program types (enum bpf_prog_type) of the probes that tests use.
PROGRAM_TYPES = {"kprobe": 2, "kretprobe": 2, "uprobe": 2, "begin": 17, "fentry": 26, "fexit": 26}


def kernel_btf() -> Btf:
    """A task, a socket and a function that takes one."""
    builder = BtfBuilder()
    char = builder.integer("char", 1, b.INT_SIGNED)
    u8 = builder.integer("unsigned char", 1)
    u32 = builder.integer("unsigned int", 4)
    int_ = builder.integer("int", 4, b.INT_SIGNED)
    u64 = builder.integer("long unsigned int", 8)
    comm = builder.array(char, u32, 16)
    mac = builder.array(u8, u32, 6)
    v4 = builder.array(u8, u32, 4)
    v6 = builder.array(u8, u32, 16)
    argv = builder.pointer(builder.pointer(char))
    builder.enum("colour", [("RED", 0), ("GREEN", 1), ("BLUE", 7)])
    path = builder.struct("path", 8, [b.Member("mnt", u64, 0)])
    sock = builder.struct("sock", 64, [
        b.Member("mac", mac, 0), b.Member("v4", v4, 64), b.Member("v6", v6, 128),
        b.Member("argv", argv, 256), b.Member("f_path", path, 320), b.Member("port", u32, 384),
    ])  # fmt: skip
    task_ptr = builder.pointer(sock + 2)
    task = builder.struct("task_struct", 48, [
        b.Member("comm", comm, 0), b.Member("pid", int_, 128),
        b.Member("real_parent", task_ptr, 192), b.Member("group_leader", task_ptr, 256),
    ])  # fmt: skip
    assert task == sock + 2
    sock_ptr = builder.pointer(sock)
    proto = builder.func_proto(int_, [b.Param("sk", sock_ptr), b.Param("n", int_)])
    builder.func("tcp_connect", proto)
    return Btf.from_bytes(builder.to_bytes(), name="mini")


class Resolver:
    """One context for each attach point; fentry and fexit have tcp_connect's arguments."""

    def __init__(self, types: KernelTypes) -> None:
        self.types = types

    def join(self, contexts: Sequence[ProbeContext]) -> Sequence[ProbeContext]:
        return contexts

    def resolve(self, attach_point: ast.AttachPoint, uses: Collection[str]) -> list[ProbeContext]:
        provider = attach_point.provider.text
        context = ProbeContext(provider, attach_point.text, PROGRAM_TYPES.get(provider, 2))
        if provider in ("kprobe", "kretprobe", "uprobe"):
            context.arguments = "registers"
            context.space = "user" if provider == "uprobe" else "kernel"
        if provider == "kretprobe":
            context.retval = UINT64
        if provider in ("fentry", "fexit"):
            self._typed(context)
        return [context]

    def _typed(self, context: ProbeContext) -> None:
        btf = self.types.btf
        assert btf is not None
        proto = btf.prototype(btf.get("tcp_connect", b.Func))
        context.args = self.types.arguments(btf, proto, "tcp_connect", "tcp_connect")
        context.arguments, context.function = "slots", "tcp_connect"
        if context.provider == "fexit":
            context.retval = self.types.from_btf(btf, proto.return_type_id)
            context.extra["retval_slot"] = len(proto.params)


def check(
    text: str,
    *,
    config: Config | None = None,
    parameters: Sequence[str] = (),
    unsafe: bool = False,
) -> tree.Script:
    """The typed tree of a script (of a begin probe, if it is only statements).

    :raises ScriptError: with what is wrong.
    """
    if not text.startswith((*PROGRAM_TYPES, "config", "let @")):
        text = f"begin {{ {text} }}"
    types = KernelTypes(kernel_btf())
    return analyze(
        parse(Source("test", text)),
        functions=all_functions(),
        probes=Resolver(types),
        types=types,
        config=config or Config(),
        parameters=parameters,
        unsafe=unsafe,
    )


def error(text: str, **options: Any) -> Diagnostic:
    """The one error of a script."""
    with pytest.raises(ScriptError) as caught:
        check(text, **options)
    (found,) = caught.value.errors
    return found


def ir(text: str, **options: Any) -> str:
    """The LLVM IR of a script."""
    features = options.pop("features", Features())
    return generate(check(text, **options), features).text()


def compiled(text: str, **options: Any) -> Compiled:
    """A script through LLVM."""
    return compile_script(check(text, **options), Features())


class FakeRuntime:
    """A runtime that notes what it is asked for.

    :param maps: the entries of maps by name.
    """

    def __init__(self, maps: dict[str, list[tuple[Any, Any]]] | None = None) -> None:
        self.environment = Environment(Config())
        self.maps = maps or {}
        self.calls: list[tuple[str, Any]] = []

    def read_map(self, map_: tree.Map) -> list[tuple[Any, Any]]:
        return self.maps[map_.name]

    def clear_map(self, map_: tree.Map) -> None:
        self.calls.append(("clear", map_.name))

    def zero_map(self, map_: tree.Map) -> None:
        self.calls.append(("zero", map_.name))

    def request_exit(self, status: int, mono_ns: int) -> None:
        self.calls.append(("exit", status))

    def set_status(self, status: int) -> None:
        self.calls.append(("status", status))

    def may_run(self) -> bool:
        return True
