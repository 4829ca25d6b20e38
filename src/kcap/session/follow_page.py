# SPDX-License-Identifier: Apache-2.0
"""Packets' ways as one HTML page that needs nothing else: no network, no server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from json import dumps
from typing import TYPE_CHECKING

from kcap.session.follow_text import as_json
from kcap.session.namespaces import NetnsNames
from kcap.version import __version__

if TYPE_CHECKING:
    from kcap.session.journey import Journey

_TEMPLATE = "follow_page.html"


def page_of(journeys: Iterable[Journey], expression: str, netns: NetnsNames | None = None) -> str:
    """The page.

    :param expression: the filter that the packets were followed by.
    :param netns: names of network namespaces; those of ip-netns(8) by default.
    """
    ordered = sorted(journeys, key=lambda each: each.id)
    names = netns or NetnsNames()
    seen = {step.netns for journey in ordered for step in journey.steps if step.netns}
    system = os.uname()
    values = {
        "EXPRESSION": escape(expression or "all packets"),
        "MACHINE": escape(f"{system.nodename}, Linux {system.release}"),
        "MADE": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "VERSION": __version__,
        "WAYS": _data([as_json(journey) for journey in ordered]),
        "NAMESPACES": _data({number: names.name(number) for number in seen}),
    }
    template = files("kcap.session").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    head, *parts = template.split("@@")
    # every second part is the name of a value: nothing that was put in is looked at again
    return head + "".join(
        values[part] if index % 2 == 0 else part for index, part in enumerate(parts)
    )


def _data(value: object) -> str:
    """What a script element of JSON may hold: a process may be called ``</script>``."""
    return dumps(value, separators=(",", ":")).replace("<", "\\u003c")
