# SPDX-License-Identifier: Apache-2.0
"""What is said of maps whose keys are too long for an old kernel."""

from __future__ import annotations

import errno

from kcap.diagnose.mapkeys import map_refused
from kcap.errors import KcapError
from kcap.kernel.errors import SyscallError
from kcap.lang.diagnostic import ScriptError
from unit.codegen.script_machine import compiled

REFUSED = SyscallError('create map "AT_seen": E2BIG', errno.E2BIG)


def explained(text: str, error: SyscallError = REFUSED) -> KcapError:
    made = compiled(text)
    (spec,) = [spec for spec in made.maps if spec.name == "AT_seen"]
    return map_refused(error, spec, made.script)


def test_the_long_part_of_a_key_is_shown_with_what_makes_it_shorter() -> None:
    error = explained("begin { @seen[comm, str(pid)] = 1; @seen[comm, str(1, 8)] = 2; }")
    assert isinstance(error, ScriptError)
    (found,) = error.diagnostics
    assert found.title == "the keys of @seen are too long for this kernel: 1041 bytes"
    assert found.span is not None
    assert found.span.text == "comm, str(pid)"
    assert [(label.span.text, label.text) for label in found.labels] == [("str(pid)", "1025 bytes")]
    assert "take fewer bytes of a string: str(POINTER, 64)" in found.help


def test_a_key_of_one_part_is_shown_as_it_is() -> None:
    error = explained("begin { @seen[str(pid)]++; }")
    assert isinstance(error, ScriptError)
    (found,) = error.diagnostics
    assert found.span is not None
    assert (found.span.text, found.labels) == ("str(pid)", ())
    assert found.label == "of type string[1025]"


def test_other_refusals_stay_what_they_are() -> None:
    assert explained("begin { @seen[comm] = 1; }") is REFUSED
    denied = SyscallError("create map: EPERM", errno.EPERM)
    assert explained("begin { @seen[str(pid)] = 1; }", denied) is denied
