# SPDX-License-Identifier: Apache-2.0
"""The functions that the kernel can trace: ``available_filter_functions``.

ftrace knows every function that begins with a call of ``__fentry__`` (or has a patchable entry).
fentry, fexit and kprobe_multi attach to these only, and so do kprobes unless the kernel was built
with CONFIG_KPROBE_EVENTS_ON_NOTRACE (``within_notrace_func`` in kernel/trace/trace_kprobe.c).
"""

from __future__ import annotations

from array import array
from functools import cached_property
from typing import TYPE_CHECKING

from kcap.probes.names import Pattern
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

FEW = 40
"""Functions that are looked up by searching the text (1 ms each) before an index is made."""

KERNEL = "vmlinux"
"""What stands for the kernel itself where a module is named."""

UNSAFE_NAMES = frozenset(("arch_cpu_idle", "default_idle", "bpf_dispatcher_xdp_func"))
UNSAFE_PREFIXES = ("rcu_", "__ftrace_invalid_address__")
"""Functions that ftrace lists but that a wildcard had better leave alone: tracing them all can
hang the machine (the kernel's own test kprobe_multi_test.c in tools/testing/selftests/bpf leaves
out the same), and places that ftrace could not name."""


def is_unsafe(name: str) -> bool:
    """Whether a wildcard leaves the function out."""
    return name in UNSAFE_NAMES or name.startswith(UNSAFE_PREFIXES)


class TraceableFunctions:
    """The functions of ``available_filter_functions``, searched as text.

    :param text: the file: one ``name`` or ``name [module]`` a line. A name may occur several
        times (static functions of the same name).
    :param addresses: gives the address of each line, 8 bytes in the machine's order; nothing if
        they are not known.
    """

    def __init__(self, text: str, addresses: Callable[[], bytes] = bytes) -> None:
        self._text = f"\n{text}" if text.endswith("\n") else f"\n{text}\n"
        self._read_addresses = addresses
        self._searches = 0
        self._matched: dict[str, list[tuple[str, str]]] = {}

    @cached_property
    def _modules(self) -> dict[str, tuple[str, ...]]:
        """The modules of every function: an index for those who ask often."""
        found: dict[str, tuple[str, ...]] = {}
        for name, module in self:
            found[name] = (*found.get(name, ()), module)
        return found

    def modules_of(self, name: str) -> tuple[str, ...]:
        """The modules that have the function, KERNEL for the kernel itself; none: not traceable."""
        self._searches += 1
        if self._searches > FEW:
            return self._modules.get(name, ())
        found: dict[str, None] = {}
        text, wanted = self._text, f"\n{name}"
        at = text.find(wanted)
        while at >= 0:
            line = text[at + 1 : text.index("\n", at + 1)]
            function, _, module = line.partition(" ")
            if function == name:
                found[_module(module)] = None
            at = text.find(wanted, at + 1)
        return tuple(found)

    def places_of(self, functions: Iterable[tuple[str, str]]) -> list[int] | None:
        """Where the first of each of some (name, module) is, or None if that is not known of all.

        From Linux 6.5 on that is where ftrace calls from: behind the function's first instruction,
        if that is a landing pad of indirect calls (ENDBR). Before, its own address.
        """
        addresses = array("Q", self._read_addresses())
        if len(addresses) != self._text.count("\n") - 1:
            return None
        lines = [name if module == KERNEL else f"{name} [{module}]" for name, module in functions]
        numbers = self._numbers_of(lines)
        if any(line not in numbers for line in lines):
            return None
        places = [addresses[numbers[line]] for line in lines]
        return places if all(places) else None

    def _numbers_of(self, lines: Collection[str]) -> dict[str, int]:
        """The number of each line, from 0: of several alike that of the first."""
        text = self._text
        if len(lines) < FEW:
            places = {line: text.find(f"\n{line}\n") for line in lines}
            return {line: text.count("\n", 0, at) for line, at in places.items() if at >= 0}
        wanted = frozenset(lines)
        found = [(line, n) for n, line in enumerate(self.lines) if line in wanted]
        return dict(reversed(found))

    @property
    def lines(self) -> list[str]:
        """The lines of the file."""
        return self._text.split("\n")[1:-1]

    def __contains__(self, name: str) -> bool:
        return bool(self.modules_of(name))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(name, module) of every function, in the order of the file, doubles left out."""
        seen: set[str] = set()
        for line in self._text.split("\n"):
            if line and line not in seen and not line.startswith(UNSAFE_PREFIXES[1]):
                seen.add(line)
                name, _, module = line.partition(" ")
                yield name, _module(module)

    def match(self, name: Pattern, module: Pattern | None = None) -> list[tuple[str, str]]:
        """(name, module) of the functions that a wildcard stands for, sorted.

        Functions that are known to hang the machine when traced are left out.

        :param module: None takes every module.
        """
        if name.text not in self._matched:
            self._matched[name.text] = self._match(name)
        found = self._matched[name.text]
        if module is None or module.text == "*":
            return found
        return [item for item in found if module.matches(item[1])]

    def _match(self, name: Pattern) -> list[tuple[str, str]]:
        import re

        # What the expression begins with is searched for before anything is tried: the end of the
        # line before and the name's first letters, so nothing else may stand there.
        some = r"(?=\S)" if name.text[:1] in ("", "*") else ""
        line = re.compile(rf"\n({some}{name.regex}(?: \[[^\]\n]+\].*)?)(?=\n)")
        lines = sorted(set(line.findall(self._text)) - self._unsafe_lines)
        # "name [module]" stands where "name" does: no character of a name is below the blank.
        return [
            (function, _module(rest)) if rest else (function, KERNEL)
            for function, _, rest in [each.partition(" ") for each in lines]
        ]

    @cached_property
    def _unsafe_lines(self) -> frozenset[str]:
        """The lines of functions that wildcards leave alone."""
        import re

        names = [*UNSAFE_PREFIXES, *(rf"{each}\b" for each in UNSAFE_NAMES)]
        return frozenset(re.findall(rf"\n((?:{'|'.join(names)}).*)", self._text))

    def variants(self, name: str) -> list[str]:
        """Copies of a function that the compiler made: ``name.isra.0``, ``name.constprop.0``."""
        return [found for found, _ in self.match(Pattern(f"{name}.*")) if ".cold" not in found]

    def near(self, name: str) -> list[str]:
        """Functions whose names are like ``name``."""
        return nearest(name, self.names)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all functions."""
        return frozenset(line.partition(" ")[0] for line in self._text.split("\n") if line)


def _module(field: str) -> str:
    """The module of the rest of a line: ``[nf_tables]``, perhaps with flags behind it."""
    return field[1 : field.index("]")] if field.startswith("[") and "]" in field else KERNEL
