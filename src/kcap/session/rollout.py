# SPDX-License-Identifier: Apache-2.0
"""Does a script compile, load and attach: here, and on kernels that boot in guests for it?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kcap.errors import KcapError, NoProbesError
from kcap.lang.diagnostic import Diagnostic
from kcap.lang.source import Source
from kcap.records import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from kcap.session.script import Options
    from kcap.vm.command import Result

_DIRECTORY = "/root/check"
#: An emulated guest needs seconds for what takes a real machine milliseconds; the limit only ends
#: what hangs.
_PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a kernel says to a script.

    :param kernel: the series that was asked for, '' for this machine.
    :param release: the kernel's release, '' if it did not boot.
    :param diagnostics: errors and warnings; their places are in the script's text.
    """

    kernel: str
    release: str
    diagnostics: tuple[Diagnostic, ...]

    @property
    def passed(self) -> bool:
        """Whether the script would run there."""
        return not self.errors

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """What stops it."""
        return tuple(d for d in self.diagnostics if d.severity == "error")

    def as_data(self) -> dict[str, Any]:
        """The verdict as plain data for ``json.dumps``."""
        from kcap.lang.render import to_json

        return {
            "kernel": self.kernel,
            "release": self.release,
            "passed": self.passed,
            "diagnostics": [to_json(diagnostic) for diagnostic in self.diagnostics],
        }


def check_here(text: str, name: str = "stdin", options: Options | None = None) -> Verdict:
    """Check and compile a script against this machine; nothing is loaded, so no privilege is
    needed.

    :param name: what diagnostics call the script.
    """
    from kcap.diagnose.report import diagnostics_of
    from kcap.session.script import compile

    found: Sequence[Diagnostic]
    try:
        checked = compile(text, name=name, options=options)
        found = checked.warnings
        if not checked.script.programs:
            raise NoProbesError()
        checked.generate()
    except KcapError as error:
        found = diagnostics_of(error)
    return Verdict("", os.uname().release, tuple(found))


def check_on(
    text: str,
    kernels: Iterable[str],
    name: str = "stdin",
    words: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Iterator[Verdict]:
    """Boot each kernel in a guest and load and attach the script there, without running it.

    :param kernels: series, such as ``6.12``.
    :param name: what diagnostics call the script.
    :param words: options of the command line and the script's parameters.
    :param progress: is told what is being done.
    :raises VmError: a kernel of no known series. One that doesn't boot is a verdict.
    """
    from kcap.diagnose.report import diagnostics_of
    from kcap.vm.errors import VmError
    from kcap.vm.guest import Guest, say_nothing

    source = Source(name, text)
    for guest in [Guest(kernel, progress=progress or say_nothing) for kernel in kernels]:
        try:
            with guest:
                found = _try(guest, source, words)
        except (VmError, TimeoutError) as error:
            wrapped = error if isinstance(error, KcapError) else VmError(str(error))
            found = diagnostics_of(wrapped)
        yield Verdict(guest.series, guest.release, tuple(found))


def _try(guest: Any, source: Source, words: Sequence[str]) -> tuple[Diagnostic, ...]:
    from kcap.session.companions import companions

    # Below one directory everything stands to each other as it does here.
    path = _DIRECTORY + os.path.abspath(source.name)
    others = companions(source.text, source.name)
    guest.put(source.text.encode("utf-8", "surrogateescape"), path)
    for name, data in others.items():
        guest.put(data, _DIRECTORY + name)
    options = [word for word in words if word.startswith("-")]
    rest = [word for word in words if not word.startswith("-")]
    argv = ["kcap", "--dry-run", "-q", "--diagnostics", "json", *options, path, *rest]
    result = guest.run(argv, cwd=os.path.dirname(path), timeout=_PATIENCE_S)
    sources = {_DIRECTORY + name: _source(name, data) for name, data in others.items()}
    return read_result(result, source, path, sources)


def _source(name: str, data: bytes) -> Source:
    """A companion as diagnostics show it: by its path from here, where that is shorter."""
    relative = os.path.relpath(name)
    return Source(relative if len(relative) < len(name) else name, data.decode("utf-8", "replace"))


def read_result(
    result: Result, source: Source, path: str, others: Mapping[str, Source] | None = None
) -> tuple[Diagnostic, ...]:
    """What ``kcap --dry-run --diagnostics json`` found.

    :param source: the script as it is called here.
    :param path: what it was called there.
    :param others: the files that came along, by what they were called there.
    """
    import json

    from kcap.diagnose.report import from_json

    sources = {path: source, os.path.basename(path): source, **(others or {})}
    found: list[Diagnostic] = []
    said: list[str] = []
    for line in result.stderr.decode("utf-8", "replace").splitlines():
        try:
            data = json.loads(line)
            found.append(from_json(data, sources))
        except (ValueError, KeyError, TypeError):
            said.append(line)
    if result.status and not any(d.severity == "error" for d in found):
        why = said[-1] if said else f"kcap ended with status {result.status}"
        found.append(Diagnostic("run", "error", why, notes=tuple(said[:-1])))
    return tuple(replace(d, title=d.title.replace(path, source.name)) for d in found)
