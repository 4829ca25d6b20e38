# SPDX-License-Identifier: Apache-2.0
"""bpftrace's command-line options (its man page, version 0.27), and kcap's own beside them.

Parsed by hand: argparse costs 9 ms of every start, and cannot do what getopt does with ``-v`` and
with what follows ``--``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from kcap.errors import UnknownOptionError, UsageError
from kcap.records import dataclass, field


class Option(NamedTuple):
    """An option of the command line.

    :param flags: how it is written.
    :param attribute: the attribute of :class:`Arguments` that it sets.
    :param value: what its value is called in the help; '' when it takes none.
    :param help: one line.
    """

    flags: tuple[str, ...]
    attribute: str
    value: str
    help: str


OPTIONS: Final = (
    Option(("--aot",), "aot", "FILE", "write the script as a program of its own to FILE"),
    Option(("-B",), "buffering", "MODE", "output buffering mode ('full', 'line', or 'none')"),
    Option(("-c", "--cmd"), "command", "CMD", "run CMD and trace until it ends"),
    Option(
        ("-d",),
        "debug",
        "STAGE",
        "print a stage: ast, codegen, codegen-opt, dis, libbpf, verifier, all",
    ),
    Option(("--debuginfo",), "debuginfo", "DIR[:DIR]", "where to look for DWARF"),
    Option(("--diagnostics",), "diagnostics", "FORMAT", "how errors are printed ('text', 'json')"),
    Option(("--dry-run",), "dry_run", "", "stop right after attaching all probes"),
    Option(("--dwarf-pid",), "dwarf_pids", "PID", "dw_ustack() can walk this process' stacks"),
    Option(("-e",), "program", "PROGRAM", "run PROGRAM"),
    Option(("-f",), "format", "FORMAT", "output format ('text', 'json')"),
    Option(("--fix",), "fix", "", "mend what can be mended in the script, then run it"),
    Option(("--fmt",), "reformat", "", "print the script in standard form"),
    Option(("-h", "--help"), "help", "", "show this help"),
    Option(("-I",), "include_dirs", "DIR", "search DIR for C headers"),
    Option(("--include",), "includes", "FILE", "add an #include"),
    Option(("--info",), "info", "", "show what the kernel supports"),
    Option(("-k",), "helper_errors", "", "warn about failing BPF helpers"),
    Option(
        ("-l", "--list"), "listing", "", "list probes, those of a script or that match a pattern"
    ),
    Option(("--no-cache",), "no_cache", "", "compile anew, keep nothing for the next start"),
    Option(("--mode",), "mode", "MODE", "do only that: 'codegen', 'format', 'test' or 'bench'"),
    Option(("--no-feature",), "no_feature", "FEATURES", "don't use these (uprobe_multi,…)"),
    Option(("--no-warnings",), "no_warnings", "", "suppress all warnings"),
    Option(("-o", "--output"), "output", "FILE", "write output to FILE instead of standard output"),
    Option(("-p", "--pid"), "pid", "PID", "trace only this process, until it ends"),
    Option(("--probe-filter",), "probe_filter", "REGEX", "attach only these"),
    Option(("-q", "--quiet"), "quiet", "", "keep messages quiet"),
    Option(("--test",), "test", "", "run the script's test probes, then end"),
    Option(("--bench",), "bench", "", "run the script's bench probes, then end"),
    Option(("--traceable-functions",), "traceable_file", "FILE", "a list of traceable functions"),
    Option(("--unsafe",), "unsafe", "", "allow unsafe functions such as system()"),
    # Nothing to do: every kernel since 4.20 counts semaphores itself (ref_ctr_offset).
    Option(("--usdt-file-activation",), "usdt_activation", "", "nothing: the kernel does it"),
    Option(("-v", "--verbose"), "verbose", "", "verbose messages: timings, verifier logs"),
    Option(("-V", "--version"), "version", "", "print the version"),
    Option(("--vm",), "vm", "", "run in a throw-away QEMU guest instead of on this machine"),
    Option(("--kernel",), "kernel", "SERIES", "the guest's kernel: 5.10, 6.1, 6.12 or 7.2"),
)

_BY_FLAG: Final = {flag: option for option in OPTIONS for flag in option.flags}
#: What may be given several times, and what separates the parts of one value ('': nothing).
_REPEATED: Final = {
    "debug": ",",
    "debuginfo": ":",
    "dwarf_pids": ",",
    "include_dirs": "",
    "includes": "",
    "no_feature": ",",
}
FEATURES: Final = ("uprobe_multi", "kprobe_multi", "kprobe_session", "tracing_multi")
STAGES: Final = ("ast", "codegen", "codegen-opt", "dis")
#: What only the kernel's answer has; ``libbpf``, by bpftrace's word, is what is put into it.
LOADED_STAGES: Final = ("libbpf", "verifier")


@dataclass(slots=True)
class Arguments:
    """The command line, taken apart; see :data:`OPTIONS`.

    :ivar file: the script's path, ``-`` for standard input, '' with ``-e``.
    :ivar parameters: positional parameters of the script.
    :ivar aot: the program to write instead of running the script.
    :ivar named: named parameters (after ``--``), by name.
    """

    buffering: str = "line"
    command: str = ""
    debug: list[str] = field(default_factory=list)
    debuginfo: list[str] = field(default_factory=list)
    diagnostics: str = "text"
    dry_run: bool = False
    dwarf_pids: list[str] = field(default_factory=list)
    program: str | None = None
    format: str = "text"
    helper_errors: bool = False
    fix: bool = False
    info: bool = False
    mode: str = ""
    no_feature: list[str] = field(default_factory=list)
    probe_filter: str = ""
    test: bool = False
    bench: bool = False
    include_dirs: list[str] = field(default_factory=list)
    includes: list[str] = field(default_factory=list)
    reformat: bool = False
    help: bool = False
    listing: bool = False
    no_cache: bool = False
    no_warnings: bool = False
    output: str = ""
    pid: str = ""
    quiet: bool = False
    traceable_file: str = ""
    unsafe: bool = False
    usdt_activation: bool = False
    verbose: bool = False
    version: bool = False
    vm: bool = False
    kernel: str = ""
    file: str = ""
    parameters: list[str] = field(default_factory=list)
    aot: str = ""
    named: dict[str, str] = field(default_factory=dict)

    @property
    def pid_number(self) -> int | None:
        """``-p`` as a number.

        :raises UsageError: it is none, or out of range.
        """
        return _pid(self.pid) if self.pid else None

    @property
    def debug_directories(self) -> list[str]:
        """The directories of ``--debuginfo``. A ``+`` in front of one asks bpftrace to compare
        checksums of files without a build id, as kcap always does."""
        return [directory.removeprefix("+") for directory in self.debuginfo if directory]

    def prints(self, stage: str) -> bool:
        """Whether a stage is to be printed (``-d``)."""
        return stage in self.debug or "all" in self.debug

    @property
    def dwarf_pid_numbers(self) -> list[int]:
        """``--dwarf-pid`` as numbers.

        :raises UsageError: one is none, or out of range.
        """
        return [_pid(text) for text in self.dwarf_pids]


def _pid(text: str) -> int:
    digits = len(text) - len(text.lstrip("0123456789"))
    if digits < len(text):
        wrong = "invalid trailing bytes" if digits else "invalid integer"
        raise UsageError(f"Failed to parse pid: {wrong}: {text}")
    number = int(text)
    if not 1 <= number <= 0x400000:  # PID_MAX_LIMIT, include/linux/threads.h
        raise UsageError(f"Pid out of range: {number}", hint="pids are 1 to 4194304")
    return number


def parse(argv: Sequence[str]) -> Arguments:
    """Take a command line apart.

    Options may stand before and after the script's name. What follows it is its positional
    parameters; named ones (``--name=value``) come after ``--``.

    :raises UsageError: an option is unknown, or lacks its value.
    """
    arguments = Arguments()
    rest: list[str] = []
    queue = list(argv)
    while queue:
        word = queue.pop(0)
        if word == "--":
            _take_parameters(arguments, rest, queue)
            break
        if word == "-" or not word.startswith("-"):
            rest.append(word)
        elif word.startswith("--"):
            _take_long(arguments, word, queue)
        else:
            _take_short(arguments, word, queue)
    if arguments.program is None and rest:
        arguments.file = rest.pop(0)
    arguments.parameters = rest + arguments.parameters
    _check(arguments)
    return arguments


def _take_long(arguments: Arguments, word: str, queue: list[str]) -> None:
    flag, equals, value = word.partition("=")
    option = _option(flag)
    if not option.value:
        if equals:
            raise UsageError(f"option {flag} takes no value")
        setattr(arguments, option.attribute, True)
    elif equals:
        _set(arguments, option, value)
    else:
        _set(arguments, option, _value(flag, queue))


def _take_short(arguments: Arguments, word: str, queue: list[str]) -> None:
    """``-v``, ``-qv``, ``-p 1``, ``-p1``."""
    letters = word[1:]
    while letters:
        flag, letters = f"-{letters[0]}", letters[1:]
        option = _option(flag)
        if not option.value:
            setattr(arguments, option.attribute, True)
            continue
        _set(arguments, option, letters or _value(flag, queue))
        return


def _option(flag: str) -> Option:
    option = _BY_FLAG.get(flag)
    if option is None:
        raise UnknownOptionError(f"unknown option {flag}")
    return option


def _value(flag: str, queue: list[str]) -> str:
    if not queue:
        raise UsageError(f"option {flag} needs a value")
    return queue.pop(0)


def _set(arguments: Arguments, option: Option, value: str) -> None:
    separator = _REPEATED.get(option.attribute)
    if separator is None:
        setattr(arguments, option.attribute, value)
    else:
        parts = value.split(separator) if separator else [value]
        getattr(arguments, option.attribute).extend(parts)


def _take_parameters(arguments: Arguments, rest: list[str], words: list[str]) -> None:
    """What follows ``--``: the script's name if it is still to come, then its parameters."""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            arguments.named[name] = value if equals else "true"
        else:
            rest.append(word)


