# SPDX-License-Identifier: Apache-2.0
"""Every command that README and the pages of ``docs`` show can be taken as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from kcap.cli import capture, check, drops, extcap, fix, follow, options, vm
from kcap.cli.main import SUBCOMMANDS
from kcap.cli.parser import Parser

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: A line of a block that is a command, without what is said beside it.
COMMAND = re.compile(r"^(?: {4}|\t)?(?:[#$] )?kcap (?P<words>(?!\w+:)\S.*?)(?: {2,}.*)?$")
#: Where the command ends and the shell goes on.
SHELL = {"|", "&", "&&", ">", "2>", ";"}


def commands(page: Path) -> list[str]:
    """The commands in the blocks of a page."""
    found, fenced = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif (fenced or line.startswith("    ")) and (command := COMMAND.match(line)):
            found.append(command["words"])
    return found


def take(words: list[str]) -> None:
    """Read a command line, and do nothing of it.

    :raises UsageError: it can't be taken.
    """
    name, rest = words[0], words[1:]
    if name in ("capture", "drops", "follow"):
        module = {"capture": capture, "drops": drops, "follow": follow}[name]
        module._parser().parse_intermixed_args(rest)
    elif name == "vm":
        parser = Parser(prog="kcap vm")
        vm.add_arguments(parser)
        parser.parse_args(rest)
    elif name == "extcap":
        extcap._install_parser().parse_args(rest)
    elif name in ("check", "fix"):
        (check if name == "check" else fix)._parse(rest)
    elif name not in SUBCOMMANDS:
        options.parse(words)


@pytest.mark.parametrize(
    ("page", "command"),
    [(page.name, command) for page in PAGES for command in commands(page)],
)
def test_a_command_on_a_page_can_be_taken(page: str, command: str) -> None:
    words = shlex.split(command)
    end = next((at for at, word in enumerate(words) if word in SHELL), len(words))
    take(words[:end])
