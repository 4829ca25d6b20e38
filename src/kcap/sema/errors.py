# SPDX-License-Identifier: Apache-2.0
"""Errors inside semantic analysis; what leaves it is a ``ScriptError`` with all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.errors import KcapError

if TYPE_CHECKING:
    from kcap.lang.diagnostic import Diagnostic


class SemaError(KcapError):
    """A statement that can't be taken; analysis notes it and goes on with the next statement.

    :param diagnostic: what is wrong and where.
    """

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.title, hint=diagnostic.help[0] if diagnostic.help else None)
        self.diagnostic = diagnostic


class PendingType(SemaError):
    """A type that this inference pass does not know yet; in the last pass, an error."""
