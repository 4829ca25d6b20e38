#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write src/kcap/sema/constants.tsv: constants of the kernel's headers that BTF does not have.

usage: update_constants.py VERSION

Names and values of the integer macros in the headers below, as installed on this machine (package
linux-libc-dev or kernel-headers; VERSION is its version), evaluated with gcc. Of the C library
only what the kernel has in a header that is not installed (``AF_*``: include/linux/socket.h).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

TABLE = Path(__file__).parent.parent / "src/kcap/sema/constants.tsv"

HEADERS = """
asm/errno.h asm/ioctls.h asm/mman.h asm/poll.h asm/signal.h asm/stat.h linux/bpf.h
linux/bpf_common.h linux/capability.h linux/close_range.h linux/elf.h linux/errno.h
linux/eventpoll.h linux/fcntl.h linux/filter.h linux/fs.h linux/futex.h linux/icmp.h
linux/icmpv6.h linux/if.h linux/if_arp.h linux/if_ether.h linux/if_link.h linux/if_packet.h
linux/if_tun.h linux/igmp.h linux/in.h linux/in6.h linux/inotify.h linux/io_uring.h linux/ioctl.h
linux/ioprio.h linux/ip.h linux/ipv6.h linux/keyctl.h linux/limits.h linux/magic.h
linux/membarrier.h linux/memfd.h linux/mempolicy.h linux/mman.h linux/mount.h linux/mptcp.h
linux/neighbour.h linux/net.h linux/net_namespace.h linux/netdevice.h linux/netfilter.h
linux/netfilter/nf_conntrack_common.h linux/netfilter/nf_tables.h linux/netfilter_ipv4.h
linux/netfilter_ipv6.h linux/netlink.h linux/nsfs.h linux/openat2.h linux/perf_event.h
linux/pkt_cls.h linux/pkt_sched.h linux/poll.h linux/prctl.h linux/ptrace.h linux/quota.h
linux/random.h linux/reboot.h linux/resource.h linux/route.h linux/rtnetlink.h linux/sched.h
linux/sctp.h linux/seccomp.h linux/securebits.h linux/signalfd.h linux/sock_diag.h
linux/sockios.h linux/stat.h linux/taskstats.h linux/tcp.h linux/time.h linux/timerfd.h
linux/tipc.h linux/types.h linux/udp.h linux/uio.h linux/un.h linux/unix_diag.h
linux/userfaultfd.h linux/vm_sockets.h linux/wait.h linux/xattr.h linux/xfrm.h
""".split()  # noqa: SIM905 -- a list would be ninety lines

LIBRARY = {"sys/socket.h": re.compile(r"(AF|PF|SOCK|MSG|SO|SOL|SHUT|SCM)_[A-Z0-9_]+")}

KERNEL_ONLY = {
    "linux/mm.h": {
        "VM_NONE": 0x0, "VM_READ": 0x1, "VM_WRITE": 0x2, "VM_EXEC": 0x4, "VM_SHARED": 0x8,
        "VM_MAYREAD": 0x10, "VM_MAYWRITE": 0x20, "VM_MAYEXEC": 0x40, "VM_MAYSHARE": 0x80,
        "VM_GROWSDOWN": 0x100, "VM_PFNMAP": 0x400, "VM_LOCKED": 0x2000, "VM_IO": 0x4000,
        "VM_SEQ_READ": 0x8000, "VM_RAND_READ": 0x10000, "VM_DONTCOPY": 0x20000,
        "VM_DONTEXPAND": 0x40000, "VM_ACCOUNT": 0x100000, "VM_NORESERVE": 0x200000,
        "VM_HUGETLB": 0x400000,
    },
    "linux/sched.h": {
        "TASK_RUNNING": 0, "TASK_INTERRUPTIBLE": 1, "TASK_UNINTERRUPTIBLE": 2, "TASK_COMM_LEN": 16,
    },
    "linux/kdev_t.h": {"MINORBITS": 20, "MINORMASK": 0xFFFFF},
    "vdso/time64.h": {
        "NSEC_PER_SEC": 10**9, "NSEC_PER_MSEC": 10**6, "NSEC_PER_USEC": 1000, "USEC_PER_SEC": 10**6,
        "USEC_PER_MSEC": 1000, "MSEC_PER_SEC": 1000,
    },
}  # fmt: skip
"""Macros of headers that are not for user space, the same in all kernels that kcap runs on."""

