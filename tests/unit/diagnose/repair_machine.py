# SPDX-License-Identifier: Apache-2.0
"""A small frozen machine for the tests: BTF, traceable functions, tracepoints."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from kcap import btf as b
from kcap.btf.build import BtfBuilder
from kcap.diagnose.fix import Fix, fix
from kcap.kernel.helpers import Helper
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.system import Files, System
from kcap.sema import tree
from kcap.sema.function import Callable_, CallSite, Sema

U32, I32 = "unsigned int", "int"

#: name -> (return type, parameters); the types are looked up in `kernel_btf`.
FUNCTIONS = {
    "napi_gro_receive": ("int", [("napi", "napi_struct*"), ("skb", "sk_buff*")]),
    "gro_receive_skb": ("int", [("gro", "gro_node*"), ("skb", "sk_buff*")]),
    "ip_rcv": ("int", [("skb", "sk_buff*"), ("dev", "net_device*"), ("len", "unsigned int")]),
    "ip_output": ("int", [("net", "net_device*"), ("skb", "sk_buff*")]),
    "icmp_rcv": ("int", [("skb", "sk_buff*")]),
    "icmpv6_rcv": ("int", [("skb", "sk_buff*")]),
    "icmp_send": ("void", [("skb_in", "sk_buff*"), ("type", "int")]),
    "consume": ("void", [("buf", "sk_buff*")]),
    "merge": ("int", [("a", "sk_buff*"), ("b", "sk_buff*")]),
    "const_rcv": ("int", [("skb", "const sk_buff*")]),
    "by_value": ("int", [("pair", "pair"), ("skb", "sk_buff*")]),
    "alloc": ("sk_buff*", [("len", "unsigned int")]),
    "sleepy": ("void", [("skb", "sk_buff*")]),
    "filp_close": ("int", [("filp", "file*"), ("id", "void*")]),
    "kernel_clone": ("int", [("args", "void*")]),
    "vfs_read": (
        "int",
        [("file", "file*"), ("buf", "void*"), ("count", "unsigned int"), ("pos", "void*")],
    ),
    "many": ("int", [("fmt", "sk_buff*"), ("", "...")]),
}


def kernel_btf(without: frozenset[str] = frozenset()) -> bytes:
    """The BTF of a small kernel.

    :param without: functions to leave out.
    """
    w = BtfBuilder()
    types = {"int": w.integer("int", 4, 1), "unsigned int": w.integer("unsigned int", 4)}
    types["void"] = types["..."] = 0
    u32 = types["unsigned int"]
    types["net_device"] = w.struct("net_device", 8, [b.Member("ifindex", u32, 0)])
    types["net_device*"] = w.pointer(types["net_device"])
    types["sk_buff"] = w.struct(
        "sk_buff", 16, [b.Member("len", u32, 0), b.Member("dev", types["net_device*"], 64)]
    )
    types["sk_buff*"] = w.pointer(types["sk_buff"])
    types["const sk_buff*"] = w.pointer(w.modifier(b.Const, types["sk_buff"]))
    types["napi_struct*"] = w.pointer(w.struct("napi_struct", 8, [b.Member("state", u32, 0)]))
    types["gro_node*"] = w.pointer(w.struct("gro_node", 8, [b.Member("bits", u32, 0)]))
    types["pair"] = w.struct("pair", 16, [b.Member("x", u32, 0), b.Member("y", u32, 64)])
    types["void*"] = w.pointer(0)
    types["task_struct"] = w.struct("task_struct", 28, _task(w, u32))
    types["file"] = w.struct("file", 16, [b.Member("f_path", w.struct("path", 16, []), 0)])
    types["file*"] = w.pointer(types["file"])
    for name, (returns, params) in FUNCTIONS.items():
        if name not in without:
            made = [b.Param(p, types[t]) for p, t in params]
            w.func(name, w.func_proto(types[returns], made))
    for event, params in TRACEPOINTS.items():
        made = [b.Param("__data", types["void*"]), *(b.Param(p, types[t]) for p, t in params)]
        proto = w.func_proto(types["int"], made)
        w.modifier(b.Typedef, w.pointer(proto), f"btf_trace_{event}")
        w.func(f"__traceiter_{event}", proto)
    return w.to_bytes()


def _task(w: BtfBuilder, u32: int) -> list[b.Member]:
    name = w.array(w.integer("char", 1, 1), u32, 16)
    return [
        b.Member("pid", u32, 0),
        b.Member("tgid", u32, 32),
        b.Member("comm", name, 64),
        b.Member("__state", u32, 192),
    ]


WITHOUT_BTF = ("no_btf", "ftrace_only")
"""Functions that ftrace can trace, but that BTF does not have."""

TRACEPOINTS = {
    "netif_receive_skb": [("skb", "sk_buff*")],
    "kfree_skb": [("skb", "sk_buff*"), ("location", "void*"), ("reason", "int")],
    "net_dev_xmit": [("skb", "sk_buff*"), ("rc", "int"), ("dev", "net_device*")],
}


def machine(
    path: Path, *, without: frozenset[str] = frozenset(), untraceable: frozenset[str] = frozenset()
) -> System:
    """A machine whose sysfs, tracefs and procfs lie below ``path``: see :func:`files`."""
    return System(files=files(path, without=without, untraceable=untraceable))


def files(
    path: Path, *, without: frozenset[str] = frozenset(), untraceable: frozenset[str] = frozenset()
) -> Files:
    """The files below ``path`` that a machine says with what it is.

    :param without: functions that this kernel does not have.
    :param untraceable: functions that it has, but that ftrace can't trace.
    """
    btf, tracefs, proc = path / "btf", path / "tracing", path / "proc"
    for directory in (btf, tracefs / "events", proc):
        directory.mkdir(parents=True)
    (btf / "vmlinux").write_bytes(kernel_btf(without))
    names = [name for name in FUNCTIONS if name not in without | untraceable]
    names += WITHOUT_BTF
    (tracefs / "available_filter_functions").write_text("".join(f"{n}\n" for n in names))
    symbols = "".join(f"0000000000000000 T {n}\n" for n in FUNCTIONS if n not in without)
    (proc / "kallsyms").write_text(symbols)
    (proc / "modules").write_text("")
    blacklist = path / "blacklist"
    blacklist.write_text("")
    return Files("", str(tracefs), str(proc), str(btf), "", str(blacklist))


class SkbOutput(Callable_):
    """Stands in for skboutput(): what repairing needs of it."""

    name = "skboutput"
    helpers: ClassVar[frozenset[int]] = frozenset((Helper.skb_output,))

    def check(self, call: CallSite, sema: Sema) -> tree.Expr:
        raise NotImplementedError


class Override(SkbOutput):
    """Stands in for override(), which only a kprobe may call."""

    name = "override"
    helpers: ClassVar[frozenset[int]] = frozenset((Helper.override_return,))


class Printf(SkbOutput):
    """Stands in for printf()."""

    name = "printf"
    helpers: ClassVar[frozenset[int]] = frozenset((Helper.ringbuf_output,))


REGISTRY: dict[str, Callable_] = {f.name: f for f in (SkbOutput(), Override(), Printf())}


def repair(system: System, text: str) -> Fix:
    """What can be repaired in a script."""
    source = Source("test.bt", text)
    return fix(parse(source), source, system, REGISTRY, (6, 12))
