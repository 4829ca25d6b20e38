# SPDX-License-Identifier: Apache-2.0
"""What builtins and functions refuse, with which words, and where; and what they are worth."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any, cast

import pytest

from kcap.codegen.site import Runtime
from kcap.functions.events import ExitRequested, MapPrinted, Message, Printf, TextPrinted
from kcap.functions.names import cgroup_mounts, signal_text, syscall_text
from kcap.functions.registry import all_functions
from kcap.functions.sites import JoinSite
from kcap.functions.symbols import kernel_address
from kcap.kernel.helpers import Helper
from kcap.sema import tree
from kcap.sema.config import Config
from kcap.sema.types import UINT32, String, Type
from unit.functions.function_support import FakeRuntime, check, compiled, error, ir

REFUSED = [
    ('printf("%d")', "printf: Not enough arguments for format string (0 supplied, 1 expected)",
     'printf("%d")'),
    ('printf("%d", 1, 2)',
     "printf: Too many arguments for format string (2 supplied, 1 expected)",
     'printf("%d", 1, 2)'),
    ('printf("%d", comm)',
     "printf: %d specifier expects a value of type integer (string supplied)", "comm"),
    ('printf("%s", pid)',
     "printf: %s specifier expects a value of type string (integer supplied)", "pid"),
    ('printf("%-5r", pid)',
     "printf: %-5r specifier expects a value of type buffer (integer supplied)", "pid"),
    ('printf("%y", 1)', "printf: Unknown format string token: %y", '"%y"'),
    ("@ = hist(1, 6)", "hist: bits 6 must be 0..5", "6"),
    ("@ = lhist(1, 0, 10, 0)", "lhist() step must be >= 1 (0 provided)", "0"),
    ("@ = lhist(1, 10, 0, 1)",
     "lhist() min must be less than max (provided min 10 and max 0)", "10"),
    ("@ = lhist(1, 0, 1000000, 1)",
     "lhist() too many buckets, must be <= 1000 (would need 1000000)", "1"),
    ("@ = sum(comm)", "sum() only supports integer arguments (string provided)", "comm"),
    ("$x = arg0", 'The arg0 builtin can not be used with "begin" probes', "arg0"),
    ("$x = retval", 'The retval builtin can not be used with "begin" probes', "retval"),
    ('$x = reg("ip")', 'reg can not be used with "begin" probes', 'reg("ip")'),
    ('kprobe:f { $x = reg("foo") }',
     "'foo' is not a valid register on this architecture", '"foo"'),
    ("$x = nsecs(foo)", "Invalid timestamp mode: foo", "foo"),
    ("$x = ntop(comm)",
     "ntop() argument must be an integer or an array of 4 or 16 bytes (string provided)", "comm"),
    ('$x = pton("abc")', "pton() expects a string argument of an IPv4/IPv6 address, got abc",
     '"abc"'),
    ("@[1] = 1; delete(@)",
     "call to delete() with a single argument expects a map without explicit keys (scalar map)",
     "delete(@)"),
    ("@ = 1; print(len(@))",
     "call to len() expects a map with explicit keys (non-scalar map)", "@"),
    ("kprobe:f { $x = path(arg0) }", 'path can not be used with "kprobe" probes', "path(arg0)"),
    ('static_assert(1 == 2, "one is not two")', "one is not two",
     'static_assert(1 == 2, "one is not two")'),
    ('fail("got %d of %s", 5, "x")', "got 5 of x", 'fail("got %d of %s", 5, "x")'),
    ("$x = strcontains(comm, 1)", "strcontains() expects a string (integer provided)", "1"),
    ('clear(1)', "clear() expects a map to be provided", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "title", "place"), REFUSED)
def test_what_is_refused(script: str, title: str, place: str) -> None:
    found = error(script)
    assert found.title == title
    assert found.span is not None
    assert found.span.text == place


def test_a_return_probe_has_no_arguments_and_says_what_to_do() -> None:
    found = error("kretprobe:f { $x = arg0 }")
    assert found.help[0] == "save arg0 in a map in a kprobe probe, keyed by tid"


def assigned(script: tree.Script) -> list[tree.Expr]:
    """What the statements of a script's only probe, all of them assignments, assign."""
    body = script.programs[0].body
    return [each.value for each in body if isinstance(each, tree.AssignVariable) and each.value]


def value(text: str, **options: Any) -> Any:
    """The constant that an expression of a begin probe is."""
    (expr,) = assigned(check(f"$x = {text}", **options))
    while isinstance(expr, tree.Cast):
        expr = expr.operand
    constant: Any = expr  # of any literal class
    return constant.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("probe", b"begin"), ("probetype", b"special"), ('strncmp("hhvm", "hhvm-proc", 4)', 0),
        ('strcontains("abc", "b")', 1), ('strcontains("hello\\0world", "world")', 0),
        ('strcontains("hello world", "wo\\0rld")', 1), ('strcontains("", "")', 1),
        ('strstr("abab", "ba")', 1), ('strlen("hello")', 5), ('str_concat("a", "b")', b"ab"),
        ("strerror(22)", b"Invalid argument"), ("strerror(-1)", b"Operation not permitted"),
        ("signal_name(2)", b"Interrupt"), ("signal_name(0)", b"Unknown signal 0"),
        ("signal_name(1024)", b"N/A"), ("bswap((uint32)0x12345678)", 0x78563412),
        ("is_str(comm)", 1), ("is_str(pid)", 0), ("is_literal(1)", 1), ("is_ptr(curtask)", 1),
        ('str("hello", 3)', b"he"), ('getopt("a", 7)', 7), ('getopt("a")', 0),
        ('kfunc_exist("tcp_connect")', 1), ('kfunc_exist("nothing")', 0),
    ],
)  # fmt: skip
def test_what_is_known_at_compile_time(text: str, expected: Any) -> None:
    assert value(text) == expected


