# SPDX-License-Identifier: Apache-2.0
"""The command lines of subcommands with many options, read by argparse."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, NoReturn

from kcap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import SupportsWrite


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are errors of kcap's, as those of all other command lines."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        :raises UsageError: always.
        """
        raise UsageError(f"{self.prog}: {message}", hint=f"see {self.prog} --help")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The command line, with options and arguments in any order.

        :raises KeyboardInterrupt: Ctrl-C came meanwhile, which argparse's tidying up fails at.
        :raises UsageError: it is wrong.
        """
        try:
            return self.parse_intermixed_args(words)
        except AttributeError as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print the help; unlike argparse, say it where nothing can be written.

        :param file: where to, standard output by default.
        """
        print(self.format_help(), end="", file=file)


def natural(text: str) -> int:
    """An option's value that is a whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number, 0 or more")
    return int(text)


def seconds(text: str) -> float:
    """An option's value that is a time in seconds, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds, 0 or more")
    return number