def _check(arguments: Arguments) -> None:
    choices = {
        "buffering": ("buffering mode", ("full", "line", "none")),
        "format": ("output format", ("text", "json")),
        "diagnostics": ("format of diagnostics", ("text", "json")),
        "mode": ("mode", ("", "codegen", "format", "test", "bench")),
    }
    for attribute, (what, allowed) in choices.items():
        value = getattr(arguments, attribute)
        if value not in allowed:
            hint = f"it is one of {', '.join(filter(None, allowed))}"
            raise UsageError(f'Invalid {what} "{value}"', hint=hint)
    if arguments.kernel and not arguments.vm:
        raise UsageError(
            f"--kernel {arguments.kernel} is about a guest, but the script would run here",
            hint="add --vm to run it in a guest with this kernel",
        )
    for feature in arguments.no_feature:
        if feature not in FEATURES:
            raise UsageError(f"--no-feature {feature}: not one of {', '.join(FEATURES)}")
    if arguments.test or arguments.bench:
        arguments.mode = "test" if arguments.test else "bench"
    arguments.reformat = arguments.reformat or arguments.mode == "format"
    for stage in arguments.debug:
        if stage not in (*STAGES, *LOADED_STAGES, "all"):
            known = ", ".join((*STAGES, *LOADED_STAGES))
            raise UsageError(f"-d {stage}: not one of {known}, all")


def usage() -> str:
    """The text of ``--help``."""
    from kcap.cli.main import SUBCOMMANDS

    lines = [
        "USAGE:",
        "    kcap [options] filename [parameters]",
        "    kcap [options] - <stdin input>",
        "    kcap [options] -e 'program'",
        "    kcap COMMAND ...",
        "",
        "OPTIONS:",
    ]
    for option in OPTIONS:
        left = ", ".join(option.flags) + (f" {option.value}" if option.value else "")
        lines.append(f"    {left:<28} {option.help}")
    lines += ["", "COMMANDS (kcap COMMAND --help says more):"]
    lines += [f"    {name:<12} {command.help}" for name, command in SUBCOMMANDS.items()]
    lines += [
        "",
        "EXAMPLES:",
        "kcap -l '*sleep*'",
        '    list probes containing "sleep"',
        "kcap -e 'kprobe:do_nanosleep { printf(\"PID %d sleeping...\\n\", pid); }'",
        "    trace processes calling sleep",
        "kcap -e 'fentry:icmp_rcv { skboutput(\"icmp.pcap\", args.skb, args.skb.len, 0); }'",
        "    write the packets that reach icmp_rcv to a file",
        "",
    ]
    return "\n".join(lines)
