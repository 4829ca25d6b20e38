# SPDX-License-Identifier: Apache-2.0
"""The frozen machine that the corpus of wrong scripts is checked on."""

from __future__ import annotations

from pathlib import Path

from kcap.diagnose.check import check, check_failed
from kcap.diagnose.syntax import with_syntax_suggestions
from kcap.functions.registry import all_functions
from kcap.lang import ast
from kcap.lang.diagnostic import Diagnostic, ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.registry import resolver
from kcap.probes.system import System
from kcap.sema.analyzer import analyze
from kcap.session.script import Options, configure
from unit.diagnose.repair_machine import machine as small_machine

RELEASE = "6.12.107"

_COMMON = """\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

"""

#: Tracepoints: their fields as the kernel's format file declares them: (declaration, size, signed).
EVENTS = {
    "syscalls/sys_enter_openat": [
        ("int __syscall_nr", 4, 1),
        ("int dfd", 8, 0),
        ("const char * filename", 8, 0),
        ("int flags", 8, 0),
        ("umode_t mode", 8, 0),
    ],
    "syscalls/sys_exit_openat": [("int __syscall_nr", 4, 1), ("long ret", 8, 1)],
    "net/netif_receive_skb": [
        ("void * skbaddr", 8, 0),
        ("unsigned int len", 4, 0),
        ("__data_loc char[] name", 4, 0),
    ],
}


def machine(path: Path) -> System:
    """The machine below ``path``, with functions, types and tracepoints."""
    system = small_machine(path)
    for number, (name, fields) in enumerate(EVENTS.items(), 100):
        directory = path / "tracing" / "events" / name
        directory.mkdir(parents=True)
        (directory / "id").write_text(f"{number}\n")
        (directory / "format").write_text(_format(name.partition("/")[2], number, fields))
    names = "".join(f"{name.replace('/', ':')}\n" for name in EVENTS)
    (path / "tracing" / "available_events").write_text(names)
    return system


def _format(name: str, number: int, fields: list[tuple[str, int, int]]) -> str:
    lines, offset = [], 8
    for declaration, size, signed in fields:
        offset = (offset + size - 1) // size * size
        lines.append(f"\tfield:{declaration};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n")
        offset += size
    return f'name: {name}\nID: {number}\nformat:\n{_COMMON}{"".join(lines)}\nprint fmt: ""\n'


def _parse(source: Source) -> ast.Program:
    try:
        return parse(source)
    except ScriptError as error:
        raise with_syntax_suggestions(error) from error


def findings(system: System, name: str, text: str) -> list[Diagnostic]:
    """The errors of a script, each with its repair, as ``kcap`` and ``kcap fix`` find them."""
    source = Source(name, text)
    functions = all_functions()
    try:
        program = _parse(source)
        config = configure(program, Options(environment={}))
        probes = resolver(system)
        try:
            script = analyze(
                program, functions=functions, probes=probes, types=system.types, config=config
            )
        except ScriptError as error:
            raise check_failed(error, program, source, system, functions, RELEASE) from error
        found = [*probes.unattached(program.probes)]
        found += check(script, program, source, system, functions, RELEASE)
    except ScriptError as error:
        found = list(error.diagnostics)
    return [diagnostic for diagnostic in found if diagnostic.severity == "error"]
