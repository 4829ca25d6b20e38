# SPDX-License-Identifier: Apache-2.0
"""What is known about a helper, a probe type, or a kernel function, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.diagnose.helpertable import table
from kcap.diagnose.programkinds import KINDS
from kcap.errors import UsageError
from kcap.kernel import helpers
from kcap.probes.names import enumerate_words
from kcap.probes.traceable import KERNEL
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from kcap.codegen.function import Function
    from kcap.diagnose.helpertable import Release, Row
    from kcap.probes.base import ProbeType
    from kcap.probes.system import System


def about_helper(name: str) -> list[str]:
    """Who may call a helper, since when.

    :param name: with or without ``bpf_``, or its number.
    :raises UsageError: there is none.
    """
    short = name.removeprefix("bpf_")
    number = int(name) if name.isdigit() else helpers.NUMBERS.get(short, 0)
    row = table().rows.get(number)
    if row is None:
        near = nearest(short, helpers.NUMBERS)
        hint = f"did you mean {enumerate_words(near)}?" if near else None
        raise UsageError(f"there is no BPF helper {name}", hint=hint)
    lines = [f"{helpers.name(number)} (number {number})"]
    if row.introduced is not None:
        lines.append(f"  in the kernel since Linux {_text(row.introduced)}")
    users = functions_that_need(number)
    lines.append(f"  needed by {enumerate_words(users, 'and')}" if users else "  needed by nothing")
    oldest = table().probed[0]
    lines.append("  who may call it:")
    width = max(len(kind.text) for kind in KINDS)
    for kind in KINDS:
        probes = ", ".join(kind.probes)
        lines.append(f"    {kind.text:{width}}  {_since(row, kind.key, oldest):14}  {probes}")
    return lines


def _since(row: Row, key: str, oldest: Release) -> str:
    if key in row.configured:
        return "if built so"
    since = row.since.get(key)
    if since is None:
        return "no"
    introduced = row.introduced or oldest
    return f"since {_text(introduced)}" if since == oldest else f"by Linux {_text(since)}"


def _text(release: Release) -> str:
    return f"{release[0]}.{release[1]}"


def functions_that_need(number: int) -> list[str]:
    """The language's functions that call a helper, as they are written."""
    from kcap.functions.registry import all_functions

    found = {f for f in all_functions().values() if number in f.helpers}
    return sorted(f.name if f.arity == (0, 0) else f"{f.name}()" for f in found)


def about_name(name: str, system: System) -> list[str]:
    """What is known of a name, whatever it is the name of: a builtin or function of the language, a
    probe type, a BPF helper, a kernel function. Empty if nothing is."""
    from kcap.functions.registry import all_functions
    from kcap.probes.registry import probe_types

    found: list[list[str]] = []
    if name in all_functions():
        found.append(_about_call(all_functions()[name]))
    if any(name in (kind.name, *kind.aliases) for kind in probe_types()):
        found.append(about_probe(name))
    if name.removeprefix("bpf_") in helpers.NUMBERS:
        found.append(about_helper(name))
    elif has_function(name, system):
        found.append(about_function(name, system))
    return [line for lines in found for line in ("", *lines)][1:]


def _about_call(function: Function) -> list[str]:
    """What a builtin or function of the language does, and what of the kernel it needs."""
    lines = [*function.signatures, f"  {function.summary}"]
    if function.aliases:
        lines.append(f"  also written {enumerate_words(function.aliases)}")
    for number in sorted(function.helpers):
        row = table().rows.get(number)
        since = f" (Linux {_text(row.introduced)})" if row and row.introduced else ""
        lines.append(f"  calls {helpers.name(number)}{since}: kcap explain {helpers.name(number)}")
    return lines


def about_probe(name: str) -> list[str]:
    """What a probe type offers.

    :param name: its full, short or old name.
    :raises UsageError: there is none.
    """
    from kcap.probes.registry import probe_type, probe_types

    try:
        found = probe_type(name)
    except KeyError:
        known = [kind.name for kind in probe_types()]
        near = nearest(name, known) or known
        raise UsageError(
            f"there is no probe type {name}", hint=f"there is {enumerate_words(near, 'and')}"
        ) from None
    return _about_probe(found)


def _about_probe(found: ProbeType) -> list[str]:
    kind = next((kind for kind in KINDS if found.name in kind.probes), None)
    lines = [f"{found.name}: {found.summary}"]
    lines += [f"  {signature}" for signature in found.signatures]
    if found.aliases:
        lines.append(f"  also written {enumerate_words(found.aliases)}")
    if found.cost:
        lines.append(f"  an event costs: {found.cost}")
    if kind is None:
        return lines
    lines.append(f"  loaded as {kind.text}")
    if found.programs_per_target:
        lines.append("  one program is loaded for each target")
    from kcap.functions.registry import all_functions

    refused = {
        f"{f.name}()" if f.arity != (0, 0) else f.name
        for f in all_functions().values()
        if any(table().allowed(helper, kind, None) is False for helper in f.helpers)
    }
    lines.append(
        f"  can't be used in it: {enumerate_words(sorted(refused), 'and')}"
        if refused
        else "  every function of the language can be used in it, as far as helpers go"
    )
    return lines


def has_function(name: str, system: System) -> bool:
    """Whether anything of a kernel function is known here: its type, or that it can be traced."""
    from kcap.probes.function_lookup import modules_with_type

    traceable = system.functions is not None and name in system.functions
    return traceable or bool(modules_with_type(name, system))


def about_function(name: str, system: System) -> list[str]:
    """What this machine knows of a kernel function: arguments, whether and how it can be traced,
    other names."""
    from kcap import btf as b
    from kcap.btf import render
    from kcap.probes import args
    from kcap.probes.function_lookup import modules_with_type
    from kcap.probes.renames import successors

    lines = []
    fentry = ""
    for module in modules_with_type(name, system):
        btf = system.module_btf(module)
        function = next(btf.find_all(name, b.Func), None) if btf is not None else None
        if btf is None or function is None:
            continue
        where = "the kernel itself" if module == KERNEL else f"module {module}"
        lines.append(f"{render.signature(btf, function)}")
        lines.append(f"  in the BTF of {where}")
        proto = btf.prototype(function)
        fentry = args.refusal(btf, proto, structs=system.takes_structs) or "yes"
    if not lines:
        lines = [name, "  not in BTF: fentry can't trace it, and its arguments are not known"]
    lines += _how(name, fentry, system)
    for other, note in successors(name):
        here = system.functions is not None and other in system.functions
        lines.append(f"  see {other}{' (on this kernel)' if here else ''}: {note}")
    return lines


def _how(name: str, fentry: str, system: System) -> list[str]:
    functions = system.functions
    if functions is None:
        near = [] if fentry else nearest(name, system.function_ids(KERNEL))
        like = [f"  names like it: {', '.join(near)}"] if near else []
        return [*like, "  whether it can be traced can't be told: run as root"]
    if name not in functions:
        lines = ["  can't be traced: ftrace does not have it"]
        if system.has_symbol(name):
            lines.append("  it exists: it is marked notrace, or built without instrumentation")
        variants = functions.variants(name)
        if variants:
            lines.append(f"  the compiler made {enumerate_words(variants, 'and')} of it")
        near = functions.near(name)
        return lines + ([f"  names like it: {', '.join(near)}"] if near else [])
    lines = [
        "  kprobe: no, it is in the blacklist" if name in system.blacklist else "  kprobe: yes"
    ]
    lines.append(
        f"  fentry: {fentry}" if fentry == "yes" else f"  fentry: no, {fentry or 'no BTF'}"
    )
    return lines
