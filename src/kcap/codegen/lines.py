# SPDX-License-Identifier: Apache-2.0
"""Telling LLVM which place of the script each instruction comes from.

Only for a program that a kernel refused: it is compiled once more with this, so that the verifier
and the explanation of what it says can name lines. A "line" in the debug information is the number
of a span in a table, since a script's line often holds several statements, and what a macro or an
import brought in stands in other files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kcap.lang.source import Span

_FIRST_SCOPE = 10
_MODULE = """\
!llvm.dbg.cu = !{!0}
!llvm.module.flags = !{!1}
!0 = distinct !DICompileUnit(language: DW_LANG_C99, file: !2, isOptimized: true, \
runtimeVersion: 0, emissionKind: FullDebug)
!1 = !{i32 2, !"Debug Info Version", i32 3}
!2 = !DIFile(filename: "/dev/null/script", directory: "")
!3 = !DISubroutineType(types: !4)
!4 = !{null}"""
# The file must not exist: LLVM's BPF back end would put its text into the object.


class SourceLines:
    """The spans of a script's instructions, and the functions that they are in.

    :ivar spans: line *n* of the debug information is ``spans[n - 1]``.
    :ivar now: where what is emitted now comes from; None if it has no place of its own.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.now: Span | None = None
        self._numbers: dict[Span, int] = {}
        self._scopes: list[tuple[str, int]] = []

    def scope(self, function: str) -> int:
        """Note a function that begins; the number that :meth:`location` wants for it."""
        self._scopes.append((function, self._number()))
        return _FIRST_SCOPE + len(self._scopes) - 1

    def location(self, scope: int) -> str:
        """What to append to an instruction of a function."""
        number = self._number()
        return f", !dbg !DILocation(line: {number}, scope: !{scope})" if number else ""

    def _number(self) -> int:
        if self.now is None:
            return 0
        number = self._numbers.get(self.now, 0)
        if not number:
            self.spans.append(self.now)
            number = self._numbers[self.now] = len(self.spans)
        return number

    def metadata(self) -> str:
        """The module's debug information."""
        scopes = [
            f'!{number} = distinct !DISubprogram(name: "{name}", file: !2, line: {line}, '
            "type: !3, unit: !0, spFlags: DISPFlagDefinition)"
            for number, (name, line) in enumerate(self._scopes, _FIRST_SCOPE)
        ]
        return "\n".join([_MODULE, *scopes])
