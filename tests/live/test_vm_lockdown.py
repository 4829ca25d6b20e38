# SPDX-License-Identifier: Apache-2.0
"""Lockdown can't be taken back, so it is tried in guests of its own."""

from __future__ import annotations

import json

import pytest

from kcap.vm.guest import Guest

LOCKED = """\
mount -t securityfs none /sys/kernel/security 2>/dev/null
lockdown=/sys/kernel/security/lockdown
grep -q "\\[confidentiality\\]" $lockdown || echo confidentiality > $lockdown || exit 9
exec kcap --diagnostics json -q --dry-run -e "$1"
"""


def said(guest: Guest, script: str) -> dict[str, object]:
    """The first diagnostic of a script in a locked guest."""
    done = guest.run(["sh", "-c", LOCKED, "sh", script])
    assert done.status == 1, done.stderr
    found: dict[str, object] = json.loads(done.stderr.splitlines()[0])
    return found


@pytest.mark.parametrize("series", ["5.10", "7.2"])
def test_lockdown_is_named_as_the_reason(series: str) -> None:
    with Guest(series) as guest:
        helper = said(guest, 'begin { }\nfentry:icmp_rcv { skboutput("x", args.skb, 64, 0) }')
        probe = said(guest, "kprobe:icmp_rcv { @ = count(); }")
    assert helper["code"] == "verifier-permission"
    assert str(helper["title"]).startswith("lockdown (confidentiality) keeps programs from calling")
    assert isinstance(helper["span"], dict)
    assert helper["span"]["line"] == 2
    assert "lockdown" in str(probe["help"])
