# SPDX-License-Identifier: Apache-2.0
"""kcap: the bpftrace language in Python, with packet capture at any kernel function.

``kcap.compile(text)`` checks a script; ``kcap.trace(text)`` runs it::

    with kcap.trace('fentry:icmp_rcv { printf("%d\\n", args.skb.len); }') as trace:
        for event in trace:
            print(event)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.errors import KcapError
from kcap.version import __version__

if TYPE_CHECKING:
    from kcap.session.script import Checked, Options
    from kcap.session.trace import Trace

__all__ = ["Checked", "KcapError", "Options", "Trace", "__version__", "compile", "trace"]


def compile(text: str, *, name: str = "stdin", options: Options | None = None) -> Checked:
    """Parse and check a script; needs no privilege. See :func:`kcap.session.script.compile`.

    :param text: the script.
    :param name: what diagnostics call it.
    :raises ScriptError: with every error found, each with its place.
    """
    from kcap.session import script

    return script.compile(text, name=name, options=options)


def trace(
    text: str, *, name: str = "stdin", options: Options | None = None, packets: bool = True
) -> Trace:
    """Check, compile and load a script; iterate over the result to run it.

    :param text: the script.
    :param name: what diagnostics call it.
    :param packets: yield captured packets as events, beside writing them to their files.
    :raises ScriptError: the script is wrong.
    :raises KcapError: the kernel refuses it, or a file cannot be written.
    """
    from kcap.session.preparation import Preparation
    from kcap.session.script import Options

    with Preparation(options or Options()) as preparation:
        return preparation.trace(preparation.check(text, name), packets=packets)


def __getattr__(name: str) -> object:
    """Names that are imported only when somebody asks for them."""
    if name == "Trace":
        from kcap.session.trace import Trace

        return Trace
    if name in ("Checked", "Options"):
        from kcap.session import script

        return getattr(script, name)
    raise AttributeError(f"module 'kcap' has no attribute {name!r}")
