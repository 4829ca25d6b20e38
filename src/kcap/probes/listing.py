# SPDX-License-Identifier: Apache-2.0
"""What ``-l`` prints: the probes that exist, or those of a script, and with ``-v`` their arguments.

A search is a list of patterns separated by commas. A pattern is ``provider:part:part`` with
wildcards; without a colon it is looked for in the names of all probes; ``struct NAME``, ``union
NAME`` and ``enum NAME`` look for types.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.btf import render
from kcap.probes.base import put_in
from kcap.probes.names import Pattern
from kcap.probes.registry import probe_type, probe_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kcap.lang.ast import AttachPoint
    from kcap.probes.base import ProbeType
    from kcap.probes.system import System

INDENT = "    "
_KINDS: dict[str, type[b.Type]] = {"struct": b.Struct, "union": b.Union, "enum": b.Enum}


def list_probes(search: str, system: System, verbose: bool = False) -> Iterator[str]:
    """What ``-l SEARCH`` prints: a line for each probe, or lines with line feeds between them.

    :param search: patterns; '' lists every probe.
    :param verbose: with the arguments of each probe below it (``-lv``).
    """
    for pattern in split_search(search) or [""]:
        keyword, _, name = pattern.partition(" ")
        if keyword in _KINDS and name:
            yield from list_types(keyword, name.strip(), system, verbose)
        else:
            yield from _with_arguments(_matching(pattern, system), system, verbose)


def list_points(
    points: Iterable[AttachPoint], system: System, verbose: bool = False
) -> Iterator[str]:
    """What ``-l`` prints for a script: what its attach points stand for, each once."""
    seen: set[str] = set()
    for point in points:
        found = []
        for name in _of_point(point, system):
            if name not in seen:
                seen.add(name)
                found.append(name)
        yield from _with_arguments(found, system, verbose)


def list_types(keyword: str, name: str, system: System, verbose: bool) -> Iterator[str]:
    """Structs, unions or enums by pattern; verbose: their definitions in C."""
    kind, wanted = _KINDS[keyword], Pattern(name)
    for module in ("vmlinux", *system.btf_modules):
        btf = system.module_btf(module)
        if btf is None:
            continue
        names = [name] if wanted.exact else [n for n in btf.names(kind) if wanted.matches(n)]
        for found in sorted(set(names)):
            for definition in btf.find_all(found, kind):
                yield (
                    f"{module}: {render.layout(btf, definition)}"
                    if verbose
                    else (f"{keyword} {found}")
                )
                if not verbose:
                    break


def split_search(search: str) -> list[str]:
    """The patterns of a search: parts between commas that are not in quotes."""
    found, quoted, current = [], False, ""
    for character in search:
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            found.append(current.strip())
            current = ""
            continue
        current += character
    found.append(current.strip())
    return [pattern for pattern in found if pattern]


def _matching(pattern: str, system: System) -> Iterator[str]:
    """The full names that one pattern stands for."""
    if ":" not in pattern:
        yield from _anywhere(pattern, system)
        return
    provider, *parts = _split(pattern)
    for kind in _kinds(provider):
        yield from kind.names(_shorn(parts), system)


def _anywhere(pattern: str, system: System) -> Iterator[str]:
    """Names that match after the provider, wherever; all of a provider that is named alone."""
    named = [kind for kind in probe_types() if pattern in (kind.name, *kind.aliases)]
    for kind in named or probe_types():
        yield from kind.names([], system) if named else kind.search(pattern or "*", system)


def _kinds(provider: str) -> list[ProbeType]:
    """The probe types that a provider stands for: a name, a short name or a wildcard."""
    if "*" not in provider:
        try:
            return [probe_type(provider)]
        except KeyError:
            return []
    wanted = Pattern(provider)
    return [kind for kind in probe_types() if wanted.matches(kind.name)]


def _split(pattern: str) -> list[str]:
    """The parts of a pattern, split at colons outside quotes, quotes removed."""
    parts, quoted = [""], False
    for character in pattern:
        if character == '"':
            quoted = not quoted
        elif character == ":" and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _shorn(parts: list[str]) -> list[str]:
    """Parts without empty ones at the end (``software:cpu:``); a lone ``*`` takes all."""
    while parts and not parts[-1]:
        parts = parts[:-1]
    return [] if parts == ["*"] else parts


def _of_point(point: AttachPoint, system: System) -> list[str]:
    parts = [put_in(part.text, part.span, system.params) for part in point.parts]
    found = [name for kind in _kinds(point.provider.text) for name in kind.names(parts, system)]
    return found or [point.text]


def _with_arguments(names: Iterable[str], system: System, verbose: bool) -> Iterator[str]:
    """Each name; verbose: with the lines of its arguments below it."""
    if not verbose:
        yield from names
        return
    for provider, alike in groupby(names, lambda name: name.partition(":")[0]):
        parameters = probe_type(provider).parameters
        for name in alike:
            yield f"\n{INDENT}".join((name, *parameters(name, system)))
