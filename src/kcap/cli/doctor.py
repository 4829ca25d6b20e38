# SPDX-License-Identifier: Apache-2.0
"""``kcap doctor``: what this machine can do, as a table or as JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kcap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kcap.diagnose.doctor import Point

USAGE = """\
usage: kcap doctor [--json]

Looks at what tracing and packet capture need: the kernel, rights, BTF, ftrace, kinds of programs,
helpers, settings. Exit status: 0 if packets can be captured here, 1 if not, 2 if that can't be
told (most often: not root).

  --json      print it as JSON
  -h, --help  print this
"""

_MARKS = {True: "ok", False: "NO", None: "?"}


def main(argv: Sequence[str]) -> int:
    """Run ``kcap doctor`` with the arguments after ``doctor``; the exit status."""
    for word in argv:
        if word in ("-h", "--help"):
            print(USAGE, end="")
            return 0
        if word != "--json":
            raise UsageError(f"kcap doctor has no option {word}", hint="see kcap doctor --help")
    from kcap.diagnose.doctor import Doctor, capture_works
    from kcap.kernel import features
    from kcap.probes.system import System

    points = Doctor(System(), features).points()
    works = capture_works(points)
    if argv:
        _print_json(points, works)
    else:
        print("\n".join(table(points, works)))
    sys.stdout.flush()
    return {True: 0, False: 1, None: 2}[works]


def _print_json(points: list[Point], works: bool | None) -> None:
    import json

    data = {"capture": works, "points": [point.as_data() for point in points]}
    print(json.dumps(data, indent=2))


def table(points: list[Point], works: bool | None) -> list[str]:
    """The points as lines of text: what was found, and, where something is missing, what it is
    for and how to get it."""
    width = max(len(point.name) for point in points)
    lines: list[str] = []
    group = ""
    for point in points:
        if point.group != group:
            group = point.group
            lines += ["", group] if lines else [group]
        lines.append(f"  {_MARKS[point.ok]:2}  {point.name:{width}}  {point.found}")
        if not point.ok:
            indent = " " * (width + 8)
            lines.append(f"{indent}for: {point.why}")
            lines.append(f"{indent}get: {point.how}")
    lines.append("")
    lines.append(
        {
            True: "Packets can be captured here.",
            False: "Packets can't be captured here: see the lines marked NO.",
            None: "Whether packets can be captured can't be told: see the lines marked ?.",
        }[works]
    )
    return lines
