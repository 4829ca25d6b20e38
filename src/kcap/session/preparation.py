# SPDX-License-Identifier: Apache-2.0
"""What has to be under way before a script is checked: the compiler's process, the command of
``-c`` (whose process id the script may use)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kcap.closing import Closing
from kcap.records import replace
from kcap.session.child import Child
from kcap.session.trace import Trace

if TYPE_CHECKING:
    from kcap.codegen.objects import ObjectSource
    from kcap.session.compiled import CompiledScript
    from kcap.session.kept import KeptScript
    from kcap.session.options import Options
    from kcap.session.packets import PacketOptions
    from kcap.session.script import Checked


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
        self._kept: KeptScript | None = None

    def prepare(self, text: str, name: str) -> Checked | CompiledScript:
        """The script as it was compiled before, or else checked now: for those who run it as it is.

        :raises ScriptError: it is wrong.
        """
        from kcap.session.kept import KeptScript

        self._kept = KeptScript(text, name, self.options)
        found = self._kept.find()
        return found if found is not None else self.check(text, name)

    def check(self, text: str, name: str) -> Checked:
        """Parse and check the script. Meanwhile LLVM is loaded, unless it won't be needed.

        :raises ScriptError: it is wrong.
        """
        from kcap.codegen.objects import ObjectSource

        self.objects = ObjectSource(self._hint(text, name), cached=self.options.cached)
        from kcap.session import script

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

    def trace(self, script: Checked | CompiledScript, *, packets: bool | PacketOptions) -> Trace:
        """Compile and load it.

        :param packets: yield packets, too; or what becomes of them (see :class:`Trace`).
        :raises KcapError: the kernel refuses it, or a file cannot be written.
        """
        child, self._child = self._child, None
        trace = Trace(script, self.objects, child, packets=packets)
        if self._kept is not None and trace.script is not script:  # it was compiled just now
            self._kept.keep(trace.script)
        return trace

    def close(self) -> None:
        """End the compiler's process and the command, unless a trace has taken them over."""
        if self.objects is not None:
            self.objects.close()
        if self._child is not None:
            self._child.close()
