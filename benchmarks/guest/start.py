# SPDX-License-Identifier: Apache-2.0
"""Start: from the command to attached probes, and to the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.guest.rows import Figures, Row, in_turn
from benchmarks.guest.tracers import Run, Tracer

GROUP = "start"
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
        return {("to exit", "s"): run.seconds, ("CPU", "s"): run.usage.cpu}


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


def rows(tracers: Sequence[Tracer], rounds: int) -> Iterator[Row]:
    """Warm starts of each script, and two with a cold page cache."""
    for tracer in tracers:
        whole(tracer, WHOLE["begin"])  # brings it into the page cache
    for name, script in WHOLE.items():
        yield from in_turn(GROUP, name, tracers, rounds, whole, script)
    for name, script in ATTACHED.items():
        yield from in_turn(GROUP, name, tracers, rounds, attached, script)
    for name in ("kprobe",):
        yield from in_turn(GROUP, f"{name}, cold", tracers, rounds, cold, ATTACHED[name])


def cold(tracer: Tracer, script: str) -> Figures:
    """Attach a script when nothing of the tracer is in the page cache."""
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")
    figures = attached(tracer, script)
    return {("to attached", "s"): figures["to attached", "s"]}
