# SPDX-License-Identifier: Apache-2.0
"""Start: from the command to attached probes, and to the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.guest.rows import Case, Figures
from benchmarks.guest.tracers import Run, Tracer

GROUP, COLD = "start", "cold start"
#: Of starts with a cold page cache, which wait for the disk.
COLD_ROUNDS = 1
COLD_SCRIPTS = ("begin", "fentry", "20 probes")
#: Functions that are there on every kernel, and called rarely.
_TWENTY = (
    "vfs_mkdir", "vfs_rmdir", "vfs_unlink", "vfs_rename", "vfs_symlink", "vfs_link", "vfs_mknod",
    "vfs_fsync_range", "vfs_truncate", "vfs_statfs", "do_fchownat", "ksys_sync", "set_user_nice",
    "do_exit", "tcp_close", "tcp_connect", "udp_sendmsg", "tcp_sendmsg", "inet_bind", "ip_rcv",
)  # fmt: skip

#: What ends by itself.
WHOLE = {"begin": "begin { exit() }"}
#: What is interrupted as soon as it is attached.
ATTACHED = {
    "fentry": "fentry:vfs_mkdir { @ = count(); }",
    "kprobe": "kprobe:vfs_mkdir { @ = count(); }",
    "tracepoint": "tracepoint:syscalls:sys_enter_mkdir { @[comm] = count(); }",
    "20 probes": " ".join(
        f'kprobe:{name} {{ @calls[probe, comm] = count(); printf("%d %s\\n", pid, comm); }}'
        for name in _TWENTY
    ),
    "kstack": "kprobe:vfs_mkdir { @[kstack, comm] = count(); }",
    "skboutput": 'fentry:icmp_rcv { skboutput("/tmp/start.pcap", args.skb, args.skb.len, 0); }',
}


def whole(tracer: Tracer, script: str) -> Figures:
    """Let a script run to its end."""
    with Run(tracer, script) as run:
        run.wait()
        return {("to exit", "s"): run.seconds, ("memory", "KiB"): run.usage.peak}


def attached(tracer: Tracer, script: str) -> Figures:
    """Attach a script, then interrupt it."""
    with Run(tracer, script) as run:
        seconds = run.attached()
        peak = run.memory()
        ending = run.stop()
        return {
            ("to attached", "s"): seconds,
            ("to exit", "s"): seconds + ending,
            ("memory", "KiB"): peak,
        }


def cold(tracer: Tracer, script: str) -> Figures:
    """Attach a script, or let it run to its end, when nothing of the tracer is in the page cache.

    What is read from the disk says more than seconds: a clock that counts instructions tells
    nothing of a disk, an image in memory little.
    """
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")
    with Run(tracer, script) as run:
        if script in WHOLE.values():
            run.wait()
        else:
            run.attached()
            run.stop()
        return {("CPU", "s"): run.usage.cpu, ("read", "KiB"): run.usage.read}


def warm_cases(tracers: Sequence[Tracer]) -> Iterator[Case]:
    """Each script with a warm page cache."""
    for scripts, work in ((WHOLE, whole), (ATTACHED, attached)):
        for name, script in scripts.items():
            yield Case(GROUP, name, tracers, work, (script,), warm_up=True)


def cold_cases(tracers: Sequence[Tracer], *, warm_up: bool) -> Iterator[Case]:
    """Some scripts with a cold page cache.

    :param warm_up: nobody has run these scripts before.
    """
    scripts = WHOLE | ATTACHED
    for name in COLD_SCRIPTS:
        arguments = (scripts[name],)
        yield Case(COLD, name, tracers, cold, arguments, warm_up=warm_up, rounds=COLD_ROUNDS)
