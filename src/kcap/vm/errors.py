# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with guests."""

from __future__ import annotations

from kcap.errors import KcapError


class VmError(KcapError):
    """A guest, its kernel or its images could not be had.

    :param message: one line that says what is wrong.
    :param hint: what the user can do about it, or None.
    :param log: the full output of the program that failed, or the console's last lines.
    """

    def __init__(self, message: str, *, hint: str | None = None, log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.log = log
        if log:
            # So that a traceback shows it too.
            self.add_note(log)


class RequirementError(VmError):
    """A program or a file of this machine that guests need is missing."""


class FetchError(VmError):
    """Packages could not be found, downloaded or unpacked."""


class BootError(VmError):
    """The guest did not come up. ``log`` holds the console's last lines."""


class GuestDied(VmError):
    """The guest went away while it was in use. ``log`` holds the console's last lines.

    :ivar stale_breakpoint: whether the kernel died of a breakpoint that it had removed before.
        Emulating several CPUs, QEMU 7.2 sometimes runs code that has been patched meanwhile
        (the kernel patches itself through ``int3``: arch/x86/kernel/alternative.c, text_poke_bp).
        The same thing tried again then works.
    """

    stale_breakpoint = False
