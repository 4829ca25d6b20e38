# SPDX-License-Identifier: Apache-2.0
"""Asking the running kernel which helpers a kind of program may call.

A program that only calls the helper is offered for loading. The verifier looks the helper up
before it looks at any argument (check_helper_call in kernel/bpf/verifier.c), so a refusal that
is about the arguments proves that the helper is allowed.

Run as a program (root; in a guest: ``kcap vm run -- python3 -m kcap.diagnose.prober``) it asks for
every helper and prints one line each: the helper's name, then the keys of the kinds that may call
it. A test compares that with ``helpers.tsv`` on every kernel.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kcap.btf import Btf, BtfNotFoundError
from kcap.diagnose.programkinds import KINDS
from kcap.kernel import features, helpers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kcap.diagnose.programkinds import ProgramKind


class Prober:
    """Answers from the running kernel, which remembers nothing of it.

    :param btf: the kernel's BTF, which programs of type tracing need; read if not given.
    """

    def __init__(self, btf: Btf | None = None) -> None:
        self._btf = btf if btf is not None else _kernel_btf()

    def __call__(self, kind: ProgramKind, helper: int) -> bool | None:
        """Whether programs of a kind may call a helper; None if the kernel doesn't tell.

        :param helper: its number.
        """
        return features.helper(helper, kind.type, kind.attach_type, self._btf)

    def answers(self) -> Iterator[tuple[str, dict[str, bool | None]]]:
        """(name, answer by the kind's key) of every helper, by number."""
        for number, name in sorted(helpers.NAMES.items()):
            yield name, {kind.key: self(kind, number) for kind in KINDS}


def _kernel_btf() -> Btf | None:
    try:
        return Btf.kernel()
    except BtfNotFoundError:
        return None


def main() -> int:
    """Ask for every helper and print the answers; ``?`` behind a key: no answer."""
    print(f"# {os.uname().release}")
    for name, answers in Prober().answers():
        keys = [key if yes else f"{key}?" for key, yes in answers.items() if yes is not False]
        print(name, *keys, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
