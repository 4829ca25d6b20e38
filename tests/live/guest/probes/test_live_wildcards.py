# SPDX-License-Identifier: Apache-2.0
"""Wildcards: one program serves all targets, and still tells them apart."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import kcap
from kcap.functions import events
from kcap.output.text import TextRenderer
from kcap.probes import kprobe, serving
from kcap.probes.system import System
from kcap.session.options import Options
from kcap.session.trace import Trace

SENT = b"hello"


def exchange() -> None:
    """Send something over a TCP connection to this machine itself."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as peer:
            client.sendall(SENT)
            assert peer.recv(10) == SENT


@contextmanager
def traced(script: str) -> Iterator[Trace]:
    with kcap.trace(script) as trace:
        trace.attach()
        yield trace


def entries(trace: Trace, name: str = "@") -> dict[Any, Any]:
    return dict(trace.runtime.read_map(trace.checked.script.maps[name]))


def printed(trace: Trace) -> str:
    """What would be printed of the maps."""
    renderer = TextRenderer(trace.runtime.environment)
    maps = trace.checked.script.maps.values()
    return "".join(
        renderer.output(events.MapPrinted(map_, trace.runtime.read_map(map_))) for map_ in maps
    )


def programs(trace: Trace) -> int:
    """How many programs the compiler made."""
    return len(trace.compiled.programs)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "kprobe:tcp_v4_c* { @[probe, func] = count(); }",
            "@[kprobe:tcp_v4_connect, tcp_v4_connect]: 1\n",
        ),
        (
            "kretprobe:tcp_v4_c* { @[probe, func] = count(); }",
            "@[kretprobe:tcp_v4_connect, tcp_v4_connect]: 1\n",
        ),
        (
            "fentry:tcp_v4_c* { @[probe, func] = count(); }",
            "@[fentry:vmlinux:tcp_v4_connect, tcp_v4_connect]: 1\n",
        ),
        (
            "fexit:tcp_v4_c* { @[probe, func] = count(); }",
            "@[fexit:vmlinux:tcp_v4_connect, tcp_v4_connect]: 1\n",
        ),
        (
            "tracepoint:syscalls:sys_enter_conn* { @[probe, 1] = count(); }"
            "tracepoint:syscalls:sys_e*_connect { @[probe, 2] = count(); }",
            "@[tracepoint:syscalls:sys_enter_connect, 2]: 1\n",
        ),
    ],
)
def test_one_program_tells_which_target_fired(script: str, expected: str) -> None:
    with traced(script) as trace:
        exchange()
        assert expected in printed(trace)
    assert programs(trace) == script.count("{")


@pytest.mark.parametrize("probe", ["kprobe", "kretprobe"])
def test_functions_that_are_attached_one_by_one_are_found_by_their_addresses(
    monkeypatch: pytest.MonkeyPatch, probe: str
) -> None:
    monkeypatch.setattr(kprobe, "MANY_EVENTS", 2)
    without = ("kprobe_multi",)
    script = f"{probe}:tcp_v4_* {{ @[probe, func] = count(); }}"
    with kcap.trace(script, options=Options(without=without)) as trace:
        trace.attach()
        exchange()
        assert f"@[{probe}:tcp_v4_connect, tcp_v4_connect]: 1\n" in printed(trace)
        context = trace.compiled.programs[0].context
    by_address = context.extra.get("entries", {})
    assert len(set(by_address.values())) == (
        0 if trace.system.lists_addresses else len(context.targets)
    )
    assert trace.loaded.links == []
    assert trace.system.skipped == []


def test_typed_arguments_are_the_same_however_functions_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "MANY", 2)
    script = (
        "fentry:tcp_sendmsg* { @[probe, args.sk.__sk_common.skc_family, args.size] = count(); } "
        "fexit:tcp_sendmsg* { @r[func] = sum(retval); }"
    )
    with traced(script) as trace:
        exchange()
        found, text = entries(trace), printed(trace)
    sent = len(SENT)
    assert found[("fentry:vmlinux:tcp_sendmsg", socket.AF_INET, sent)] == 1
    assert found[("fentry:vmlinux:tcp_sendmsg_locked", socket.AF_INET, sent)] == 1
    assert f"@r[tcp_sendmsg]: {sent}\n" in text
    assert f"@r[tcp_sendmsg_locked]: {sent}\n" in text


