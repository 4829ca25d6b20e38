# SPDX-License-Identifier: Apache-2.0
"""Running scripts: ``kcap FILE``, ``kcap -e PROGRAM``, ``kcap -``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kcap.cli import options
from kcap.cli.errors import print_diagnostics, print_error
from kcap.errors import FileError, KcapError, UsageError

if TYPE_CHECKING:
    from kcap.cli.options import Arguments
    from kcap.codegen.llvm import Compiler
    from kcap.session.script import Checked, Options
    from kcap.session.trace import Trace


def main(argv: Sequence[str]) -> int:
    """Do what a command line asks; the exit status.

    :raises KcapError: whatever went wrong; nothing is left attached then.
    """
    arguments = options.parse(argv)
    if arguments.help:
        print(options.usage(), end="")
        return 0
    if arguments.version:
        return _version()
    if arguments.vm:
        from kcap.cli.guest import run_in_guest

        return run_in_guest(arguments, list(argv))
    if arguments.list:
        from kcap.cli.listing import list_probes

        return list_probes(arguments)
    name, text = read_script(arguments)
    if arguments.reformat:
        return _reformat(name, text)
    if arguments.fix:
        from kcap.cli.fix import fixed_text

        text = fixed_text(name, text, arguments.parameters)
    return run(name, text, arguments)


def _version() -> int:
    from kcap.version import BPFTRACE_VERSION, __version__

    print(f"kcap v{__version__} (bpftrace language v{BPFTRACE_VERSION})")
    return 0


def read_script(arguments: Arguments) -> tuple[str, str]:
    """The script's name for messages, and its text.

    :raises UsageError: there is none.
    :raises FileError: it cannot be read.
    """
    if arguments.program is not None:
        return "stdin", arguments.program
    if not arguments.file:
        raise UsageError(
            "no script given", hint="name a file, '-' for standard input, or use -e 'PROGRAM'"
        )
    if arguments.file == "-":
        return "stdin", sys.stdin.read()
    try:
        with open(arguments.file, encoding="utf-8", errors="surrogateescape") as stream:
            return arguments.file, stream.read()
    except OSError as error:
        raise FileError(
            f"failed to open file '{arguments.file}': {error.strerror}", arguments.file
        ) from error


def _reformat(name: str, text: str) -> int:
    from kcap.lang.format import format_program
    from kcap.lang.parser import parse
    from kcap.lang.source import Source

    print(format_program(parse(Source(name, text))), end="")
    return 0


def script_options(arguments: Arguments) -> Options:
    """What the session wants to know of the command line."""
    from kcap.session.script import Options

    return Options(
        parameters=arguments.parameters,
        pid=arguments.pid_number,
        command=arguments.command,
        unsafe=arguments.unsafe,
        traceable_file=arguments.traceable_file,
    )


def run(name: str, text: str, arguments: Arguments) -> int:
    """Check, compile, load, attach and follow a script; its exit status."""
    from kcap.codegen.llvm import Compiler
    from kcap.session.script import compile as check

    wished = script_options(arguments)
    compiler = Compiler()  # loads LLVM while the script is parsed and checked
    try:
        checked = check(text, name=name, options=wished)
        if not arguments.no_warnings:
            print_diagnostics(checked.warnings)
        if "ast" in arguments.debug or "all" in arguments.debug:
            _print_tree(checked)
        if any(stage.startswith(("codegen", "dis", "all")) for stage in arguments.debug):
            return _print_code(checked, arguments.debug, compiler)
        return _follow(checked, compiler, arguments)
    finally:
        compiler.close()


def _print_tree(checked: Checked) -> None:
    from kcap.lang.format import format_program

    print(format_program(checked.syntax), end="")


def _print_code(checked: Checked, stages: list[str], compiler: Compiler) -> int:
    compiled = checked.generate(compiler=compiler)
    if "codegen" in stages or "all" in stages:
        print(compiled.ir)
    if "codegen-opt" in stages or "all" in stages:
        print(compiled.optimised)
    if "dis" in stages or "all" in stages:
        for program in compiled.programs:
            print(f"{program.context.name}: {len(program.spec.insns) // 8} instructions")
    return 0


def _follow(checked: Checked, compiler: Compiler, arguments: Arguments) -> int:
    from kcap.output.render import make_renderer
    from kcap.output.writer import open_output
    from kcap.session.trace import Trace

    output = open_output(arguments.output, arguments.buffering)
    try:
        with Trace(checked, compiler, packets=False) as trace, _signals(trace):
            count = trace.attach()
            _report_start(trace, count, arguments)
            if arguments.dry_run:
                return 0
            renderer = make_renderer(arguments.format, trace.runtime.environment)
            for event in trace:
                _show(event, renderer, output, arguments)
            output.flush()
            status = trace.exit_status
            summary = trace.summary
        for line in summary():
            print(line, file=sys.stderr)
        return status
    finally:
        output.close()


def _report_start(trace: Trace, count: int, arguments: Arguments) -> None:
    if arguments.verbose:
        for line in trace.timings.lines():
            print(line, file=sys.stderr)
    if not arguments.quiet and arguments.format == "text":
        print(f"Attached {count} probe{'' if count == 1 else 's'}", file=sys.stderr)


def _show(event: object, renderer: Any, output: Any, arguments: Arguments) -> None:
    from kcap.functions import events

    if isinstance(event, events.Lost | events.Message | events.HelperError):
        output.flush()
        print(renderer.message(event), file=sys.stderr)
    else:
        output.write(renderer.render(event))


@contextmanager
def _signals(trace: Trace) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the trace in order; a second one ends it at once."""
    received = 0

    def handle(number: int, frame: object) -> None:
        nonlocal received
        received += 1
        if received > 1:
            raise KeyboardInterrupt
        trace.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