_MARKER = re.compile(r'# \d+ "([^"]*)"')
_DEFINE = re.compile(r"#define ([A-Za-z]\w*) (.+)")


def macros(header: str) -> dict[str, str]:
    """Object-like macros that a header defines, itself or by what it includes, and where."""
    source = f"#include <linux/types.h>\n#include <{header}>\n"
    command = ["gcc", "-E", "-dD", "-x", "c", "-"]
    found = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if found.returncode:
        print(f"{header}: left out: {found.stderr.splitlines()[0]}", file=sys.stderr)
        return {}
    names: dict[str, str] = {}
    current = ""
    for line in found.stdout.splitlines():
        if (marker := _MARKER.match(line)) is not None:
            current = re.sub(r"^.*/include/|^[a-z0-9_]*-linux-gnu/", "", marker[1])
            current = re.sub(r"^[a-z0-9_]*-linux-gnu/", "", current)
        elif (match := _DEFINE.fullmatch(line)) is not None:
            names[match[1]] = current
    return names


def program(header: str, names: list[str]) -> str:
    """C that prints the values of macros, one a line; line 5 is for the first of them."""
    rows = "".join(
        f"{{__builtin_types_compatible_p(__typeof__({n}), unsigned long) || "
        f"__builtin_types_compatible_p(__typeof__({n}), unsigned long long), (long long)({n})}},\n"
        for n in names
    )
    return (
        f"#include <linux/types.h>\n#include <{header}>\n#include <stdio.h>\n"
        f"static const struct {{ int u; long long v; }} t[] = {{\n{rows}}};\n"
        "int main(void) { for (unsigned long i = 0; i < sizeof t / sizeof *t; i++) "
        'printf(t[i].u ? "%llu\\n" : "%lld\\n", t[i].v); return 0; }\n'
    )


def values(header: str, names: list[str]) -> dict[str, int]:
    """Those of the macros that are integer constants, with their values."""
    with tempfile.TemporaryDirectory() as directory:
        source, binary = Path(directory, "values.c"), Path(directory, "values")
        while names:
            source.write_text(program(header, names))
            command = ["gcc", "-w", "-fmax-errors=0", "-o", str(binary), str(source)]
            built = subprocess.run(command, capture_output=True, text=True, check=False)
            if built.returncode == 0:
                output = subprocess.run([binary], capture_output=True, text=True, check=True)
                return dict(zip(names, map(int, output.stdout.split()), strict=True))
            lines = re.findall(r"values\.c:(\d+):\d+: error", built.stderr)
            bad = {int(line) - 5 for line in lines}
            kept = [name for index, name in enumerate(names) if index not in bad]
            if len(kept) == len(names):
                break
            names = kept
    return {}


def main() -> None:
    """Write the table."""
    version = sys.argv[1]
    library = macros("stdio.h")
    table: dict[str, tuple[int, str]] = {}
    for header in HEADERS:
        found = macros(header)
        names = [n for n in found if n not in library and n not in table]
        table |= {n: (value, found[n]) for n, value in values(header, names).items()}
    for header, pattern in LIBRARY.items():
        names = [n for n in macros(header) if pattern.fullmatch(n)]
        for name, value in values(header, names).items():
            table.setdefault(name, (value, "linux/socket.h"))
            if table[name][1].startswith("bits/"):
                table[name] = (value, "linux/socket.h")
    for header, constants in KERNEL_ONLY.items():
        table |= {name: (value, header) for name, value in constants.items()}
    lines = [f"# Linux {version} on x86-64: name, value, header; made by tools/update_constants.py"]
    lines += [f"{name}\t{value}\t{header}" for name, (value, header) in sorted(table.items())]
    TABLE.write_text("\n".join(lines) + "\n")
    print(f"{len(table)} constants")


if __name__ == "__main__":
    main()
