# SPDX-License-Identifier: Apache-2.0
"""``--info``: what the kernel and this installation can do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kcap.session.info import Answer, Section


def print_info() -> int:
    """Print the table; the exit status."""
    from kcap.probes.system import System
    from kcap.session.info import sections

    table = sections(System())
    print(text(table), end="")
    unknown = any(answer is None for section in table for _, answer in section.answers)
    if unknown:
        print("what can't be told needs root (CAP_BPF, CAP_PERFMON)", file=sys.stderr)
    return 0


def text(table: list[Section]) -> str:
    """The table as it is printed: a heading a section, a line an answer."""
    parts = []
    for section in table:
        lines = [f"  {name}: {_shown(answer)}\n" for name, answer in section.answers]
        parts.append(f"{section.title}\n{''.join(lines)}")
    return "\n".join(parts)


def _shown(answer: Answer) -> str:
    if isinstance(answer, str):
        return answer
    return {True: "yes", False: "no", None: "can't tell"}[answer]
