# SPDX-License-Identifier: Apache-2.0
"""Functions on a real kernel: the verifier takes their code, and they print what they should."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import kcap
from kcap.errors import KcapError
from kcap.functions.clock import constants
from kcap.kernel.maps import Map
from kcap.kernel.programs import Program
from kcap.output.text import TextRenderer
from kcap.probes.registry import probe_type
from kcap.records import replace
from kcap.session.features import probe_features
from kcap.session.script import Options

EXPRESSIONS = [
    "pid", "tid", "uid", "gid", "comm", "cpu", "numaid", "rand", "nsecs", "elapsed", "jiffies",
    "cgroup", "curtask", "username", "nsecs(monotonic)", "nsecs(sw_tai)", "str(arg0)",
    "str(arg0, 5)", "str(arg0, arg1)", "buf(arg0, 8)", "buf(arg0, arg1)", "ksym(arg0)",
    "usym(arg0)", "ntop(arg0)", 'ntop(pton("::1"))', "macaddr(arg0)", "bswap((uint16)arg0)",
    "bswap(arg0)", "kstack", "kstack(3)", "ustack(perf, 5)", 'strftime("%H", nsecs)', "func",
    'reg("ip")', "arg5", "arg6", "sarg0", "usermode", "len(kstack)", 'strncmp(comm, "bash", 4)',
    "strncmp(str(arg0), str(arg1), 200)", 'strcontains(comm, "sh")',
    "strcontains(str(arg0, 64), str(arg1, 32))", 'strstr(str(arg0), "needle")', "strlen(comm)",
    "strlen((int8 *)arg0)", 'str_concat(comm, "!")', "str_concat(str(arg0), comm)",
    "memcmp(comm, comm, 16)", "strerror((int32)arg0)", "cgroup_path(cgroup)", "ppid", "pcomm",
    "leader_tid", "leader_comm", "is_err(curtask)", "uptr(arg0)",
    'percpu_kaddr("process_counts", cpu)',
]  # fmt: skip

STATEMENTS = [
    'printf("%d %s %p\\n", pid, comm, curtask)', 'printf("%r", buf(comm))', 'errorf("a %d", 1)',
    "time()", "exit(3)", "@ = count(); print(@)", "@[pid] = count()",
    "@[comm, pid] = sum(nsecs)", "@[1] = min(nsecs)", "@[1] = max(5)", "@[pid] = avg(pid)",
    "@[1] = stats(nsecs)", "@[comm] = hist(nsecs, 3)", "@[pid, comm] = hist(-1)",
    "@[pid] = lhist(nsecs, -10, 100, 3)", "@[1] = hist(2); delete(@, 1)",
    '@[pid] = tseries(-5, 100ms, 20, "min")', '@ = tseries(nsecs, 1s, 2, "avg")',
    '@[1, "a"] = 1; if (has_key(@, (1, "a"))) { exit() }', "join((int8 **)arg0)",
    'debugf("%s %d %x", comm, 1, 16)', "@[2] = 5; let $v; if (find(@, 2, $v)) { print($v) }",
    'cat("/proc/%d/maps", pid)', "@[1] = 1; delete(@, 1)",
]  # fmt: skip

#: Need bpf_map_lookup_percpu_elem (5.19) or bpf_for_each_map_elem (5.13).
NEWER_STATEMENTS = [
    "@ = count(); if (@ > 5) { exit() }", "@[1] = avg(3); print(@[1])", "@ = min(-1); print(@ + 1)",
    "@[1] = 1; print(len(@))",
]  # fmt: skip


def renamed(statement: str, index: int) -> str:
    """The statement with maps of its own."""
    return re.sub(r"@(\w*)", rf"@s{index}\1", statement)


def script() -> tuple[str, list[str]]:
    """One program for each expression and statement, and what each is for."""
    release = tuple(int(n) for n in os.uname().release.split(".")[:2])
    statements = STATEMENTS + (NEWER_STATEMENTS if release >= (5, 19) else [])
    # A hash map of 5.10 takes keys of up to 512 bytes.
    lines, subjects = ["config = { max_strlen = 400 }"], []
    for index, text in enumerate(EXPRESSIONS):
        lines.append(
            f"kprobe:vfs_read {{ $x = {text}; print($x); @k{index}[$x] = 1; @v{index} = $x }}"
        )
        subjects.append(text)
    for index, text in enumerate(statements):
        lines.append(f"kprobe:vfs_read {{ {renamed(text, index)} }}")
        subjects.append(text)
    return "\n".join(lines), subjects


def test_the_verifier_takes_what_functions_emit() -> None:
    text, subjects = script()
    checked = kcap.compile(text)
    compiled = checked.generate(probe_features(checked.script, checked.system))
    maps = {spec.name: Map.create(spec) for spec in compiled.maps}
    readings = tuple(constants().items())
    refused = []
    for subject, program in zip(subjects, compiled.programs, strict=True):
        kind = probe_type(program.context.provider)
        for load in kind.load_specs(program.context, checked.system):
            try:
                spec = load.apply(program.spec)
                spec = replace(spec, constants=spec.constants + readings)
                Program.load(spec, maps).close()
            except KcapError as error:
                refused.append(f"{subject}: {error}\n{str(getattr(error, 'log', ''))[-800:]}")
    for opened in maps.values():
        opened.close()
    assert not refused, "\n\n".join(refused)


def run(text: str, **options: object) -> str:
    """What a script prints to standard output."""
    printed = []
    with kcap.trace(text, options=Options(**options)) as trace:  # type: ignore[arg-type]
        renderer = TextRenderer(trace.runtime.environment, quiet=True)
        for event in trace:
            printed.append(renderer.output(event))
    return "".join(printed)


def test_values_are_printed_as_the_language_says() -> None:
    output = run(
        """
        begin {
          printf("%hhx %hx %x %jx\\n", 0x12345678abcdef, 0x12345678abcdef, 0x12345678abcdef,
                 0x12345678abcdef);
          printf("%d %s|%5s|%04x|%c\\n", pid, comm, "ba", 2, 0x41);
          print((1, -2, "string", (4, 5)));
          print(buf("ok\\0", 3));
          printf("%s %s %s\\n", ntop(0x0100007f), ntop(pton("::1")), ntop(2, pton("127.0.0.1")));
          print(strncmp("hhvm", str_concat("hh", "vm-proc"), 4));
          print(strcontains(comm, "x-no-such"));
          print(strstr(str_concat("aba", "bac"), "bac"));
          print(strlen(comm) == strlen(str_concat("", comm)));
          @s = sum(3); @s = sum(9);
          @c[1] = count(); @c[2] = count(); @c[1] = count();
          @h = hist(-1); @h = hist(2); @h = hist(3); @h = hist(7); @h = hist(20);
          @l[1] = lhist(2, 0, 10, 2); @l[1] = lhist(3, 0, 10, 2); @l[1] = lhist(11, 0, 10, 2);
          @a = avg(1); @a = avg(2); @a = avg(6);
          @m = max(-3); @m = max(-5);
          @st["a"] = stats(1); @st["a"] = stats(3);
          exit(4);
        }
        """
    )
    half = "@" * 26
    full = "@" * 52
    comm = Path("/proc/self/comm").read_text().strip()
    assert output == (
        "ef cdef 78abcdef 12345678abcdef\n"
        f"{os.getpid()} {comm}|   ba|0002|A\n"
        "(1, -2, string, (4, 5))\n"
        "ok\\x00\n"
        "127.0.0.1 ::1 127.0.0.1\n"
        "0\n"
        "false\n"
        "3\n"
        "true\n"
        "\n\n"
        "@a: 3\n"
        "@c[2]: 1\n@c[1]: 2\n"
        "@h:\n"
        f"(..., 0)               1 |{half:<52}|\n"
        f"[0]                    0 |{'':<52}|\n"
        f"[1]                    0 |{'':<52}|\n"
        f"[2, 4)                 2 |{full}|\n"
        f"[4, 8)                 1 |{half:<52}|\n"
        f"[8, 16)                0 |{'':<52}|\n"
        f"[16, 32)               1 |{half:<52}|\n"
        "\n"
        "@l[1]:\n"
        f"[2, 4)                 2 |{full}|\n"
        f"[4, 6)                 0 |{'':<52}|\n"
        f"[6, 8)                 0 |{'':<52}|\n"
        f"[8, 10)                0 |{'':<52}|\n"
        f"[10, ...)              1 |{half:<52}|\n"
        "\n"
        "@m: -3\n"
        "@s: 12\n"
        "@st[a]: { .count = 2, .average = 2, .total = 4 }\n"
    )


@pytest.fixture
def readers() -> Iterator[None]:
    """A process that reads a file ten times a second."""
    loop = "while :; do cat /proc/version >/dev/null; sleep 0.1; done"
    with subprocess.Popen(["/bin/sh", "-c", loop]) as process:
        yield
        process.kill()


@pytest.mark.usefixtures("readers")
def test_stacks_are_printed_by_name() -> None:
    output = run(
        """
        kprobe:vfs_read {
          @[kstack(2)] = count();
          printf("%s %s\\n", func, ksym(reg("ip")));
          exit();
        }
        """
    )
    lines = output.splitlines()
    assert lines[0] == "vfs_read vfs_read"
    at = lines.index("@[")
    assert re.fullmatch(r"    vfs_read\+\d+", lines[at + 1])
    assert re.fullmatch(r"    \w+\+\d+", lines[at + 2])
    assert re.fullmatch(r"\]: \d+", lines[at + 3])
