# SPDX-License-Identifier: Apache-2.0
"""Reading bpftrace's runtime test files.

A file holds tests separated by empty lines, each a list of ``DIRECTIVE value`` lines; a line that
begins with as many blanks as the directive before it is long continues that one's value. The
directives are documented in bpftrace's tests/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Mode = Literal["text", "text_none", "regex", "regex_none", "file", "json"]

_EXPECTATIONS: dict[str, Mode] = {
    "EXPECT": "text",
    "EXPECT_NONE": "text_none",
    "EXPECT_REGEX": "regex",
    "EXPECT_REGEX_NONE": "regex_none",
    "EXPECT_FILE": "file",
    "EXPECT_JSON": "json",
}
_CONTINUED = ("PROG", "EXPECT", "EXPECT_REGEX")
#: Folders beside the suites that hold no tests.
_NO_SUITES = ("engine", "scripts", "outputs")


@dataclass(slots=True)
class Expectation:
    """What the output has to hold: a line, a pattern, or a file's content."""

    mode: Mode
    text: str


@dataclass(slots=True)
class Test:
    """One test; see bpftrace's tests/README.md for what the directives mean."""

    suite: str
    name: str = ""
    program: str = ""
    command: str = ""
    expectations: list[Expectation] = field(default_factory=list)
    timeout: int = 5
    before: list[str] = field(default_factory=list)
    after: str = ""
    setup: str = ""
    cleanup: str = ""
    requires: list[str] = field(default_factory=list)
    features: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    architectures: list[str] = field(default_factory=list)
    kernel_min: str = ""
    kernel_max: str = ""
    fails: bool = False
    new_pidns: bool = False
    return_code: int = 0
    localize: int = -1

    @property
    def exact(self) -> bool:
        """Whether the whole output after attaching is compared."""
        return any(e.mode in ("file", "json") for e in self.expectations)


def read_suites(directory: Path, wanted: list[str]) -> list[Test]:
    """All tests of the suites below ``directory/runtime``, in order.

    :param wanted: names of suites, in the order to run them; all, by name, if empty. Names of tests
        that occur twice in a suite get ``#2``.
    """
    paths = {path.name: path for path in (directory / "runtime").iterdir() if path.is_file()}
    there = sorted(name for name in paths if not name.startswith(".") and name not in _NO_SUITES)
    names = [name for name in wanted if name in there] if wanted else there
    return [test for name in names for test in read_suite(paths[name])]


def read_suite(path: Path) -> list[Test]:
    """The tests of one file."""
    tests: list[Test] = []
    seen: dict[str, int] = {}
    block: list[str] = []
    for line in [*path.read_text(encoding="utf-8").split("\n"), ""]:
        if line.startswith("#"):
            continue
        if line:
            block.append(line)
        elif block:
            test = _read_test(path.name, block)
            seen[test.name] = seen.get(test.name, 0) + 1
            if seen[test.name] > 1:
                test.name += f"#{seen[test.name]}"
            tests.append(test)
            block = []
    return tests


def _read_test(suite: str, lines: list[str]) -> Test:
    test = Test(suite)
    directive = ""
    for line in lines:
        indent = len(directive) + 1
        if directive in _CONTINUED and line[:indent].isspace():
            _continue(test, directive, line[indent:])
            continue
        directive, _, value = line.strip().partition(" ")
        _apply(test, directive, value.strip())
    return test


def _continue(test: Test, directive: str, text: str) -> None:
    if directive == "PROG":
        test.program += f"\n{text}"
    else:
        test.expectations[-1].text += f"\n{text}"


def _apply(test: Test, directive: str, value: str) -> None:
    if directive in _EXPECTATIONS:
        test.expectations.append(Expectation(_EXPECTATIONS[directive], value))
    elif directive in _TEXTS:
        setattr(test, _TEXTS[directive], value)
    elif directive in _NUMBERS:
        setattr(test, _NUMBERS[directive], int(value))
    elif directive in _FLAGS:
        setattr(test, _FLAGS[directive], True)
    elif directive == "BEFORE":
        test.before.append(value)
    elif directive == "REQUIRES":
        test.requires.append(value)
    elif directive == "REQUIRES_FEATURE":
        test.features += value.split()
    elif directive == "ENV":
        pairs = (word.partition("=") for word in value.split())
        test.environment.update((name, text) for name, _, text in pairs)
    elif directive == "ARCH":
        test.architectures = [word.strip() for word in value.split("|")]
    elif directive != "SKIP_IF_ENV_HAS":
        raise ValueError(f"{test.suite}.{test.name}: unknown directive {directive}")


_TEXTS = {
    "NAME": "name",
    "RUN": "command",
    "PROG": "program",
    "AFTER": "after",
    "SETUP": "setup",
    "CLEANUP": "cleanup",
    "MIN_KERNEL": "kernel_min",
    "MAX_KERNEL": "kernel_max",
}
_NUMBERS = {"TIMEOUT": "timeout", "RETURN_CODE": "return_code", "LOCALIZE_TIMESTAMPS": "localize"}
_FLAGS = {"WILL_FAIL": "fails", "NEW_PIDNS": "new_pidns"}
