# SPDX-License-Identifier: Apache-2.0
"""Finding the kernel functions that an attach point ``[module:]function`` names.

Shared by fentry, fexit, kprobe and kretprobe: which modules have the function, whether the kernel
can trace it, and if not, why not and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.lang.diagnostic import Diagnostic
from kcap.probes.names import Pattern
from kcap.probes.problems import NoMatchError, no_match, problem, suggestion
from kcap.probes.renames import known_names, successors
from kcap.probes.traceable import KERNEL
from kcap.records import dataclass
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from kcap.lang.source import Span
    from kcap.probes.base import Part
    from kcap.probes.system import System


@dataclass(frozen=True, slots=True)
class Lookup:
    """What is looked for.

    :param provider: the probe type's full name.
    :param rest: what follows the provider, as written.
    :param module: the module part, or None if there is none.
    :param function: the function part; only ``text`` without offset counts.
    """

    provider: str
    rest: str
    module: Part | None
    function: Part


def check_module(wanted: Lookup, system: System) -> None:
    """See to it that a module named without wildcard is loaded.

    :raises NoMatchError: it is not.
    """
    part = wanted.module
    if part is None or "*" in part.text or part.text == KERNEL or system.modules is None:
        return
    name = part.text.replace("-", "_")  # modules are listed with underscores
    if name in system.modules:
        return
    help_, edits = suggestion(part.span, nearest(part.text, {*system.modules, KERNEL}))
    title = f"specified module {part.text} in probe {wanted.provider}:{wanted.rest} is not loaded."
    note = f"load it (modprobe {part.text}), or leave it out to look in the kernel and all modules"
    raise NoMatchError(
        [
            Diagnostic(
                "module-not-loaded",
                "error",
                title,
                part.span,
                "not loaded",
                help=(*help_, note),
                edits=edits,
            )
        ]
    )


def traceable_modules(wanted: Lookup, name: str, system: System) -> list[str]:
    """The modules that have a traceable function ``name``, KERNEL for the kernel itself.

    Where the kernel does not tell which functions are traceable (only root may read that), a
    function counts as traceable if BTF or kallsyms have it, or if there is neither to ask.

    :raises NoMatchError: the function is unknown or can't be traced.
    """
    check_module(wanted, system)
    module = Pattern(wanted.module.text.replace("-", "_") if wanted.module else "*")
    if system.functions is not None:
        found = [m for m in system.functions.modules_of(name) if module.matches(m)]
    else:
        found = [m for m in modules_with_type(name, system) if module.matches(m)]
        if not found and system.has_symbol(name) is not False:
            found = [module.text if wanted.module and module.exact else KERNEL]
    if not found:
        raise not_traceable(wanted, name, system)
    return found


def modules_with_type(name: str, system: System) -> list[str]:
    """The modules whose BTF has a function ``name``; the other modules are not looked at if the
    kernel itself has it."""
    if system.btf is not None and system.btf.find(name, b.Func):
        return [KERNEL]
    found = []
    for module in system.btf_modules:
        btf = system.module_btf(module)
        if btf is not None and next(btf.find_all(name, b.Func), None) is not None:
            found.append(module)
    return found


def not_traceable(wanted: Lookup, name: str, system: System) -> NoMatchError:
    """The error for a function that does not exist or can't be traced, with the reason."""
    near, notes, same = _instead(wanted, name, system)
    help_, edits = suggestion(wanted.function.span, near[:3], name, same=same)
    return no_match(
        wanted.provider,
        wanted.rest,
        wanted.function.span,
        label="can't be traced" if _exists(name, system) else "no such function",
        notes=[_why_not(wanted, name, system), *notes],
        help=help_,
        edits=edits,
        warnings=[untraced(name, wanted.function.span)],
    )


def untraced(name: str, span: Span) -> Diagnostic:
    """The warning that attaching to a function will hardly work."""
    reason = (
        f'{name} is not traceable (either non-existing, inlined, or marked as "notrace"); '
        "attaching to it will likely fail"
    )
    return Diagnostic("not-traceable", "warning", reason, span)


def _instead(wanted: Lookup, name: str, system: System) -> tuple[list[str], list[str], bool]:
    """What to propose in place of a function that can't be traced.

    :return: (functions, notes on them, whether the first is known to be the same function).
    """
    renamed, notes = _successors(name, system)
    if renamed:
        return renamed, notes, True
    functions = system.functions
    if functions is None:
        every = [found for _, found in system.btf.functions()] if system.btf is not None else []
    else:
        variants = functions.variants(name)
        if variants and wanted.provider in ("kprobe", "kretprobe"):
            return variants, ["the compiler made a copy of it under another name"], True
        if variants:
            kind = "kprobe" if wanted.provider == "fentry" else "kretprobe"
            note = f"the compiler made a copy of it that BTF leaves out: {kind}:{variants[0]}"
            return [], [note], False
        every = list(functions.names)
    near = nearest(name, every)
    # A misspelt name may be one that this kernel no longer has.
    for old in nearest(name, [*near, *known_names()], 1):
        renamed, notes = _successors(old, system)
        if renamed and old not in every:
            return renamed, notes, False
    return near, [], False


def _successors(name: str, system: System) -> tuple[list[str], list[str]]:
    """The functions of this machine that took the place of ``name``, with what happened."""
    found = [item for item in successors(name) if _is_there(item[0], system)]
    return [new for new, _ in found], list(dict.fromkeys(note for _, note in found))


def _is_there(name: str, system: System) -> bool:
    if system.functions is not None:
        return name in system.functions
    return bool(modules_with_type(name, system))


def _exists(name: str, system: System) -> bool:
    return bool(system.has_symbol(name)) or bool(modules_with_type(name, system))


def _why_not(wanted: Lookup, name: str, system: System) -> str:
    """What is known about a function that is not among the traceable ones."""
    elsewhere = system.functions.modules_of(name) if system.functions is not None else ()
    if wanted.module is not None and elsewhere:
        return f"{name} is in {', '.join(elsewhere)}, not in {wanted.module.text}"
    if name in system.blacklist:
        return f"{name} is in the kernel's blacklist: a probe in it could make the kernel recurse"
    if system.has_symbol(name):
        return (
            f"{name} exists, but ftrace has no hook in it: it is marked notrace, or built without "
            "instrumentation"
        )
    if modules_with_type(name, system):
        return f"BTF has {name}, but the kernel has no code of its own for it: it is inlined"
    return f"this kernel has no function {name}: it is inlined everywhere, or never was there"


def ambiguous(wanted: Lookup, name: str, modules: list[str]) -> Exception:
    """The error for a function that several modules have, where one has to be chosen."""
    listed = ", ".join(modules)
    choices = [f"{wanted.provider}:{module}:{name}" for module in modules]
    return problem(
        "ambiguous-function",
        f"ambiguous attach point: {name} is in {listed}",
        wanted.function.span,
        label=f"in {len(modules)} modules",
        help=(f"name the module: {' or '.join(choices)}",),
    )
