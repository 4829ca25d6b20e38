# SPDX-License-Identifier: Apache-2.0
"""Laws of repairing: white space and comments don't matter, comments stay, twice is once."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.lang.traverse import same_tree
from kcap.probes.system import System
from unit.diagnose.repair_machine import repair

TOKENS = (
    "kprobe:napi_gro_receive", "/", "arg1", "!=", "0", "/", "{",
    "$skb", "=", "(", "(", "struct", "sk_buff", "*", ")", "arg1", ")", ";",
    "$ret", "=", "skboutput", "(", '"receive.pcap"', ",", "$skb", ",", "$skb", "->", "len", ",",
    "0", ")", ";",
    "print", "(", "(", "(", "struct", "sk_buff", "*", ")", "arg1", ")", "->", "len", ")", ";",
    "}",
)  # fmt: skip

FIXED = parse(
    Source(
        "fixed.bt",
        "fentry:napi_gro_receive / args.skb != 0 / {"
        ' $ret = skboutput("receive.pcap", args.skb, args.skb.len, 0); print(args.skb.len); }',
    )
)

trivia = st.sampled_from([" ", "\n", "\t", "  \n  ", " /* a -> b ( */ ", " // c ) {\n"])
spacing = st.lists(trivia, min_size=len(TOKENS), max_size=len(TOKENS))


def comments(text: str) -> list[str]:
    return re.findall(r"/\*.*?\*/|//[^\n]*", text)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(spacing)
def test_white_space_and_comments_do_not_matter(machine: System, spaces: list[str]) -> None:
    script = "".join(token + space for token, space in zip(TOKENS, spaces, strict=True))
    found = repair(machine, script)
    assert found.refusals == ()
    assert same_tree(parse(Source("fixed.bt", found.text)), FIXED)
    assert repair(machine, found.text).probes == ()
    kept = comments(found.text)
    remaining = iter(comments(script))
    assert all(comment in remaining for comment in kept)  # in order, none made up