def test_str_holds_one_byte_more_than_the_limit() -> None:
    script = check("kprobe:f { $x = str(arg0); $y = str(arg0, 5) }", config=Config(max_strlen=64))
    assert [each.type for each in assigned(script)] == [String(65), String(5)]


@pytest.mark.parametrize("call", ["str(arg0, 66)", "buf(arg0, 66)"])
def test_a_length_above_the_limit_is_said_to_be_shortened(call: str) -> None:
    (warning,) = check(f"kprobe:f {{ print({call}) }}", config=Config(max_strlen=64)).warnings
    assert warning.title == (
        "length param (66) is too long and will be shortened to 64 bytes (see BPFTRACE_MAX_STRLEN)"
    )
    assert warning.span.text == call


@pytest.mark.parametrize(
    "call", ["str(arg0, 64)", "buf(arg0, 64)", 'str("x", 66)', "str(comm, 66)"]
)
def test_a_length_that_leaves_nothing_out_is_not_warned_of(call: str) -> None:
    assert check(f"kprobe:f {{ print({call}) }}", config=Config(max_strlen=64)).warnings == []


def test_pid_is_the_upper_half() -> None:
    text = ir("print(pid)")
    assert f"inttoptr (i64 {Helper.get_current_pid_tgid} to ptr)" in text
    assert "lshr i64" in text
    assert "lshr i64" not in ir("print(tid)")


def test_arguments_are_read_from_registers_and_slots() -> None:
    assert "getelementptr i8, ptr %ctx, i64 104" in ir("kprobe:f { print(arg1) }")
    assert "getelementptr i8, ptr %ctx, i64 8" in ir("fentry:tcp_connect { print(arg1) }")
    assert "getelementptr i8, ptr %ctx, i64 16" in ir("fexit:tcp_connect { print(retval) }")
    assert "getelementptr i8, ptr %ctx, i64 80" in ir("kretprobe:f { print(retval) }")


def test_str_reads_the_probes_memory() -> None:
    assert f"(i64 {Helper.probe_read_user_str} to ptr)" in ir("uprobe:f { print(str(arg0)) }")
    assert f"(i64 {Helper.probe_read_kernel_str} to ptr)" in ir("kprobe:f { print(str(arg0)) }")
    assert f"(i64 {Helper.probe_read_user_str} to ptr)" in ir("kprobe:f { print(str(uptr(arg0))) }")


def test_every_function_documents_itself() -> None:
    for name, function in all_functions().items():
        assert function.summary, name
        assert function.signatures, name
        assert function.arity[0] <= (function.arity[1] or 99), name


def test_the_helpers_of_a_call_are_known() -> None:
    script = check("kprobe:f { @ = str(arg0); @x = count() }")
    calls = [n for n in tree.walk(script.programs[0].body) if isinstance(n, tree.Call)]
    needed = {call.function.name: call.function.needs(call) for call in calls}
    assert needed["str"] == {Helper.probe_read_kernel_str}
    assert needed["count"] == {Helper.map_lookup_elem, Helper.map_update_elem}


# --- what user space does with events ---------------------------------------------------------


def events(script: str, data: Any = b"", runtime: Any = None, **options: Any) -> Any:
    """The events of the script's last site for a payload."""
    site = compiled(script, **options).sites[-1]
    return list(site.receive(b"headerXX" + data, 8, cast(Runtime, runtime or FakeRuntime())))


def test_printf_events() -> None:
    (event,) = events('kprobe:f { printf("%d %s\\n", (int32)arg0, comm) }',
                      (5).to_bytes(4, "little") + b"bash".ljust(16, b"\0"))  # fmt: skip
    assert isinstance(event, Printf)
    assert event.text == "5 bash\n"
    assert event.values == (5, "bash")


def test_errorf_events_carry_their_place() -> None:
    (event,) = events('errorf("bad %d", 1)', (1).to_bytes(8, "little"))
    assert isinstance(event, Message)
    assert event.span is not None
    assert (event.severity, event.text, event.span.text) == (
        "error", "bad 1", 'errorf("bad %d", 1)',
    )  # fmt: skip


def test_exit_asks_the_runtime() -> None:
    runtime = FakeRuntime()
    assert events("exit(3)", struct.pack("<Qi", 77, 3), runtime) == [ExitRequested(3)]
    assert runtime.calls == [("exit", 3)]


