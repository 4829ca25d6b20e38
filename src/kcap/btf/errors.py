# SPDX-License-Identifier: Apache-2.0
"""Errors that the BTF layer raises."""

from __future__ import annotations

from kcap.errors import KernelError


class BtfError(KernelError):
    """BTF that is missing, truncated or not understood."""


class BtfNotFoundError(BtfError):
    """The kernel, or the module, has no BTF to read."""
