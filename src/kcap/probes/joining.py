# SPDX-License-Identifier: Apache-2.0
"""Wildcards of one probe that share a program and a link: ``kprobe:tcp_*,kprobe:udp_* { … }``.

Each link that is made and closed costs the kernel a walk over its symbols and grace periods of RCU,
however many functions it is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kcap.sema.probe import ProbeContext


def joined(contexts: Iterable[ProbeContext]) -> list[ProbeContext]:
    """The contexts of one probe, those put together whose targets one program can serve.

    Contexts say by ``extra["alike"]`` with which others they go. A function that two attach points
    stand for is traced twice, so that these stay apart.
    """
    found: list[ProbeContext] = []
    alike: dict[object, ProbeContext] = {}
    for context in contexts:
        key = _key(context)
        first = alike.get(key) if key is not None else None
        if first is None or not set(first.targets).isdisjoint(context.targets):
            found.append(context)
            if key is not None:
                alike.setdefault(key, context)
        else:
            _take(first, context)
    return found


def _key(context: ProbeContext) -> object:
    """Equal for contexts that go together; None for one that stays alone."""
    if "alike" not in context.extra:
        return None
    kind = context.provider, context.program_type, context.attach_type
    return (*kind, context.extra.get("target_index"), context.extra["alike"])


def _take(first: ProbeContext, other: ProbeContext) -> None:
    """Add the targets of a context to another."""
    first.targets = (*first.targets, *other.targets)
    first.name = f"{first.name},{other.name}"
    if first.span is not None and other.span is not None:
        first.span = first.span.to(other.span)
    first.extra.pop("session", None)  # only probes of one attach point are joined with others
    if "target_names" in first.extra:
        behind = len(first.extra["target_names"])
        first.extra["target_names"] += other.extra["target_names"]
        indices = other.extra["target_indices"].items()
        first.extra["target_indices"].update((target, behind + at) for target, at in indices)