def test_print_reads_the_map() -> None:
    (event,) = events("@x = 1; print(@x)", runtime=FakeRuntime({"@x": [(None, 4)]}))
    assert isinstance(event, MapPrinted)
    assert (event.map.name, event.entries, event.top, event.div) == ("@x", [(None, 4)], 0, 0)


def test_clear_and_zero_ask_the_runtime() -> None:
    runtime = FakeRuntime()
    assert events("@x = 1; clear(@x)", runtime=runtime) == []
    assert events("@x = 1; zero(@x)", runtime=runtime) == []
    assert runtime.calls == [("clear", "@x"), ("zero", "@x")]


def test_cat_reads_as_much_as_it_may(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    runtime = FakeRuntime()
    assert events(f'cat("{path}")', runtime=runtime) == [TextPrinted("cat", "hello\n")]
    runtime.environment.config.max_cat_bytes = 2
    assert events(f'cat("{path}")', runtime=runtime) == [TextPrinted("cat", "he")]


def test_cat_of_what_is_not_there_is_an_error() -> None:
    (event,) = events('cat("/does/not/exist/file")')
    assert event.text == "failed to open file '/does/not/exist/file' (No such file or directory)"


def test_system_runs_a_command() -> None:
    (event,) = events('system("echo %d %d", 1, 2)', b"\1\2", unsafe=True)
    assert event == TextPrinted("syscall", "1 2\n")


def test_join_puts_the_separator_between() -> None:
    site = JoinSite(",")
    assert list(site.receive(b"12345678/bin/echo\0A\0", 8, cast(Runtime, FakeRuntime()))) == [
        TextPrinted("join", "/bin/echo,A\n")
    ]


# --- names --------------------------------------------------------------------------------------


def test_names_of_numbers() -> None:
    assert os.strerror(errno.EPERM) == "Operation not permitted"
    assert signal_text(9) == "Killed"
    assert syscall_text(-1) == "Unknown syscall"
    assert syscall_text(257 if os.uname().machine == "x86_64" else 56) == "openat"


def test_kernel_symbols_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_text("ffff0 T vfs_read\nfffff T vfs_read_more\tmod\n")
    assert kernel_address("vfs_read", str(path)) == 0xFFFF0
    assert kernel_address("vfs_rea", str(path)) == 0


def test_cgroup_hierarchies_have_names(tmp_path: Path) -> None:
    path = tmp_path / "mounts"
    path.write_text(
        "cg /sys/fs/cgroup cgroup2 rw 0 0\nx /mnt/cpu cgroup rw,cpu 0 0\n/ / ext4 rw 0 0\n"
    )
    assert cgroup_mounts(str(path)) == [("unified", "/sys/fs/cgroup"), ("cpu", "/mnt/cpu")]


def test_numbers_have_their_documented_types() -> None:
    script = check("$x = cpu")
    assert [each.type for each in assigned(script)] == [UINT32]


def test_has_key_wants_a_map_with_keys() -> None:
    found = error("@g = 2; if (has_key(@g, 2)) { }")
    assert found.title == "call to has_key() expects a map with explicit keys (non-scalar map)"


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        ("inet", "ntop(1)"), ("ksym_t", "ksym(1)"), ("username_t", "username"),
        ("macaddr_t", 'macaddr("abcdef")'), ("timestamp", 'strftime("%H", 1)'),
        ("cgroup_path_t", "cgroup_path(1)"),
    ],
)  # fmt: skip
def test_types_of_functions_can_be_declared(type_: Type, text: str) -> None:
    script = check(f"begin {{ let $x: {type_} = {text}; print($x); }}")
    assert script.warnings == []


@pytest.mark.parametrize("type_", ["inet", "timestamp", "cgroup_path_t"])
def test_a_declared_type_of_a_function_takes_nothing_else(type_: str) -> None:
    wanted = f"when variable already has a type '{type_}'"
    assert wanted in error(f"begin {{ let $x: {type_} = 5; }}").title
    assert wanted in error(f"begin {{ let $x: {type_}; $x = comm; }}").title


@pytest.mark.parametrize(
    ("feature", "use"),
    [("tseries", "@ = tseries(1, 1s, 5)"), ("typeinfo", "print(typeinfo(1).base_type)")],
)
def test_unstable_features_warn_or_are_refused_as_their_settings_say(
    feature: str, use: str
) -> None:
    def text(wish: str) -> str:
        return f"config = {{ unstable_{feature}={wish} }} begin {{ {use}; }}"

    (warning,) = check(text("warn")).warnings
    assert warning.title.startswith(f"Script is using an unstable feature: {feature}. ")
    assert f"{feature} feature is not enabled by default" in error(text("error")).title
    assert check(text("enable")).warnings == []


def test_tseries_warns_unless_told_otherwise() -> None:
    (warning,) = check("begin { @ = tseries(1, 1s, 5); }").warnings
    assert warning.title.endswith("in the config e.g. unstable_tseries=enable")


def test_the_configuration_is_read_with_and_without_parentheses() -> None:
    bare, called = (
        ir(f'begin {{ printf("%d", {c}.max_strlen); }}') for c in ("config", "config()")
    )
    assert bare == called
