# SPDX-License-Identifier: Apache-2.0
"""What has to be under way before a script is checked: the compiler's process, the command of
``-c`` (whose process id the script may use)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kcap.closing import Closing
from kcap.codegen.objects import ObjectSource
from kcap.records import replace
from kcap.session import script
from kcap.session.child import Child
from kcap.session.trace import Trace

if TYPE_CHECKING:
    from kcap.session.packets import PacketOptions
    from kcap.session.script import Checked, Options


class Preparation(Closing):
    """From options to a trace. A context manager: what the trace did not take over is ended.

    :param options: what the script is to be run with.
    :raises UsageError: the command of ``-c`` cannot be taken.
    """

    def __init__(self, options: Options) -> None:
        self._child = Child(options.command) if options.command else None
        child_pid = self._child.pid if self._child is not None else 0
        self.options = replace(options, child_pid=child_pid)
        self.objects: ObjectSource | None = None

    def check(self, text: str, name: str) -> Checked:
        """Parse and check the script. Meanwhile LLVM is loaded, unless it won't be needed.

        :raises ScriptError: it is wrong.
        """
        self.objects = ObjectSource(self._hint(text, name), cached=self.options.cached)
        return script.compile(text, name=name, options=self.options, ask_kernel=True)

    def _hint(self, text: str, name: str) -> str:
        """All that is known before parsing of what the script will be compiled to."""
        options = self.options
        known = (
            (os.uname().release, os.path.abspath(name), *options.parameters),
            (*sorted(options.named.items()), *options.include_directories, *options.includes),
            (options.pid, options.unsafe, options.helper_errors, options.traceable_file),
        )
        return f"{known}\n{text}"

    def trace(self, checked: Checked, *, packets: bool | PacketOptions) -> Trace:
        """Compile and load it.

        :param packets: yield packets, too; or what becomes of them (see :class:`Trace`).
        :raises KcapError: the kernel refuses it, or a file cannot be written.
        """
        child, self._child = self._child, None
        return Trace(checked, self.objects, child, packets=packets)

    def close(self) -> None:
        """End the compiler's process and the command, unless a trace has taken them over."""
        if self.objects is not None:
            self.objects.close()
        if self._child is not None:
            self._child.close()
