# SPDX-License-Identifier: Apache-2.0
"""What the kernel's refusal to attach a probe means, with the place in the script."""

from __future__ import annotations

from errno import EILSEQ
from typing import TYPE_CHECKING

from kcap.kernel.errors import AttachError, PermissionDeniedError
from kcap.kernel.syscall import error_name, strerror
from kcap.lang.diagnostic import Diagnostic, ScriptError

if TYPE_CHECKING:
    from kcap.kernel.errors import SyscallError
    from kcap.sema.probe import ProbeContext

CODE = "not-attached"
_OPTIONAL = 'if it may be missing: config = { missing_probes = "warn" }'


class NotAttachedError(ScriptError):
    """The kernel refused to attach a probe of a script; the diagnostic says why.

    :param error: what the kernel said.
    :param diagnostic: what it means.
    """

    def __init__(self, error: SyscallError, diagnostic: Diagnostic) -> None:
        super().__init__([diagnostic])
        self.error = error


def not_attached(error: SyscallError, context: ProbeContext) -> NotAttachedError:
    """The error to raise when a probe of a script can't be attached.

    :param context: the probe.
    """
    title = f"Unable to attach probe: {context.name}"
    notes: tuple[str, ...] = ()
    if error.errno == EILSEQ:  # its message says it all
        title, notes = str(error), (title,)
    elif isinstance(error, AttachError | PermissionDeniedError):
        title += f": {strerror(error.errno)} ({error_name(error.errno)})"
    else:
        title += f": {error}"
    allowed = not isinstance(error, PermissionDeniedError)
    help_ = [error.hint or "", _OPTIONAL if allowed else ""]
    diagnostic = Diagnostic(
        CODE,
        "error",
        title,
        context.span,
        "the kernel refuses this probe" if allowed else "this is not allowed here",
        notes=notes,
        help=tuple(line for line in help_ if line),
    )
    return NotAttachedError(error, diagnostic)
