# SPDX-License-Identifier: Apache-2.0
"""The machine, as probes see it: functions, events, modules, types.

Everything is read when it is first asked for, and kept. Each source may be missing (no root, no
tracefs, no BTF): then it is None, and nothing is claimed that would need it.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from kcap import cachedir
from kcap.errors import FileError
from kcap.kernel.errors import SyscallError
from kcap.kernel.tracefs import BLACKLIST, PROBE_EVENTS, Tracefs, kprobe_blacklist
from kcap.probes import kept
from kcap.probes.traceable import KERNEL, TraceableFunctions
from kcap.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from kcap.btf import Btf
    from kcap.btf.signatures import Signatures
    from kcap.kernel.tracefs import EventFormat, ProbeEvent
    from kcap.lang.diagnostic import Diagnostic
    from kcap.sema.kerneltypes import KernelTypes

Missing = Literal["error", "warn", "ignore"]
BPF = "bpf:"
"""What a BPF program's types are asked for by, before its id."""
BTF_DIRECTORY = "/sys/kernel/btf"
FUNCTIONS = "available_filter_functions"
Mode = Literal["", "test", "bench"]

_LINKS = {
    "kprobe_multi": "bpf_kprobe_multi_link",
    "tracing_multi": "bpf_tracing_multi_link",
    "perf_link": "bpf_perf_link",
}
"""Types that a kernel has just where it was built with a kind of link."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where a machine says what it is.

    :param traceable: a file to take instead of available_filter_functions, or ''.
    :param tracefs: where tracefs is mounted; '' looks for it.
    :param proc: where procfs is mounted.
    :param btf: the directory where the kernel offers BTF.
    :param types: a file (BTF, or an ELF file that has some) from which the script's types come in
        place of the kernel's; '' for none.
    :param blacklist: the file that lists functions in which kprobes are refused.
    """

    traceable: str = ""
    tracefs: str = ""
    proc: str = "/proc"
    btf: str = BTF_DIRECTORY
    types: str = ""
    blacklist: str = BLACKLIST