@pytest.mark.needs("kprobe_multi")
@pytest.mark.parametrize("probe", ["fentry:tcp_*", "fexit:tcp_*", "kprobe:tcp_*"])
def test_hundreds_of_functions_take_one_program_and_one_link(probe: str) -> None:
    with traced(f"{probe} {{ @[probe] = count(); }}") as trace:
        exchange()
        found = entries(trace)
        ways = trace.ways()  # one for the kernel, one for each module with such functions
        assert trace.probe_count > 300
    assert any(re.search(r": \d{3} targets, 1 program, one ", way) for way in ways), ways
    assert len(found) > 50


@pytest.mark.needs("kprobe_multi")
@pytest.mark.parametrize("uses", ["", ", probe"], ids=["by addresses", "by names"])
def test_all_wildcards_of_a_probe_are_served_by_one_link(
    monkeypatch: pytest.MonkeyPatch, uses: str
) -> None:
    monkeypatch.setattr(serving, "FEW", 1)
    script = f"kprobe:tcp_v4_c*,kprobe:tcp_sendmsg* {{ @[func{uses}] = count(); }}"
    with traced(script) as trace:
        exchange()
        text = printed(trace)
        links = [fd for link in trace.loaded.links for fd in link.bpf_links]
    assert len(links) == 1
    for function in ("tcp_v4_connect", "tcp_sendmsg", "tcp_sendmsg_locked"):
        named = f", kprobe:{function}" if uses else ""
        assert f"@[{function}{named}]: 1\n" in text


def test_few_functions_that_are_told_apart_have_programs_with_their_names() -> None:
    with traced("kprobe:tcp_sendmsg* { @[probe] = count(); }") as trace:
        exchange()
        found = entries(trace)
        (probe,) = trace.loaded.probes
        names = [program.spec.functions[0].name for _, program in probe.programs]
        functions = [target.name for target in probe.compiled.context.targets]
    assert found == {"kprobe:tcp_sendmsg": 1, "kprobe:tcp_sendmsg_locked": 1}
    assert names == [f"kprobe:{function}" for function in functions]
    assert programs(trace) == 1


def test_functions_are_where_the_kernel_says() -> None:
    system = System()
    assert system.functions is not None
    found = system.functions.places_of([("vfs_read", "vmlinux"), ("tcp_sendmsg", "vmlinux")])
    with open("/proc/kallsyms", encoding="ascii") as file:
        symbols = {line.split()[2]: int(line.split()[0], 16) for line in file}
    assert found is not None
    # behind an ENDBR of four bytes, if the function has one
    assert {
        at - symbols[name] for at, name in zip(found, ("vfs_read", "tcp_sendmsg"), strict=True)
    } <= {0, 4}


def test_comptime_still_knows_each_target() -> None:
    script = """
    kprobe:vfs_re*dv, kprobe:tcp_v4_connect {
        if comptime (probe == "kprobe:tcp_v4_connect") { @connects = count(); }
    }"""
    with traced(script) as trace:
        exchange()
        assert entries(trace, "@connects") == {None: 1}


def test_a_function_that_is_refused_is_left_out_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel refuses a set as a whole; what is left of it is attached."""
    from kcap.kernel.errors import AttachError
    from kcap.probes.fentry import Fentry

    real = Fentry._attach_to_many

    def attach(self: Fentry, context: Any, targets: Any, program: Any) -> Any:
        if any(target.name == "tcp_sendmsg_locked" for target in targets):
            raise AttachError("not that one", errno.EINVAL)
        return real(self, context, targets, program)

    monkeypatch.setattr(serving, "MANY", 2)
    monkeypatch.setattr(Fentry, "_attach_to_many", attach)
    with traced("fentry:tcp_sendmsg* { @[func] = count(); }") as trace:
        exchange()
        text = printed(trace)
        context = trace.compiled.programs[0].context
    if context.extra["way"] == "each":
        pytest.skip("this kernel has no link for many functions")
    assert text == "@[tcp_sendmsg]: 1\n"
    assert [str(error) for error in trace.system.skipped] == ["not that one"]
    assert trace.probe_count == len(context.targets) - 1
