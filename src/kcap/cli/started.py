# SPDX-License-Identifier: Apache-2.0
"""What commands that trace do once everything is attached."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kcap.session.trace import Trace


def started(trace: Trace, *, verbose: bool) -> None:
    """Let the collector work, which a start does without; what that made stays.

    :param verbose: say how long each phase took, and how probes with many targets were attached.
    """
    gc.freeze()
    gc.enable()
    if verbose:
        print(*trace.timings.lines(), sep="\n", file=sys.stderr)
        print(*trace.ways(), sep="\n", file=sys.stderr)
