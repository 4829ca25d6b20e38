# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a running program: helpers that fail, divisions by zero, indices out of range.

Each is an event of its own, sent from where it happens, so that it can be said with its place in
the script. Failing helpers are only reported with ``-k``: a look-up that finds nothing is no error
in most scripts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.codegen import events
from kcap.codegen.site import ProblemSite
from kcap.kernel.helpers import NAMES

if TYPE_CHECKING:
    from kcap.codegen.emitter import Emitter
    from kcap.codegen.ir import Operand
    from kcap.lang.source import Span

DIVISION = (
    "Divide or modulo by 0 detected. This can lead to unexpected results. "
    "1 is being used as the result."
)
OUT_OF_BOUNDS = "Array access out of bounds. This can lead to unexpected results."
_NOT_FOUND = "Can't lookup map element because it does not exist."


def division_by_zero(gen: Emitter, is_zero: Operand) -> None:
    """Report a divisor of zero where the i1 holds."""
    _report(gen, is_zero, ProblemSite("", DIVISION, gen.span), "0")


def out_of_bounds(gen: Emitter, outside: Operand) -> None:
    """Report an index that its array doesn't have where the i1 holds."""
    _report(gen, outside, ProblemSite("", OUT_OF_BOUNDS, gen.span), "0")


def check_read(gen: Emitter, helper: int, status: Operand, span: Span | None) -> None:
    """With ``-k``, report a read of memory that failed: its i64 result is negative.

    :param span: the pointer that was followed, or None for the expression at hand.
    """
    if gen.module.helper_errors:
        failed = gen.ir.compare("slt", "i64", status, "0")
        _report(gen, failed, ProblemSite(NAMES[helper], "", span or gen.span), status)


def check_lookup(gen: Emitter, found: Operand) -> None:
    """With ``-k``, report a look-up that found nothing: its ``ptr`` result is null."""
    if gen.module.helper_errors:
        missing = gen.ir.compare("eq", "ptr", found, "null")
        _report(gen, missing, ProblemSite("map_lookup_elem", _NOT_FOUND, gen.span), "0")


def _report(gen: Emitter, condition: Operand, site: ProblemSite, code: Operand) -> None:
    def fill(payload: Operand) -> None:
        gen.ir.store("i64", code, payload)

    with gen.ir.if_(condition):
        events.send(gen, site, fill)
