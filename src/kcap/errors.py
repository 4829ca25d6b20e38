# SPDX-License-Identifier: Apache-2.0
"""The one tree of exceptions that kcap raises.

Every error says what went wrong; where known it also carries the cause (``__cause__``), the file
or the place in the script, the full log, and an action that mends it. The command line prints
these; the library raises them. Subclasses that need more context (diagnostics with spans, a
verifier log) live in the layer that raises them and derive from a class of this module.
"""

from __future__ import annotations


class KcapError(Exception):
    """Base of all errors that kcap raises on purpose.

    :param message: one line that says what is wrong.
    :param hint: what the user can do about it, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(KcapError):
    """A command line that cannot be taken: an unknown option, a missing argument."""


class NoProbesError(UsageError):
    """Nothing of a script is left that could be attached."""

    def __init__(self, *, hint: str | None = None) -> None:
        super().__init__("No probes to attach", hint=hint)


class UnknownOptionError(UsageError):
    """An option that there is not: the usage text helps."""


class FileError(KcapError):
    """A file that cannot be read, created or written.

    :param path: the file.
    """

    def __init__(self, message: str, path: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class KernelError(KcapError):
    """The running kernel refused or lacks something."""
