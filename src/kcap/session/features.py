# SPDX-License-Identifier: Apache-2.0
"""Which features of the running kernel code generation may count on: only those that a script
would use are asked for, since asking means loading a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen.module import Features
from kcap.sema import tree

if TYPE_CHECKING:
    from collections.abc import Callable


def probe_features(script: tree.Script) -> Features:
    """Ask the kernel; what cannot be told (no rights) is taken for there, and loading will say."""
    from kcap.kernel import features

    loops = any(_uses(script, tree.ForRange))
    maps = any(_uses(script, tree.ForMap))
    return Features(
        loop=not loops or _there(features.loop),
        for_each=not maps or _there(features.for_each_map_elem),
    )


def _uses(script: tree.Script, kind: type[tree.Node]) -> list[bool]:
    return [
        isinstance(node, kind) for program in script.programs for node in tree.walk(program.body)
    ]


def _there(question: Callable[[], bool | None]) -> bool:
    return question() is not False