class System:
    """What probes ask of the machine.

    :param params: the script's positional parameters, for ``$1`` in attach points.
    :param pid: trace this process only (``-p``), or None.
    :param unsafe: whether ``--unsafe`` was given.
    :param missing_probes: what to do about probes that don't exist here.
    :param max_probes: how many targets a script may attach to; None: any number.
    :param max_bpf_progs: how many programs it may load; None: any number.
    :param without: features of the kernel that are not to be used: ``kprobe_multi``,
        ``uprobe_multi``.
    :param probe_filter: a regular expression; probes whose name it does not match are left out.
    :param mode: whether ``test`` or ``bench`` probes are to run; others of the two are left out.
    :param debug_directories: where separate debugging information of programs is looked for first.
    :param files: where the machine says what it is; by default this one.
    """

    def __init__(
        self,
        *,
        params: Sequence[str] = (),
        pid: int | None = None,
        unsafe: bool = False,
        missing_probes: Missing = "error",
        max_probes: int | None = None,
        max_bpf_progs: int | None = None,
        without: Collection[str] = (),
        probe_filter: str = "",
        mode: Mode = "",
        debug_directories: Sequence[str] = (),
        files: Files = Files(),  # noqa: B008
    ) -> None:
        self.params = tuple(params)
        self.pid = pid
        self.unsafe = unsafe
        self.missing_probes: Missing = missing_probes
        self.max_probes = max_probes
        self.max_bpf_progs = max_bpf_progs
        self._without = frozenset(without)
        self.probe_filter = probe_filter
        self.debug_directories = tuple(debug_directories)
        self.mode: Mode = mode
        self._files = files
        self._module_btf: dict[str, Btf | None] = {}
        self._function_ids: dict[str, dict[str, int]] = {}
        self._signatures: dict[str, Signatures] = {}
        self._functions_state = ""
        self._read_places = b""
        self._program_functions: dict[int, list[int]] = {}
        self.skipped: list[SyscallError] = []
        """Targets of wildcards that the kernel refused to attach to."""
        self.warnings: list[Diagnostic] = []
        """What resolving attach points found that is worth saying, although they are taken."""
        self.inputs: dict[str, bytes] = {}
        """Digests of the files that were read and may change while the kernel and its modules stay
        the same, by path: lists and formats of events."""
        self.lasting = not files.types
        """Nothing else was looked at that may change: no BPF programs, no file of types."""
        self.programs: set[str] = set()
        """Files that the script's probes are in; casts may name their types."""
        self.progress: Callable[[str, int, int], None] = _nothing
        """Called while many are loaded, attached, detached: (which of these, done, total)."""

    # Types

    @cached_property
    def btf(self) -> Btf | None:
        """The kernel's own BTF, or None if it has none."""
        from kcap.btf import Btf
        from kcap.btf.index import build_id

        data = _read_bytes(f"{self._files.btf}/{KERNEL}")
        # Only of the running kernel's own BTF is the build id known, under which the places of its
        # records are kept.
        identity = build_id() if self._files.btf == BTF_DIRECTORY else ""
        return Btf(data, None, KERNEL, identity) if data else None

    def module_btf(self, module: str) -> Btf | None:
        """The BTF of a module (KERNEL for the kernel itself), or None if it has none."""
        if module == KERNEL:
            return self.btf
        if module not in self._module_btf:
            self._module_btf[module] = self._read_module_btf(module)
        return self._module_btf[module]

    def _read_module_btf(self, module: str) -> Btf | None:
        if module.startswith(BPF):
            return self._program_btf(int(module[len(BPF) :]))
        if self.btf is None or "/" in module:
            return None
        from kcap.btf import Btf, BtfError

        data = _read_bytes(f"{self._files.btf}/{module}")
        try:
            return Btf(data, self.btf, module) if data else None
        except BtfError:  # a module built against another base BTF (pahole's --btf_base changed)
            return None

    def _program_btf(self, number: int) -> Btf | None:
        """The types of a loaded BPF program."""
        self.lasting = False
        from kcap.btf import Btf, BtfError
        from kcap.kernel.btfs import btf_data
        from kcap.kernel.info import open_program, program_functions

        try:
            fd = open_program(number)
            try:
                btf_id, functions = program_functions(fd)
            finally:
                os.close(fd)
            data = btf_data(btf_id) if functions else b""
            self._program_functions[number] = functions
            return Btf(data, None, f"{BPF}{number}") if data else None
        except (SyscallError, BtfError):  # it has gone meanwhile, or has types of a newer kind
            return None

    @cached_property
    def bpf_functions(self) -> tuple[tuple[int, str, int], ...] | None:
        """(program, name, id in its BTF) of the functions of all loaded BPF programs that have BTF,
        by program; None if the kernel doesn't tell."""
        self.lasting = False
        from kcap.btf import Func
        from kcap.kernel.info import program_ids

        found = []
        try:
            for number in program_ids():
                btf = self.module_btf(f"{BPF}{number}")
                for type_id in self._program_functions.get(number, ()) if btf is not None else ():
                    function = btf.type(type_id) if btf is not None else None
                    if isinstance(function, Func):
                        found.append((number, function.name, type_id))
        except SyscallError:
            return None
        return tuple(found)

    @cached_property
    def btf_modules(self) -> tuple[str, ...]:
        """The modules that have BTF, sorted."""
        try:
            return tuple(sorted(set(os.listdir(self._files.btf)) - {KERNEL}))
        except OSError:
            return ()

    def function_ids(self, module: str) -> dict[str, int]:
        """The BTF ids of a module's functions by name (KERNEL for the kernel itself).

        Walks the whole BTF once; for single functions ``Btf.find`` is quicker.
        """
        if module not in self._function_ids:
            btf = self.module_btf(module)
            walked = btf.functions() if btf is not None else ()
            self._function_ids[module] = {name: type_id for type_id, name in walked}
        return self._function_ids[module]

    def signatures(self, module: str) -> Signatures:
        """What lists print of the functions of a module that has BTF."""
        if module not in self._signatures:
            from kcap.btf.signatures import Signatures

            btf = self.module_btf(module)
            assert btf is not None, "its functions have ids"
            self._signatures[module] = Signatures(btf)
        return self._signatures[module]

    @cached_property
    def types(self) -> KernelTypes:
        """The kernel's types as types of the language.

        Those of another file are for casts and fields. What probes and their arguments are is the
        running kernel's alone to say: it wants ids of its own types.
        """
        from kcap.sema.kerneltypes import KernelTypes

        read = self._given_types if self._files.types else lambda: self.btf
        return KernelTypes(read, self._module_btfs)

    def _given_types(self) -> Btf:
        """The BTF of the file that was given.

        :raises FileError: it can't be read.
        :raises BtfError: it has no BTF.
        """
        from kcap.btf import Btf

        path = self._files.types
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise FileError(f"can't read the BTF: {error.strerror}", path) from error
        if data.startswith(b"\x7fELF"):
            from kcap.symbols.elf import ElfFile

            elf = ElfFile(path)
            section = elf.section(".BTF")
            data = elf.content(section) if section is not None else b""
            elf.close()
        return Btf(data, None, path)

    def _module_btfs(self) -> list[Btf]:
        found = (self.module_btf(module) for module in self.btf_modules)
        return [btf for btf in (*found, *self._program_btfs()) if btf is not None]

    def _program_btfs(self) -> Iterator[Btf | None]:
        """The types of the programs that the script's probes are in."""
        if self.programs:
            from kcap.probes.user_args import program_types

            for path in sorted(self.programs):
                yield program_types(path, self.debug_directories)

    # Functions

    @cached_property
    def functions(self) -> TraceableFunctions | None:
        """The traceable functions, or None if the kernel doesn't tell (not root, no ftrace).

        :raises FileError: the file that was asked for instead can't be read.
        """
        if self._files.traceable:
            return TraceableFunctions(_given_functions(self._files.traceable))
        text = self._kernel_functions().decode("utf-8", "replace")
        return TraceableFunctions(text, self._addresses) if text else None

    def _kernel_functions(self) -> bytes:
        """What the kernel says, now or since nothing has changed; empty if it doesn't tell."""
        if self.tracefs is None:
            return b""
        path = f"{self.tracefs.path}/{FUNCTIONS}"
        # Another tracefs (a test's) is not this machine's: nothing is kept of it.
        if not self._files.tracefs and os.access(path, os.R_OK):
            self._functions_state = kept.state(self._files.proc)
        text = kept.load(self._functions_state)
        if not text:
            text, self._read_places = kept.taken_apart(_read_bytes(f"{path}_addrs"))
            text = text or _read_bytes(path)
            kept.store(self._functions_state, text)
            kept.store(self._functions_state, self._read_places, kept.ADDRESSES)
        return text

    def _addresses(self) -> bytes:
        """What belongs to the lines that the kernel gave; empty if it tells no addresses."""
        if not self._read_places:
            self._read_places = kept.load(self._functions_state, kept.ADDRESSES)
        if not self._read_places and self.functions is not None:  # before 6.5
            symbols = _read_bytes(f"{self._files.proc}/kallsyms")
            self._read_places = kept.addresses_of(self.functions.lines, symbols)
            kept.store(self._functions_state, self._read_places, kept.ADDRESSES)
        return self._read_places

    @property
    def lists_addresses(self) -> bool:
        """Whether the kernel says where the traceable functions are (6.5)."""
        return self.tracefs is not None and os.path.exists(f"{self.tracefs.path}/{FUNCTIONS}_addrs")

    @cached_property
    def blacklist(self) -> frozenset[str]:
        """Functions in which the kernel refuses kprobes; empty if it doesn't tell."""
        return kprobe_blacklist(self._files.blacklist)

    @cached_property
    def _kernel_symbols(self) -> str:
        return "\n" + _read_text(f"{self._files.proc}/kallsyms")

    def has_symbol(self, name: str) -> bool | None:
        """Whether kallsyms has a function (or object) of that name, traceable or not.

        None if kallsyms can't be read.
        """
        text = self._kernel_symbols
        if len(text) == 1:
            return None
        return f" {name}\n" in text or f" {name}\t" in text

    @cached_property
    def modules(self) -> frozenset[str] | None:
        """The modules that are loaded, or None if the machine doesn't tell."""
        try:
            with open(f"{self._files.proc}/modules", encoding="utf-8") as file:
                return frozenset(line.split(" ", 1)[0] for line in file)
        except OSError:
            return None

    # Events

    @cached_property
    def tracefs(self) -> Tracefs | None:
        """tracefs, or None if it is not mounted or not readable."""
        try:
            found = Tracefs.find((self._files.tracefs,)) if self._files.tracefs else Tracefs.find()
        except SyscallError:
            return None
        return found if os.access(f"{found.path}/events", os.R_OK | os.X_OK) else None

    @cached_property
    def events(self) -> dict[str, list[str]]:
        """The names of tracepoints by category, sorted; empty if tracefs doesn't tell."""
        found: dict[str, list[str]] = {}
        self._note("available_events")
        try:
            pairs = self.tracefs.events() if self.tracefs is not None else []
        except FileError:
            return found
        for category, event in pairs:
            found.setdefault(category, []).append(event)
        return found

    def has_event(self, category: str, event: str) -> bool | None:
        """Whether a tracepoint exists, or None without tracefs; asks for that one only."""
        if self.tracefs is None:
            return None
        there = os.path.exists(f"{self.tracefs.path}/events/{category}/{event}/id")
        if there:
            self._note(f"events/{category}/{event}/format")
        return there

    @cached_property
    def probe_events(self) -> dict[tuple[str, str], ProbeEvent]:
        """The tracepoints (category, name) that are kprobes or uprobes with a name."""
        for file in PROBE_EVENTS:
            self._note(file)
        return self.tracefs.probe_events() if self.tracefs is not None else {}

    def _note(self, file: str) -> None:
        """Remember what a file of tracefs says."""
        if self.tracefs is not None:
            path = f"{self.tracefs.path}/{file}"
            self.inputs[path] = self.digest(path)

    @staticmethod
    def digest(path: str) -> bytes:
        """The digest of a file, as :attr:`inputs` has it."""
        return cachedir.digest(_read_bytes(path))

    def event_format(self, category: str, event: str) -> EventFormat | None:
        """What a tracepoint carries, or None if it is not known."""
        self._note(f"events/{category}/{event}/format")
        try:
            return self.tracefs.event_format(category, event) if self.tracefs else None
        except FileError:
            return None

    def event_text(self, category: str, event: str) -> str:
        """The ``format`` file of a tracepoint, or '' if it can't be read."""
        path = f"{self.tracefs.path}/events" if self.tracefs is not None else ""
        return _read_text(f"{path}/{category}/{event}/format")

    # Machine

    def has(self, feature: str) -> bool:
        """Whether the kernel has a feature and it may be used.

        :param feature: the name of a function of ``kcap.kernel.features``, such as
            ``kprobe_multi``.
        """
        from kcap.kernel import features

        return feature not in self._without and bool(getattr(features, feature)())

    def offers(self, feature: str) -> bool:
        """Whether the kernel's types say that it has a feature, and it may be used.

        Unlike :meth:`has` this loads nothing, so that a script can be checked without rights.

        :param feature: ``kprobe_multi``, ``tracing_multi``, ``perf_link``.
        """
        from kcap.btf import Struct

        if feature in self._without or self.btf is None:
            return False
        return self.btf.find(_LINKS[feature], Struct) is not None

    @cached_property
    def takes_structs(self) -> bool:
        """Whether the kernel's trampolines take functions with structs by value (6.0, where struct
        btf_func_model got ``arg_flags``)."""
        from kcap.btf import Struct

        model = self.btf.find("btf_func_model", Struct) if self.btf is not None else None
        return model is None or any(member.name == "arg_flags" for member in model.members)

    @cached_property
    def arch(self) -> str:
        """The machine's architecture as uname(2) spells it."""
        return os.uname().machine


def _nothing(what: str, done: int, total: int) -> None:
    """What happens with steps unless somebody wants to show them."""


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except OSError:
        return b""


def _given_functions(path: str) -> str:
    """A file that was given in place of available_filter_functions; it may be empty.

    :raises FileError: it can't be read.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise FileError(f"can't read the traceable functions: {error.strerror}", path) from error


def _read_text(path: str) -> str:
    return _read_bytes(path).decode("utf-8", "replace")
