# SPDX-License-Identifier: Apache-2.0
"""How many instructions the kernel runs for what scripts typically do (xlated), probe by probe.

All probes stand in one script, each at a function of its own, so that each tracer starts once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.guest import programs
from benchmarks.guest.rows import Case, Figures
from benchmarks.guest.tracers import FailedError, Run, Tracer
from kcap.btf import Btf, Func

GROUP = "code"


class Probe(NamedTuple):
    """What is compared.

    :ivar place: a function, entered with fentry; or a probe of another type, the only one of it.
    :ivar block: the predicate and the block, whose maps no other one names.
    """

    place: str
    block: str


PROBES = (
    Probe("ip_rcv", "{ @size[args.skb->len] = count(); }"),
    Probe(
        "tcp_v4_rcv",
        "{ $ip = (struct iphdr *)(args.skb->head + args.skb->network_header); "
        "@hosts[ntop($ip->saddr), ntop($ip->daddr)] = count(); }",
    ),
    Probe(
        "tcp_connect",
        "{ $sk = (struct sock *)args.sk; if ($sk->__sk_common.skc_family == 2) { "
        'printf("%s:%d\\n", ntop($sk->__sk_common.skc_daddr), '
        "bswap($sk->__sk_common.skc_dport)); } }",
    ),
    Probe("tcp_close", "{ @state[args.sk->__sk_common.skc_state, comm] = count(); }"),
    Probe("tcp_sendmsg", "{ @avg[pid] = avg(args.size); @max = max(args.size); }"),
    Probe("udp_sendmsg", "{ @linear = lhist(args.len, 0, 1500, 100); }"),
    Probe("tcp_recvmsg", "{ @series = tseries(args.len, 100ms, 10); }"),
    Probe("udp_recvmsg", "{ @stats[comm] = stats(args.len); }"),
    Probe("vfs_open", "{ @names[str(args.path->dentry->d_name.name)] = count(); }"),
    Probe("vfs_mkdir", "{ @kernel[kstack(5), comm] = count(); }"),
    Probe("vfs_rmdir", "{ @user[ustack(5), pid] = count(); }"),
    Probe("vfs_unlink", '/comm == "bash" || comm == "sh"/ { @since[tid] = nsecs; }'),
    Probe("vfs_rename", '/strcontains(comm, "tmp")/ { print((pid, comm, nsecs)); }'),
    Probe("vfs_symlink", "{ @parent[curtask->real_parent->tgid] = count(); }"),
    Probe("vfs_link", "{ for $i : 0..10 { @loop[$i] = count(); } }"),
    Probe("vfs_mknod", "{ for $kv : @since { print($kv.1); } clear(@since); }"),
    Probe("vfs_truncate", "/pid > 1000 && uid == 0/ { @last[pid, tid] = nsecs; }"),
    Probe("tcp_disconnect", "{ delete(@last, (pid, tid)); @gone++; }"),
    Probe("vfs_fsync_range", "{ if (args.start) { @some = count(); } else { @all = count(); } }"),
    Probe("set_user_nice", '{ printf("%s %d %s\\n", comm, args.nice, strftime("%H:%M", nsecs)); }'),
    Probe("vfs_fallocate", "{ @us = hist((uint64)args.len / 1000); }"),
    Probe("kprobe:tcp_shutdown", "{ @caller[ksym(reg(\"ip\"))] = count(); }"),
    Probe("tracepoint:syscalls:sys_enter_chdir", "{ @to[comm, str(args.filename)] = count(); }"),
)  # fmt: skip
#: BPF_PROG_TYPE_* of the probes that fentry has no part in.
_TYPES = {"kprobe": 2, "tracepoint": 5}


def length(tracer: Tracer, probe: Probe) -> Figures:
    """The instructions of a probe's program, as loaded."""
    found = _lengths(tracer)
    if isinstance(found, FailedError):
        raise found
    return {("xlated", "insns"): found[probe.place]}


@functools.cache
def _lengths(tracer: Tracer) -> dict[str, int] | FailedError:
    """Those of all probes, which do not change from round to round, or why there are none."""
    before = set(programs.loaded())
    script = "\n".join(f"{_written(probe)} {probe.block}" for probe in PROBES)
    try:
        with Run(tracer, script) as run:
            run.attached()
            new = [each for number, each in programs.loaded().items() if number not in before]
            run.stop()
        return {probe.place: _of(probe, new).xlated for probe in PROBES}
    except FailedError as error:
        return error


def _of(probe: Probe, new: Sequence[programs.LoadedProgram]) -> programs.LoadedProgram:
    """The program that was loaded for a probe."""
    provider, colon, _ = probe.place.partition(":")
    if colon:
        found = [each for each in new if each.type == _TYPES[provider]]
    else:
        function = _kernel().get(probe.place, Func).id
        found = [each for each in new if each.function == function]
    if len(found) != 1:
        raise FailedError(f"{len(found)} programs for {probe.place}")
    return found[0]


def _written(probe: Probe) -> str:
    return probe.place if ":" in probe.place else f"fentry:{probe.place}"


@functools.cache
def _kernel() -> Btf:
    return Btf.kernel()


def cases(tracers: Sequence[Tracer]) -> Iterator[Case]:
    """A case a probe."""
    for probe in PROBES:
        yield Case(GROUP, f"`{_written(probe)} {probe.block}`", tracers, length, (probe,), rounds=1)
