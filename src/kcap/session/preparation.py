# SPDX-License-Identifier: Apache-2.0
"""What has to be under way before a script is checked: the compiler's process, the command of
``-c`` (whose process id the script may use)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kcap.codegen.llvm import Compiler
from kcap.session import script
from kcap.session.child import Child
from kcap.session.trace import Trace

if TYPE_CHECKING:
    from types import TracebackType

    from kcap.session.script import Checked, Options


class Preparation:
    """From options to a trace. A context manager: what the trace did not take over is ended.

    :param options: what the script is to be run with.
    :raises UsageError: the command of ``-c`` cannot be taken.
    """

    def __init__(self, options: Options) -> None:
        self._child = Child(options.command) if options.command else None
        child_pid = self._child.pid if self._child is not None else 0
        self.options = replace(options, child_pid=child_pid)
        self.compiler = Compiler()  # loads LLVM while the script is parsed and checked

    def check(self, text: str, name: str) -> Checked:
        """Parse and check the script.

        :raises ScriptError: it is wrong.
        """
        return script.compile(text, name=name, options=self.options)

    def trace(self, checked: Checked, *, packets: bool) -> Trace:
        """Compile and load it.

        :param packets: yield packets, too.
        :raises KcapError: the kernel refuses it, or a file cannot be written.
        """
        child, self._child = self._child, None
        return Trace(checked, self.compiler, child, packets=packets)

    def __enter__(self) -> Preparation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.compiler.close()
        if self._child is not None:
            self._child.close()
