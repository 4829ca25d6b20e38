# SPDX-License-Identifier: Apache-2.0
"""Running scripts: ``kcap FILE``, ``kcap -e PROGRAM``, ``kcap -``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from kcap.cli import options
from kcap.cli.errors import as_bpftrace, choose_format, print_diagnostics, print_error
from kcap.cli.progress import ProgressLine
from kcap.cli.reading import read_script, refuse_script
from kcap.cli.service import READY, STOPPING, notify
from kcap.cli.signals import ended_by_signals
from kcap.cli.started import started
from kcap.errors import FileError, UnknownOptionError, UsageError
from kcap.words import plural

if TYPE_CHECKING:
    from kcap.cli.options import Arguments
    from kcap.output.jsonlines import JsonRenderer
    from kcap.output.text import TextRenderer
    from kcap.output.writer import Buffering, Writer
    from kcap.probes.system import Mode
    from kcap.session.compiled import CompiledScript
    from kcap.session.options import Options
    from kcap.session.preparation import Preparation
    from kcap.session.script import Checked
    from kcap.session.trace import Trace

#: With this variable set, a line of the same name says that the probes are attached: bpftrace's
#: test harness, and whatever else starts it from a program, waits for it.
NOTIFY = "__BPFTRACE_NOTIFY_PROBES_ATTACHED"

#: How often the rings are looked at while somebody watches, in seconds: no delay is seen.
TERMINAL_TICK = 0.02


def main(argv: Sequence[str]) -> int:
    """Do what a command line asks; the exit status.

    :raises KcapError: whatever went wrong; nothing is left attached then.
    """
    try:
        arguments = options.parse(argv)
    except UnknownOptionError as error:
        print_error(error)
        print(options.usage(), end="", file=sys.stderr)
        return 1
    choose_format(arguments.diagnostics)
    if arguments.help:
        print(options.usage(), end="")
        return 0
    if arguments.version:
        return _version()
    if arguments.vm:
        from kcap.cli.guest import run_in_guest

        return run_in_guest(arguments, list(argv))
    if arguments.listing:
        from kcap.cli.listing import list_probes

        return list_probes(arguments)
    if arguments.info:
        from kcap.cli.info import print_info

        return print_info()
    name, text = script_of(arguments)
    if arguments.reformat:
        return _reformat(name, text)
    if arguments.fix:
        from kcap.cli.fix import fixed_text

        text = fixed_text(name, text, script_options(arguments))
    return run(name, text, arguments)


def _version() -> int:
    from kcap.version import BPFTRACE_VERSION, __version__

    if as_bpftrace():
        print(f"bpftrace v{BPFTRACE_VERSION} (kcap v{__version__})")
    else:
        print(f"kcap v{__version__} (bpftrace language v{BPFTRACE_VERSION})")
    return 0


def script_of(arguments: Arguments) -> tuple[str, str]:
    """The name for messages and the text of the script that a command line gives.

    :raises UsageError: there is none.
    :raises FileError: it can't be read, or is no text.
    """
    if arguments.program is not None:
        return "stdin", arguments.program
    if not arguments.file:
        raise UsageError(
            "no script given", hint="name a file, '-' for standard input, or use -e 'PROGRAM'"
        )
    try:
        return read_script(arguments.file)
    except FileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            error.hint = _command_meant(arguments.file)
        raise


def _command_meant(word: str) -> str | None:
    """What to say where the name of a missing script looks like that of a command."""
    from kcap.cli.main import SUBCOMMANDS
    from kcap.symbols.nearest import nearest

    command = next(iter(nearest(word, SUBCOMMANDS)), None)
    return f"it is no script here; was the command kcap {command} meant?" if command else None


def _reformat(name: str, text: str) -> int:
    from kcap.lang.format import format_script
    from kcap.lang.source import Source

    print(format_script(Source(name, text)), end="")
    return 0


def script_options(arguments: Arguments) -> Options:
    """What the session wants to know of the command line."""
    from kcap.session.options import Options

    return Options(
        parameters=arguments.parameters,
        named=arguments.named,
        include_directories=arguments.include_dirs,
        includes=arguments.includes,
        pid=arguments.pid_number,
        dwarf_pids=arguments.dwarf_pid_numbers,
        command=arguments.command,
        unsafe=arguments.unsafe,
        helper_errors=arguments.helper_errors,
        traceable_file=arguments.traceable_file,
        without=arguments.no_feature,
        probe_filter=arguments.probe_filter,
        mode=cast("Mode", arguments.mode if arguments.mode in ("test", "bench") else ""),
        debug_directories=arguments.debug_directories,
        cached=not arguments.no_cache,
        verbose=arguments.verbose,
        verifier_log=arguments.prints("verifier"),
    )


def run(name: str, text: str, arguments: Arguments) -> int:
    """Check, compile, load, attach and follow a script; its exit status."""
    from kcap.session.preparation import Preparation

    with Preparation(script_options(arguments)) as preparation:
        if arguments.aot:
            from kcap.cli.aot import write_program

            return write_program(arguments.aot, text, name, preparation)
        script: Checked | CompiledScript
        if arguments.debug or arguments.mode == "codegen":
            script = checked = preparation.check(text, name)
        else:
            script = preparation.prepare(text, name)
        if not arguments.quiet:
            script.system.progress = ProgressLine()
        if not arguments.no_warnings:
            print_diagnostics(script.warnings)
        if arguments.debug:
            _print_stages(checked, arguments)
        if arguments.mode == "codegen":
            checked.generate(objects=preparation.objects)
            return 0
        return _follow(script, preparation, arguments)


def _print_stages(checked: Checked, arguments: Arguments) -> None:
    """What the script becomes on its way to the kernel; it is compiled for that alone.

    :raises CodegenError: LLVM refuses it.
    """
    from kcap.codegen.objects import assembly, optimised
    from kcap.lang.format import format_script

    wanted = [stage for stage in options.STAGES if arguments.prints(stage)]
    if "ast" in wanted:
        print(format_script(checked.source), end="")
    if wanted in ([], ["ast"]):
        return
    compiled = checked.generate()
    if "codegen" in wanted:
        print(compiled.ir)
    if "codegen-opt" in wanted:
        print(optimised(compiled.ir))
    if "dis" in wanted:
        print(assembly(compiled.ir))
        for program in compiled.programs:
            count = len(program.spec.insns) // 8
            print(f"{program.spec.name} is {program.context.name}: {count} instructions")


def _print_loaded(trace: Trace, arguments: Arguments) -> None:
    """What was put into the kernel, and what its verifier said to it."""
    if arguments.prints("libbpf"):
        print(*trace.loaded.contents(), sep="\n")
    if arguments.prints("verifier"):
        for name, log in trace.loaded.verifier_logs():
            print(f"{name}:", *log, sep="\n")
    sys.stdout.flush()


def _follow(
    script: Checked | CompiledScript, preparation: Preparation, arguments: Arguments
) -> int:
    from kcap.functions.events import AttachedProbes, TraceEnded

    with _output(arguments) as output:
        with (
            preparation.trace(script, packets=False) as trace,
            ended_by_signals(trace.stop, trace.signals, trace.signalled),
        ):
            renderer = _renderer(trace, arguments)
            if arguments.debug:
                _print_loaded(trace, arguments)
            trace.attach()
            started(trace, verbose=arguments.verbose)
            if not arguments.no_warnings:
                _show_skipped(trace, arguments.verbose)
            if arguments.dry_run:
                return 0
            trace.on_tick = output.tick
            if os.isatty(output.fd):
                trace.tick = TERMINAL_TICK
            if arguments.buffering != "none":
                trace.reader.on_text = output.write
                trace.reader.wrap = renderer.printf
            for event in trace:
                output.write(renderer.output(event))
                if message := renderer.message(event):
                    output.flush()
                    print(message, end="", file=sys.stderr, flush=True)
                if isinstance(event, AttachedProbes):
                    _tell_that_it_runs(output)
                elif isinstance(event, TraceEnded):
                    notify(STOPPING)
        output.flush()
        for line in trace.summary():
            print(line, file=sys.stderr)
        return trace.exit_status


def _tell_that_it_runs(output: Writer) -> None:
    """All probes are attached: tell who waits for that."""
    if os.environ.get(NOTIFY):
        output.write(f"{NOTIFY}\n")
        output.flush()
    notify(READY)


def _show_skipped(trace: Trace, verbose: bool) -> None:
    """Targets of wildcards that the kernel refused: a line for each reason, or for each target."""
    skipped = trace.system.skipped
    if verbose:
        for error in skipped:
            print(f"skipped: {error}", file=sys.stderr)
        return
    reasons: dict[str, int] = {}
    for error in skipped:
        reason = os.strerror(error.errno) if error.errno else str(error)
        reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in reasons.items():
        print(
            f"WARNING: skipped {plural(count, 'target')}: {reason} (-v lists them)",
            file=sys.stderr,
        )


def _renderer(trace: Trace, arguments: Arguments) -> JsonRenderer | TextRenderer:
    environment = trace.runtime.environment
    quiet = arguments.quiet or arguments.mode in ("test", "bench")
    warnings = not arguments.no_warnings
    if arguments.format == "json":
        from kcap.output.jsonlines import JsonRenderer

        return JsonRenderer(environment, quiet=quiet, warnings=warnings)
    from kcap.output.text import TextRenderer

    return TextRenderer(environment, quiet=quiet, warnings=warnings)


@contextmanager
def _output(arguments: Arguments) -> Iterator[Writer]:
    """Where the trace's output goes: standard output, or the file of ``-o``."""
    from kcap.output.writer import Writer

    buffering = cast("Buffering", arguments.buffering)
    if not arguments.output:
        yield Writer(sys.stdout.fileno(), buffering)
        return
    refuse_script(arguments.output, arguments.file)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        fd = os.open(arguments.output, flags, 0o666)
    except OSError as error:
        raise FileError(
            f"failed to open output file '{arguments.output}': {error.strerror}", arguments.output
        ) from error
    try:
        yield Writer(fd, buffering, arguments.output)
    finally:
        os.close(fd)
