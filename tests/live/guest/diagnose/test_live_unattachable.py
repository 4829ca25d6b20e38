# SPDX-License-Identifier: Apache-2.0
"""What can't be attached says why, where in the script, and what to do."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

import kcap
from kcap.diagnose.attaching import NotAttachedError
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.probes.system import System
from kcap.probes.traceable import KERNEL
from kcap.session.trace import Trace
from support.introduced import number
from support.mapped_program import make_program

WATCHED = ctypes.c_uint64()


@pytest.fixture(scope="module")
def system() -> System:
    return System()


@pytest.fixture(scope="module")
def kernel_text() -> list[str]:
    """The names of the functions in the kernel's text."""
    with open("/proc/kallsyms", encoding="ascii") as lines:
        fields = [line.split() for line in lines]
    return [f[2] for f in fields if len(f) == 3 and f[1] in "tT"]


def refused(script: str) -> Diagnostic:
    """The first error of a script that can't be attached."""
    with pytest.raises(ScriptError) as caught, Trace(kcap.compile(script)) as trace:
        trace.attach()
    return caught.value.errors[0]


def underlined(found: Diagnostic) -> tuple[int, str]:
    """The line and the text that an error points to."""
    assert found.span is not None
    return found.span.line, found.span.text


def notrace(system: System, names: list[str]) -> str:
    """A function that ftrace has no hook in, and kprobes do not refuse."""
    assert system.functions is not None
    traceable = system.functions.names
    # Such as functions that the tracers themselves call.
    return next(
        name
        for name in sorted(names)
        if re.fullmatch(r"[a-z]+_clock[a-z_]*", name)
        and name not in traceable
        and name not in system.blacklist
    )


@pytest.mark.parametrize("provider", ["kprobe", "fentry"])
def test_a_function_without_a_hook_is_said_to_be_notrace(
    system: System, kernel_text: list[str], provider: str
) -> None:
    name = notrace(system, kernel_text)
    found = refused(f"begin {{ }}\n{provider}:{name} {{ @ = 1; }}")
    assert found.title == f"No matches for {provider} {name}."
    assert underlined(found) == (2, name)
    assert "ftrace has no hook in it: it is marked notrace" in found.notes[0]


def test_a_function_of_the_blacklist_is_said_to_be_there(
    system: System, kernel_text: list[str]
) -> None:
    assert system.functions is not None
    known, traceable = set(kernel_text), system.functions.names
    name = next(n for n in sorted(system.blacklist) if n in known and n not in traceable)
    found = refused(f"kprobe:{name} {{ @ = 1; }}")
    assert underlined(found) == (1, name)
    assert found.notes[0].startswith(f"{name} is in the kernel's blacklist")


def test_an_inline_function_is_said_to_be_gone() -> None:
    found = refused("kprobe:skb_headlen { @ = 1; }")
    assert underlined(found) == (1, "skb_headlen")
    assert "it is inlined everywhere, or never was there" in found.notes[0]


def test_a_misspelt_function_has_its_neighbours_named() -> None:
    found = refused("kprobe:vfs_raed { @ = 1; }")
    assert underlined(found) == (1, "vfs_raed")
    assert found.help[0].startswith("did you mean vfs_read")
    assert [edit.replacement for edit in found.edits] == ["vfs_read"]


def test_a_module_that_is_not_loaded_is_named() -> None:
    found = refused("fentry:no_such_module:its_function { @ = 1; }")
    assert underlined(found) == (1, "no_such_module")
    assert "module no_such_module" in found.title
    assert "is not loaded" in found.title
    assert "modprobe no_such_module" in found.help[-1]


def test_a_name_of_several_functions_is_ambiguous(system: System, kernel: str) -> None:
    """The kernel refuses these since 6.7, and its stable trees by and by; before, it takes one."""
    assert system.functions is not None
    path = Path("/sys/kernel/tracing/available_filter_functions")
    counted = Counter(line for line in path.read_text().splitlines() if " " not in line)
    name = next(
        name
        for name, count in sorted(counted.items())
        if count > 1
        and re.fullmatch("[a-z][a-z0-9_]*", name)
        and system.functions.modules_of(name) == (KERNEL,)
    )
    script = f"kprobe:{name} {{ @ = 1; }}"
    if number(kernel) < (6, 7):
        with suppress(NotAttachedError), Trace(kcap.compile(script)) as trace:
            assert trace.attach() == 1
            return
    found = refused(script)
    assert underlined(found) == (1, f"kprobe:{name}")
    assert found.title.endswith("(EADDRNOTAVAIL)")
    assert found.help[0] == "the name is ambiguous: several functions have it"


def test_the_middle_of_an_instruction_is_no_place_for_a_probe() -> None:
    found = refused("begin { }\nkprobe:vfs_read+1 { @ = 1; }")
    assert underlined(found) == (2, "kprobe:vfs_read+1")
    assert found.title.startswith("Possible attachment attempt in the middle of an instruction")
    assert found.notes == ("Unable to attach probe: kprobe:vfs_read+1",)


def test_one_watchpoint_too_many_is_pointed_to() -> None:
    at = ctypes.addressof(WATCHED)
    probes = [f"watchpoint:{at + n:#x}:1:w" for n in range(5)]
    found = refused("\n".join(f"{probe} {{ @[{n}] = 1; }}" for n, probe in enumerate(probes)))
    assert found.code == "not-attached"
    assert underlined(found) == (5, probes[4])
    assert found.title == f"Unable to attach probe: {probes[4]}: No space left on device (ENOSPC)"
    assert found.help[0] == "all breakpoint registers are taken (x86-64 has 4)"


def test_missing_probes_may_be_left_out() -> None:
    script = 'config = { missing_probes = "warn" } begin { } kprobe:vfs_read+1 { @ = 1; }'
    with kcap.trace(script) as trace:
        assert trace.attach() == 1
        (left_out,) = trace.loaded.missing
    assert isinstance(left_out, NotAttachedError)


def test_a_symbol_that_a_program_does_not_have_is_told_with_its_neighbours(tmp_path: Path) -> None:
    path = make_program(tmp_path / "program")
    found = refused(f"uprobe:{path}:tow {{ @ = 1; }}")
    assert underlined(found) == (1, "tow")
    assert (found.label, found.notes) == ("no such function in the file", ())
    assert "two" in found.help[0] if found.help else found.edits == ()


def test_a_stripped_program_is_said_to_be_stripped() -> None:
    with open("/proc/self/maps", encoding="utf-8") as lines:
        libc = next(line.split()[-1] for line in lines if "/libc.so" in line)
    found = refused(f"uprobe:{libc}:_IO_no_such_function_ {{ @ = 1; }}")
    assert underlined(found) == (1, "_IO_no_such_function_")
    assert found.notes == ("the file is stripped: only its exported functions have names",)
