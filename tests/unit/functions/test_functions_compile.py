# SPDX-License-Identifier: Apache-2.0
"""Every builtin and function goes through checking, code generation and LLVM, and what is made
of it can be kept for another start."""

import pytest

from kcap.codegen.compiled import Compiled
from kcap.plain import dumps, loads
from kcap.session.kept import without_types
from unit.functions.function_support import compiled


def keeps(result: Compiled) -> None:
    """What a trace wants of a compiled script comes back from its bytes."""
    contexts = [without_types(program.context) for program in result.programs]
    kept = [result.sites, result.maps, result.lost, list(result.script.maps.values()), contexts]
    sites, maps, lost, script_maps, _ = loads(dumps(kept))
    assert maps == result.maps
    assert [(c.kind, c.subject) for c in lost] == [(c.kind, c.subject) for c in result.lost]
    assert [type(site) for site in sites] == [type(site) for site in result.sites]
    for site, before in zip(sites, result.sites, strict=True):
        assert [str(t) for t in site.payload.elements] == [str(t) for t in before.payload.elements]
        assert site.payload.offsets == before.payload.offsets
    for after, map_ in zip(script_maps, result.script.maps.values(), strict=True):
        types = (str(map_.key), str(map_.value))
        assert (after.name, str(after.key), str(after.value)) == (map_.name, *types)


EXPRESSIONS = [
    "pid", "tid", "uid", "gid", "comm", "cpu", "numaid", "rand", "ncpus", "nsecs", "elapsed",
    "jiffies", "cgroup", "curtask", "probe", "probetype", "username", "nsecs(monotonic)",
    "nsecs(tai)", "nsecs(sw_tai)", "pid()", "pid(init)", "str(0)", "str(arg0)", "str(arg0, 5)",
    "str(arg0, arg1)", 'str("abc")', "buf(arg0, 8)", "buf(arg0, arg1)", 'buf("abc", 2)',
    "ksym(arg0)", "usym(arg0)", "ntop(arg0)", 'ntop(2, pton("127.0.0.1"))', 'ntop(pton("::1"))',
    "macaddr(arg0)", "bswap((uint16)arg0)", "bswap((uint32)arg0)", "bswap(arg0)",
    "bswap((uint8)arg0)", "kstack", "kstack(3)", "kstack(raw)", "ustack(perf, 5)",
    'strftime("%H:%M", nsecs)', "func", "reg(\"ip\")", "arg5", "arg6", "sarg0", "usermode",
    "len(kstack)", 'strncmp(comm, "bash", 4)', "strncmp(str(arg0), str(arg1), 200)",
    'strcontains(comm, "sh")', "strcontains(str(arg0, 64), str(arg1, 32))",
    'strstr(str(arg0), "needle")', "strlen(comm)", "strlen((int8 *)arg0)", "strcap(comm)",
    'str_concat(comm, "!")', "str_concat(str(arg0), comm)", "memcmp(comm, comm, 16)",
    "strerror(arg0)", "strerror(7)", "signal_name(arg0)", "syscall_name(1)", "comm(1)",
    "cgroup_path(cgroup)", 'cgroup_path(1, "unified")', "ppid", "ppid(curtask)", "pcomm",
    "leader_tid", "leader_comm", "is_err(curtask)", "kptr(curtask)", "uptr(arg0)", "is_str(comm)",
    "is_array(comm)", "is_integer(pid)", "is_unsigned_integer(pid)", "is_ptr(curtask)",
    "is_literal(5)", "config().stack_mode", "default_str_length()",
    'getopt("x")', 'getopt("x", 5)', 'getopt("x", "y")', 'kfunc_exist("tcp_connect")',
]  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions(expression: str) -> None:
    script = f"kprobe:f {{ $x = {expression}; print($x); @[{expression}] = 1; @y = $x; }}"
    result = compiled(script)
    assert len(result.programs) == 1
    keeps(result)


STATEMENTS = [
    'printf("%d %s %p\\n", pid, comm, curtask)', 'printf("%r", buf(comm))', 'errorf("a %d", 1)',
    'warnf("b")', 'cat("/proc/%d/maps", pid)', "time()", 'time("%H")', "exit()", "exit(3)",
    "@ = count(); print(@); clear(@); zero(@)", "@[pid] = count(); print(@[pid])",
    "@ = sum(3); print(@ + 1)", "@[comm, pid] = sum(nsecs)", "@ = min(-1); if (@ < 3) { exit() }",
    "@ = max(nsecs); print(@)", "@[pid] = avg(pid); print(@[pid])", "@ = avg(-5); $x = (int64)@",
    "@ = stats(5)", "@[1] = stats(nsecs)", "@ = hist(5)", "@[comm] = hist(nsecs, 3)",
    "@[pid, comm] = hist(-1)", "@ = lhist(5, 0, 100, 10)", "@[pid] = lhist(nsecs, -10, 100, 3)",
    "@[1] = hist(5); print(@[1])", "@[1] = hist(2); delete(@, 1)", "@ = hist(1); delete(@)",
    "@ = tseries(5, 1s, 10)", '@[pid] = tseries(-5, 100ms, 20, "min")',
    '@ = tseries(nsecs, 1s, 2, "avg")', '@ = tseries(1, 1s, 2, "sum")',
    "@[1] = 1; delete(@, 1); delete(@[1])", "@ = 1; delete(@)",
    "@[1, \"a\"] = 1; if (has_key(@, (1, \"a\"))) { exit() }", "@[1] = 1; print(len(@))",
    "print((1, comm, (2, pid)))", "print(@x); @x = 5", "@[1] = 5; print(@, 3, 2)",
    "@ = count(); @y[1] = (int64)@", 'assert(pid == 1, "not init")', "join((int8 **)5)",
    'join((int8 **)5, ",")', 'debugf("a")', 'debugf("%s %d %x", comm, 1, 16)',
    "@[2] = (1, \"hello\"); let $v; if (find(@, 2, $v)) { print($v) }",
    'static_assert(1 == 1, "no")', "@[1] = count(); for ($kv : @) { print($kv) }",
]  # fmt: skip


@pytest.mark.parametrize("statement", STATEMENTS)
def test_statements(statement: str) -> None:
    result = compiled(statement)
    assert len(result.programs) == 1
    keeps(result)


@pytest.mark.parametrize(
    "statement",
    ['system("echo %d", pid)', "signal(9)", 'signal("SIGSTOP")', "signal_thread(pid)",
     "override(0)", 'write_user(arg0, "x", 1)'],
)  # fmt: skip
def test_unsafe_statements(statement: str) -> None:
    result = compiled(f"kprobe:f {{ {statement} }}", unsafe=True)
    assert result.programs
    keeps(result)


TYPED = [
    "args.sk.mac", "macaddr(args.sk.mac)", "ntop(args.sk.v4)", "ntop(args.sk.v6)",
    "buf(args.sk.v6)", "path(args.sk.f_path)", "path(args.sk.f_path, 48)", "socket_cookie(args.sk)",
    "arg0", "arg1", "func", "args.n",
]  # fmt: skip


@pytest.mark.parametrize("expression", TYPED)
def test_expressions_of_tracing_programs(expression: str) -> None:
    result = compiled(f"fentry:tcp_connect {{ @ = {expression}; print({expression}); }}")
    assert result.programs
    keeps(result)


@pytest.mark.parametrize("probe", ["kretprobe:f", "fexit:tcp_connect"])
def test_retval(probe: str) -> None:
    assert compiled(f'{probe} {{ printf("%d", retval); @ = hist(retval); }}').programs
