# SPDX-License-Identifier: Apache-2.0
"""Asking the running kernel which helpers a kind of program may call.

A program that only calls the helper is offered for loading. The verifier looks the helper up
before it looks at any argument (check_helper_call in kernel/bpf/verifier.c), so a refusal that
is about the arguments proves that the helper is allowed.

Run as a program (root; in a guest: ``kcap vm run -- python3 -m kcap.diagnose.prober``) it asks for
every helper and prints one line each: the helper's name, then the keys of the kinds that may call
it. ``tests/live`` compares that with ``helpers.tsv``.
"""

from __future__ import annotations

import errno
from struct import pack
from typing import TYPE_CHECKING

from kcap import btf as b
from kcap.diagnose.programkinds import KINDS
from kcap.kernel import uapi
from kcap.kernel.errors import SyscallError, VerifierError
from kcap.kernel.programs import Program
from kcap.kernel.spec import ProgramSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kcap.diagnose.programkinds import ProgramKind

REFUSALS = ("unknown func ", "invalid func ", "program of this type cannot use helper ")
"""How the verifier says that a program of this type may not call a helper: up to 6.7; where the
kernel knows no helper of that number (any version, and the only wording of 4.19); from 6.8 on."""

_FUNCTIONS = ("vfs_read", "kernel_clone", "do_exit")
_EVENT = "btf_trace_sched_switch"
_ITERATOR = "bpf_iter_task"


class Prober:
    """Answers from the running kernel; each question is asked once.

    :param btf: the kernel's BTF, which programs of type tracing need, or None if it has none.
    """

    def __init__(self, btf: b.Btf | None) -> None:
        self._btf = btf
        self._answers: dict[tuple[str, int], bool | None] = {}
        self._targets: dict[str, int] = {}

    def __call__(self, kind: ProgramKind, helper: int) -> bool | None:
        """Whether programs of a kind may call a helper; None if the kernel doesn't tell.

        :param helper: its number.
        """
        question = (kind.key, helper)
        if question not in self._answers:
            self._answers[question] = self._ask(kind, helper)
        return self._answers[question]

    def _ask(self, kind: ProgramKind, helper: int) -> bool | None:
        log = self.log(kind, helper)
        if log is None:
            return None
        return not any(line.startswith(REFUSALS) for line in _plain(log))

    def log(self, kind: ProgramKind, helper: int) -> tuple[str, ...] | None:
        """The verifier's log about a program that calls a helper without arguments.

        :return: empty if the program was taken; None if the verifier was not reached.
        """
        target = self._target(kind)
        if target is None:
            return None
        spec = ProgramSpec(
            "kcap_probe",
            kind.type,
            _call(helper),
            expected_attach_type=kind.attach_type,
            attach_btf_id=target,
        )
        try:
            Program.load(spec, {}, log_level=1).close()
        except VerifierError as error:
            return error.log
        except SyscallError as error:
            if error.errno in (errno.EINVAL, errno.EACCES) and not error.hint:
                return ()
            return None
        return ()

    def _target(self, kind: ProgramKind) -> int | None:
        """What a program of the kind has to name when it is loaded: a BTF id, or 0."""
        if kind.type != uapi.BPF_PROG_TYPE_TRACING:
            return 0
        if kind.key not in self._targets:
            self._targets[kind.key] = self._find_target(kind)
        return self._targets[kind.key] or None

    def _find_target(self, kind: ProgramKind) -> int:
        if self._btf is None:
            return 0
        found: b.Type | None = None
        if kind.attach_type == uapi.BPF_TRACE_RAW_TP:
            found = self._btf.find(_EVENT, b.Typedef)
        elif kind.attach_type == uapi.BPF_TRACE_ITER:
            found = self._btf.find(_ITERATOR, b.Func)
        else:
            functions = (self._btf.find(name, b.Func) for name in _FUNCTIONS)
            found = next((f for f in functions if f is not None), None)
        return found.id if found is not None else 0


def _call(helper: int) -> bytes:
    """``call helper; r0 = 0; exit``."""
    call = pack("<BBhi", 0x85, 0, 0, helper)
    return call + pack("<BBhi", 0xB7, 0, 0, 0) + pack("<BBhi", 0x95, 0, 0, 0)


def _plain(log: Iterable[str]) -> Iterable[str]:
    """The log's lines without instruction numbers before an answer."""
    for line in log:
        yield line.strip()


def main() -> int:
    """Ask for every helper and print the answers."""
    import os

    from kcap.kernel import helpers

    prober = Prober(b.Btf.kernel())
    print(f"# {os.uname().release}")
    for number, name in sorted(helpers.NAMES.items()):
        keys = []
        for kind in KINDS:
            answer = prober(kind, number)
            if answer is None:
                keys.append(f"{kind.key}?")
            elif answer:
                keys.append(kind.key)
        print(name, *keys, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
