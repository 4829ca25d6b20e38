# SPDX-License-Identifier: Apache-2.0
"""uprobe, uretprobe and usdt in a program as compilers make them: places by symbol,
offset, address, C++ name and source line, arguments from debugging information."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import kcap
from kcap.output.text import TextRenderer
from kcap.symbols.elf import ElfFile
from support.traced_program import LINE, PROGRAM, SOURCE, TracedProgram


@pytest.fixture(scope="module")
def program() -> Iterator[TracedProgram]:
    with TracedProgram() as program:
        yield program


@pytest.fixture(scope="module")
def lines(program: TracedProgram) -> list[str]:
    """What one script with every way to name a place prints of two processes, of which it follows
    one. (Unsafe: no disassembler is there to tell where instructions begin.)"""
    symbol = ElfFile(str(PROGRAM)).function("handle")
    assert symbol is not None
    probes = {
        f"uprobe:{PROGRAM}:handle": '"%d %s %d %s", args.times, str(args.text), args.pair->number, '
        "str(args.pair->name)",
        f"uretprobe:{PROGRAM}:handle": '"returned %d", retval',
        f"uprobe:{PROGRAM.name}:handle+4": '"by offset %d", arg0',
        f"uprobe:{PROGRAM}:{symbol.address:#x}": '"by address %d", arg0',
        f'uprobe:{PROGRAM}:cpp:"app::gre*"': '"%s %d", probe, arg0',
        f"uprobe:{PROGRAM}@{SOURCE.name}:{LINE}": '"by line %s", func',
        f"usdt:{PROGRAM}:app:mine": '"of the thread %d", arg0',
    }
    script = "\n".join(
        f'{probe} {{ printf({what}); printf("\\n"); }}' for probe, what in probes.items()
    )
    with (
        pytest.MonkeyPatch.context() as patch,
        TracedProgram() as other,
    ):
        patch.setenv("PATH", str(PROGRAM.parent), prepend=os.pathsep)
        with kcap.trace(script, options=kcap.Options(pid=program.pid, unsafe=True)) as trace:
            trace.attach()
            for each in (other, program):
                each.call()
            trace.stop()
            renderer = TextRenderer(trace.runtime.environment, quiet=True)
            return "".join(renderer.output(event) for event in trace).splitlines()


@pytest.mark.parametrize(
    "line",
    [
        "2 A 20 twenty",
        "returned 105",
        "by offset 2",
        "by address 2",
        f"uprobe:{PROGRAM}:cpp:_ZN3app5greetEi 7",
        "by line handle",
        "of the thread 41",
    ],
)
def test_a_place_in_a_program_is_found_and_fires_once(lines: list[str], line: str) -> None:
    assert lines.count(line) == 1, lines
