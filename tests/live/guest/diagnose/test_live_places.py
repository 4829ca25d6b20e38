# SPDX-License-Identifier: Apache-2.0
"""Programs that the kernel refuses: the explanation names the line of the script."""

from __future__ import annotations

import pytest

from kcap.diagnose.verifier import ProgramRefusedError
from kcap.session.preparation import Preparation
from kcap.session.script import Options

ENDLESS = """\
interval:s:1
{
  @a = 1; $i = 0;
  while ($i < 10) {
    @b += nsecs;
  }
}
"""
NOT_HERE = """\
interval:s:1 { @n = count(); }
fentry:tcp_connect
{
  @n = count();
  $p = path(args.sk->sk_socket->file->f_path);
  print($p);
}
"""
CONTEXT = """\
kprobe:icmp_rcv
{
  @a = pid;
  $misaligned = *(uint64 *)(ctx + 4);
  print($misaligned);
}
"""
BEHIND_CONTEXT = """\
kprobe:icmp_rcv
{
  @a = pid;
  @b = *(uint64 *)(ctx + 1000);
}
"""

#: script, code, line, text that is underlined
CASES = {
    "a loop that never ends": (ENDLESS, "verifier-loop", 5, "@b += nsecs"),
    "a helper that this function may not call": (
        NOT_HERE,
        "verifier-helper-not-in-probe",
        5,
        "path(args.sk->sk_socket->file->f_path)",
    ),
    "a misaligned read of the context": (CONTEXT, "verifier-context", 4, "*(uint64 *)(ctx + 4)"),
    "a read behind the context": (
        BEHIND_CONTEXT,
        "verifier-context",
        4,
        "*(uint64 *)(ctx + 1000)",
    ),
}


def refusal(text: str) -> ProgramRefusedError:
    with Preparation(Options(unsafe=True)) as preparation:
        checked = preparation.check(text, "test.bt")
        with pytest.raises(ProgramRefusedError) as caught:
            preparation.trace(checked, packets=False)
    return caught.value


@pytest.mark.parametrize(("text", "code", "line", "underlined"), CASES.values(), ids=CASES.keys())
def test_the_line_that_the_verifier_refuses_is_named(
    text: str, code: str, line: int, underlined: str
) -> None:
    (found,) = refusal(text).diagnostics
    assert found.span is not None
    assert (found.code, found.span.line) == (code, line)
    assert found.span.text in underlined


def test_the_verifier_itself_names_the_lines_in_its_log() -> None:
    log = refusal(ENDLESS).log
    assert any(line.startswith("; @b += nsecs;") for line in log)
