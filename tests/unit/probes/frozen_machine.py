# SPDX-License-Identifier: Apache-2.0
"""A frozen machine: a small BTF of kernel and module, a tracefs and a procfs in a directory."""

from __future__ import annotations

from pathlib import Path

from kcap import btf as b
from kcap.btf.build import BtfBuilder
from kcap.lang.ast import AttachPoint
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.system import Files

TRACEABLE = """\
vfs_read
vfs_write
tcp_connect
tcp_close
gro_receive_skb
only_a_kprobe
by_value
lookup_fast.constprop.0
printk
rcu_read
__ftrace_invalid_address___16
same_name
nf_tables_newtable [nf_tables]
same_name [nf_tables]
no_btf_fn [old_module]
"""

EVENTS = """\
sched:sched_switch
sched:sched_waking
syscalls:sys_enter_openat
syscalls:sys_exit_openat
irq:irq_handler_entry
"""

COMMON = """\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

"""

FORMATS = {
    "sched:sched_switch": """\
\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:long prev_state;\toffset:32;\tsize:8;\tsigned:1;
""",
    "sched:sched_waking": """\
\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;
""",
    "syscalls:sys_enter_openat": """\
\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;
\tfield:int dfd;\toffset:16;\tsize:8;\tsigned:0;
\tfield:const char * filename;\toffset:24;\tsize:8;\tsigned:0;
\tfield:umode_t mode;\toffset:40;\tsize:8;\tsigned:0;
""",
    "syscalls:sys_exit_openat": """\
\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;
\tfield:long ret;\toffset:16;\tsize:8;\tsigned:1;
""",
    "irq:irq_handler_entry": """\
\tfield:int irq;\toffset:8;\tsize:4;\tsigned:1;
\tfield:__data_loc char[] name;\toffset:12;\tsize:4;\tsigned:0;
\tfield:struct sk_buff * skb;\toffset:16;\tsize:8;\tsigned:0;
\tfield:enum reason why;\toffset:24;\tsize:4;\tsigned:0;
""",
}


def kernel_btf() -> bytes:
    """Functions, types and raw tracepoints of a small kernel."""
    w = BtfBuilder()
    u32 = w.integer("unsigned int", 4)
    int_ = w.integer("int", 4, 1)
    long_ = w.integer("long", 8, 1)
    char = w.integer("char", 1, 1)
    string = w.pointer(w.modifier(b.Const, char))
    void = w.pointer(0)
    skb = w.struct("sk_buff", 64, [b.Member("len", u32, 0)])
    p_skb = w.pointer(skb)
    file = w.pointer(w.struct("file", 16, [b.Member("f_mode", u32, 0)]))
    pair = w.struct("pair", 16, [b.Member("a", long_, 0), b.Member("b", long_, 64)])
    big = w.struct("big", 24, [b.Member("a", long_, 0)])
    sock = w.pointer(w.struct("sock", 8, [b.Member("sk_mark", u32, 0)]))
    P = b.Param
    rw = [P("file", file), P("buf", string), P("count", long_)]
    w.func("vfs_read", w.func_proto(long_, rw))
    w.func("vfs_write", w.func_proto(long_, rw))
    w.func("tcp_connect", w.func_proto(int_, [P("sk", sock)]))
    w.func("tcp_close", w.func_proto(0, [P("sk", sock), P("timeout", long_)]))
    w.func("gro_receive_skb", w.func_proto(u32, [P("gro", void), P("skb", p_skb)]))
    w.func("by_value", w.func_proto(int_, [P("p", pair), P("last", u32)]))
    w.func("too_big", w.func_proto(int_, [P("what", big)]))
    w.func("printk", w.func_proto(int_, [P("fmt", string), P("", 0)]))
    w.func("inlined_one", w.func_proto(int_, []))
    w.func("same_name", w.func_proto(int_, []))
    w.func("rcu_read", w.func_proto(0, []))
    anon = w.func_proto(0, [P("", void), P("", p_skb), P("", u32)])
    w.modifier(b.Typedef, w.pointer(anon), "btf_trace_kfree_skb")
    named = w.func_proto(int_, [P("__data", void), P("skb", p_skb), P("reason", u32)])
    w.func("__traceiter_kfree_skb", named)
    other = w.func_proto(0, [P("", void), P("", sock)])
    w.modifier(b.Typedef, w.pointer(other), "btf_trace_tcp_probe")
    w.modifier(b.Typedef, int_, "pid_t")
    w.struct("bpf_iter__task", 16, [b.Member("meta", void, 0), b.Member("task", void, 64)])
    w.func("bpf_iter_task", w.func_proto(int_, [P("meta", void), P("task", void)]))
    w.enum("reason", [("R_NONE", 0), ("R_HIGH", 9)])
    w.func("bpf_session_is_return", w.func_proto(int_, [P("ctx", void)]))
    return w.to_bytes()


def module_btf(base: b.Btf) -> bytes:
    """The BTF of the module nf_tables."""
    w = BtfBuilder(base.end_id, base.end_string)
    skb = base.get("sk_buff", b.Struct).id
    int_ = base.get("int", b.Int).id
    w.func("nf_tables_newtable", w.func_proto(int_, [b.Param("skb", w.pointer(skb))]))
    return w.to_bytes()


def write_machine(root: Path) -> Files:
    """Write the machine's files; returns where they are."""
    sysfs, tracefs, proc = root / "btf", root / "tracefs", root / "proc"
    for directory in (sysfs, proc, tracefs / "events"):
        directory.mkdir(parents=True)
    kernel = kernel_btf()
    (sysfs / "vmlinux").write_bytes(kernel)
    (sysfs / "nf_tables").write_bytes(module_btf(b.Btf(kernel, None, "vmlinux")))
    (tracefs / "available_filter_functions").write_text(TRACEABLE)
    (tracefs / "available_events").write_text(EVENTS)
    for number, (name, fields) in enumerate(FORMATS.items(), 100):
        category, event = name.split(":")
        directory = tracefs / "events" / category / event
        directory.mkdir(parents=True)
        (directory / "id").write_text(f"{number}\n")
        head = f"name: {event}\nID: {number}\nformat:\n"
        (directory / "format").write_text(f'{head}{COMMON}{fields}\nprint fmt: ""\n')
    (proc / "modules").write_text("nf_tables 16384 0 - Live 0x0\nold_module 4096 0 - Live 0x0\n")
    names = [line.split()[0] for line in TRACEABLE.splitlines()]
    symbols = "".join(f"0000000000000000 T {name}\n" for name in [*names, "notrace_one", "listed"])
    (proc / "kallsyms").write_text(symbols)
    (root / "blacklist").write_text("0xffffffff81000000-0xffffffff81000010\tlisted\n")
    return Files(
        btf=str(sysfs),
        tracefs=str(tracefs),
        proc=str(proc),
        blacklist=str(root / "blacklist"),
    )


def point(text: str) -> AttachPoint:
    """The one attach point of ``text``."""
    program = parse(Source("stdin", f"{text} {{ }}"))
    return next(iter(program.probes)).attach_points[0]
