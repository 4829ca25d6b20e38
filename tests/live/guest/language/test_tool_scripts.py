# SPDX-License-Identifier: Apache-2.0
"""Scripts of the kinds that people keep as tools, in the old spellings and the new: what they print
under a little work."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

import kcap
from kcap.output.text import TextRenderer
from support import PATIENCE, silent

PATH = "/tmp/kcap-tool-scripts"
TIME = r"\d\d:\d\d:\d\d"
HISTOGRAM = r"^@usecs: *\n[\[(]\S.* \d+ \|@* *\|$"
#: How often the work is done at least.
ROUNDS = 10

FILES = """
#!/usr/bin/env kcap
BEGIN { printf("%-7s %-15s %3s %s\\n", "PID", "COMM", "ERR", "PATH"); }
tracepoint:syscalls:sys_enter_openat { @name[tid] = args->filename; }
tracepoint:syscalls:sys_exit_openat
/@name[tid]/
{
  $failed = args->ret < 0 ? -args->ret : 0;
  printf("%-7d %-15s %3d %s\\n", pid, comm, $failed, str(@name[tid]));
  delete(@name[tid]);
}
END { clear(@name); }
"""

PROGRAMS = """
config = { max_strlen = 128 }
tracepoint:syscalls:sys_enter_execve {
  printf("%s %d %d ", strftime("%H:%M:%S", nsecs), pid, ppid);
  join(args.argv, "|");
}
"""

CONNECTIONS = """
#include <net/sock.h>
macro addresses($sk, from, to) {
  printf("%s %s %s:%d", from, to, ntop($sk.__sk_common.skc_daddr), bswap($sk.__sk_common.skc_dport))
}
BEGIN { @states[(uint64)1] = "ESTABLISHED"; @states[2] = "SYN_SENT"; }
kprobe:tcp_connect {
  $sk = (struct sock *)arg0;
  if ($sk->__sk_common.skc_family == AF_INET) {
    time("%H:%M:%S ");
    $state = @states[$sk->__sk_common.skc_state];
    printf("%d ", pid);
    addresses($sk, "connect", $state == "" ? "-" : $state);
    printf("\\n");
  }
}
kretprobe:inet_csk_accept /retval != 0/ {
  $sk = (struct sock *)retval;
  printf("accept %s:%d %d/%d\\n", ntop(AF_INET, $sk->__sk_common.skc_rcv_saddr),
         $sk->__sk_common.skc_num, $sk->sk_ack_backlog, $sk->sk_max_ack_backlog);
}
END { clear(@states); }
"""

COUNTS = """
tracepoint:raw_syscalls:sys_enter { @calls[comm] = count(); }
tracepoint:sched:sched_wakeup, tracepoint:sched:sched_wakeup_new { @woken[args.pid] = nsecs; }
tracepoint:sched:sched_switch {
  $since = @woken[args.next_pid];
  if ($since) { @usecs = hist((nsecs - $since) / 1000); }
  delete(@woken[args.next_pid]);
}
kprobe:vfs_writ*, kprobe:vfs_fsync { @[func] = count(); }
interval:ms:300 { time("%H:%M:%S\\n"); print(@); clear(@); }
END { print(@calls, 3); clear(@calls); clear(@woken); clear(@); }
"""

LOST = """
tracepoint:skb:kfree_skb /args.protocol == 0x0800/ {
  $skb = (struct sk_buff *)args.skbaddr;
  $ip = (struct iphdr *)($skb.head + $skb.network_header);
  if ($ip.daddr == (uint32)pton("10.99.0.2")) {
    time("%H:%M:%S ");
    printf("dropped %s:%d %s\\n", ntop($ip.daddr), $ip.protocol, kstack(2));
  }
}
tracepoint:tcp:tcp_retransmit_skb /args.dport == 81/ {
  $state = args.state == TCP_SYN_SENT ? "SYN" : "";
  printf("again %s:%d %s\\n", ntop(args.daddr), args.dport, $state);
}
"""

DISKS = """
tracepoint:block:block_rq_issue { @started[args.dev, args.sector] = nsecs; }
tracepoint:block:block_rq_complete /@started[args.dev, args.sector]/ {
  @usecs = hist((nsecs - @started[args.dev, args.sector]) / 1000);
  delete(@started, (args.dev, args.sector));
}
END { clear(@started); }
"""


def open_files() -> None:
    with open(PATH, "w") as file:
        file.write("x")
    assert not os.path.exists(f"{PATH}-missing")
    with pytest.raises(FileNotFoundError):
        os.open(f"{PATH}-missing", os.O_RDONLY)


def start_programs() -> None:
    subprocess.run(["/bin/true", "one", "two words"], check=True)


def connect() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen(7)
        client.connect(server.getsockname())
        server.accept()[0].close()


def write_through() -> None:
    with open(PATH, "wb", buffering=0) as file:
        file.write(os.urandom(8192))
        os.fsync(file.fileno())


@pytest.fixture(scope="module")
def nobody() -> Iterator[None]:
    """A network in which no neighbour answers; packets to one of them are sent all the same."""
    silent.make("kcap-l")
    yield
    subprocess.run(["ip", "link", "delete", "kcap-l0"], check=True)


def printed(script: str, work: Callable[[], None], wanted: tuple[str, ...]) -> str:
    """What a script prints beside some work, and at its end.

    :param wanted: regular expressions: it goes on until it has printed what matches each.
    """
    text, stop, rounds = "", threading.Event(), 0

    def repeat() -> None:
        nonlocal rounds
        while not stop.wait(0.1):
            work()
            rounds += 1

    def look() -> None:
        if rounds >= ROUNDS and all(re.search(each, text, re.M) for each in wanted):
            trace.stop()

    worker = threading.Thread(target=repeat)
    with kcap.trace(script.strip()) as trace:
        trace.attach()
        trace.on_tick = look
        renderer = TextRenderer(trace.runtime.environment, quiet=True)
        end = threading.Timer(PATIENCE, trace.stop)
        worker.start()
        end.start()
        try:
            for event in trace:
                text += renderer.output(event)
        finally:
            end.cancel()
            end.join()
            stop.set()
            worker.join()
    return text


def test_a_tool_for_lost_packets_prints_where_they_are_dropped_and_what_is_sent_again(
    nobody: None,
) -> None:
    with contextlib.ExitStack() as sockets:

        def connect_to_nobody() -> None:
            for address in (silent.UNREACHABLE, silent.SILENT) if not sockets_made else ():
                made = sockets.enter_context(socket.socket())
                made.setblocking(False)
                made.connect_ex((address, 81))
                sockets_made.append(made)

        sockets_made: list[socket.socket] = []
        wanted = (
            rf"^{TIME} dropped 10\.99\.0\.2:6 \n +\w+\+\d+\n +\w+\+\d+$",
            r"^again 10\.99\.0\.3:81 SYN$",
        )
        text = printed(LOST, connect_to_nobody, wanted)
    for each in wanted:
        assert re.search(each, text, re.M), f"no {each} in\n{text}"


@pytest.mark.parametrize(
    ("script", "work", "wanted", "at_end"),
    [
        (FILES, open_files, (
            r"^PID     COMM            ERR PATH$",
            rf"^{os.getpid()} +\S+ +0 {PATH}$",
            rf"^{os.getpid()} +\S+ +2 {PATH}-missing$",
        ), ()),
        (PROGRAMS, start_programs, (
            rf"^{TIME} \d+ \d+ /bin/true\|one\|two words$",
        ), ()),
        (CONNECTIONS, connect, (
            rf"^{TIME} {os.getpid()} connect SYN_SENT 127\.0\.0\.1:\d+$",
            r"^accept 127\.0\.0\.1:\d+ \d+/7$",
        ), ()),
        (COUNTS, open_files, (
            rf"^{TIME}\n@\[vfs_write\]: \d+$",
        ), (r"^@calls\[\S+\]: \d+$", HISTOGRAM)),
        (DISKS, write_through, (), (HISTOGRAM,)),
    ],
    ids=["files", "programs", "connections", "counts", "disks"],
)  # fmt: skip
def test_a_tool_prints_what_its_kind_prints(
    script: str, work: Callable[[], None], wanted: tuple[str, ...], at_end: tuple[str, ...]
) -> None:
    text = printed(script, work, wanted)
    for each in wanted + at_end:
        assert re.search(each, text, re.M), f"no {each} in\n{text}"
