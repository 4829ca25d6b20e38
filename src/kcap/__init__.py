# SPDX-License-Identifier: Apache-2.0
"""kcap: the bpftrace language in Python, with packet capture at any kernel function.

``kcap.compile(text)`` checks a script; ``kcap.trace(text)`` runs it::

    with kcap.trace('fentry:icmp_rcv { printf("%d\\n", args.skb.len); }') as trace:
        for event in trace:
            print(event)

What else is here is what such code names: other ways to run (:class:`Capture`, :class:`Drops`,
:class:`Follow`), events, errors. Each is imported when it is first asked for. docs/library.md shows
them at work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.errors import KcapError
from kcap.version import __version__

if TYPE_CHECKING:
    from kcap.diagnose.repair import Repair
    from kcap.functions.events import (
        AttachedProbes,
        Lost,
        MapPrinted,
        Message,
        Missed,
        Printf,
        TextPrinted,
        TraceEnded,
        ValuePrinted,
    )
    from kcap.lang.diagnostic import Diagnostic, ScriptError
    from kcap.packet.decode import Packet
    from kcap.session.capture import Capture, CaptureRequest
    from kcap.session.drops import Drops
    from kcap.session.follow import Follow, FollowRequest
    from kcap.session.rollout import Verdict, check_here, check_on
    from kcap.session.script import Checked, Options
    from kcap.session.trace import Trace

__all__ = [
    "AttachedProbes",
    "Capture",
    "CaptureRequest",
    "Checked",
    "Diagnostic",
    "Drops",
    "Follow",
    "FollowRequest",
    "KcapError",
    "Lost",
    "MapPrinted",
    "Message",
    "Missed",
    "Options",
    "Packet",
    "Printf",
    "Repair",
    "ScriptError",
    "TextPrinted",
    "Trace",
    "TraceEnded",
    "ValuePrinted",
    "Verdict",
    "__version__",
    "check_here",
    "check_on",
    "compile",
    "repair",
    "trace",
]

#: Where the names that are imported on demand live.
_HOMES = {
    "kcap.diagnose.repair": ("Repair",),
    "kcap.functions.events": (
        "AttachedProbes",
        "Lost",
        "MapPrinted",
        "Message",
        "Missed",
        "Printf",
        "TextPrinted",
        "TraceEnded",
        "ValuePrinted",
    ),
    "kcap.lang.diagnostic": ("Diagnostic", "ScriptError"),
    "kcap.packet.decode": ("Packet",),
    "kcap.session.capture": ("Capture", "CaptureRequest"),
    "kcap.session.drops": ("Drops",),
    "kcap.session.follow": ("Follow", "FollowRequest"),
    "kcap.session.rollout": ("Verdict", "check_here", "check_on"),
    "kcap.session.script": ("Checked", "Options"),
    "kcap.session.trace": ("Trace",),
}


def compile(text: str, *, name: str = "stdin", options: Options | None = None) -> Checked:
    """Parse and check a script; needs no privilege, but BTF and tracefs tell more to root.

    :param text: the script.
    :param name: what diagnostics call it.
    :param options: what it is to be run with: parameters, a process to follow and the like.
    :returns: the script as it was checked, with its probes, warnings and typed tree.
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
    :param options: what it is run with.
    :param packets: yield captured packets as events, beside writing them to their files.
    :raises ScriptError: the script is wrong.
    :raises KcapError: the kernel refuses it, or a file cannot be written.
    """
    from kcap.session.options import Options
    from kcap.session.preparation import Preparation

    with Preparation(options or Options()) as preparation:
        return preparation.trace(preparation.prepare(text, name), packets=packets)


def repair(
    text: str, *, name: str = "stdin", options: Options | None = None, modern: bool = False
) -> Repair:
    """Mend a script where its errors come with an edit: ``kcap fix``.

    :param text: the script.
    :param name: what diagnostics call it.
    :param options: what it is to be run with: parameters, directories of headers and the like.
    :param modern: also replace old spellings that are no errors.
    :returns: the new text, what was mended, and what is left.
    """
    from kcap.session import repair

    return repair.repair(name, text, options, modern=modern)


if not TYPE_CHECKING:  # a type checker knows each name from its import

    def __getattr__(name: str) -> object:
        """Names that are imported only when somebody asks for them."""
        from importlib import import_module

        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(home), name)
        raise AttributeError(f"module 'kcap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
