# SPDX-License-Identifier: Apache-2.0
"""The named parameters of a script (``-- --name=value``), which ``getopt()`` reads."""

from __future__ import annotations

from collections.abc import Mapping

from kcap.lang.diagnostic import Diagnostics


class NamedParameters:
    """Hands out the command line's named parameters, and notes which the script knows.

    :param given: their values by name.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self._known: dict[str, str] = {}

    def take(self, name: str, description: str) -> str | None:
        """The value of a parameter that the script knows; None if it wasn't given.

        :param description: what the script says about it, '' for nothing.
        """
        self._known[name] = self._known.get(name) or description
        return self._given.get(name)

    def check(self, diagnostics: Diagnostics) -> None:
        """Report what was given and the script doesn't know; ``--help`` asks what it does know."""
        unknown = [name for name in self._given if name not in self._known]
        if not unknown:
            return
        if "help" in unknown:
            about = [f"--{name}: {text}".removesuffix(": ") for name, text in self._known.items()]
            help_ = "\n".join(["expected program options:", *(f"  {line}" for line in about)])
        else:
            help_ = f"expected program options: {_flags(self._known)}"
        title = f"unexpected program command line options: {_flags(unknown)}"
        diagnostics.error("unknown-parameter", title, help=(help_,) if self._known else ())


def _flags(names: Mapping[str, str] | list[str]) -> str:
    return ", ".join(f"--{name}" for name in names)
