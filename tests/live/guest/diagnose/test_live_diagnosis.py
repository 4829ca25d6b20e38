# SPDX-License-Identifier: Apache-2.0
"""What diagnosis says about a kernel, compared with that kernel."""

from __future__ import annotations

import os

import pytest

from kcap.btf import Struct
from kcap.btf.layout import find_member
from kcap.cli import fix as command
from kcap.diagnose.doctor import Doctor, capture_works
from kcap.diagnose.fix import fix
from kcap.diagnose.helpertable import release_of, table
from kcap.diagnose.prober import Prober
from kcap.diagnose.programkinds import KINDS
from kcap.functions.registry import all_functions
from kcap.kernel import features
from kcap.lang.diagnostic import ScriptError
from kcap.lang.parser import parse
from kcap.lang.source import Source
from kcap.probes.system import System
from kcap.sema.renamedfields import first_field, renamed_fields
from kcap.session.script import compile as check

CASE = """\
kprobe:napi_gro_receive {
  $skb = ((struct sk_buff *)arg1);
  $ret = skboutput("receive.pcap", $skb, $skb->len, 0);
}
"""


def place_of_gro() -> str:
    """The function that receives packets for GRO on this kernel."""
    functions = System().functions
    assert functions is not None
    return "napi_gro_receive" if "napi_gro_receive" in functions else "gro_receive_skb"


def repaired() -> str:
    return (
        f"fentry:{place_of_gro()} {{\n"
        '  $ret = skboutput("receive.pcap", args.skb, args.skb.len, 0);\n'
        "}\n"
    )


def test_the_table_of_helpers_is_what_the_kernel_answers() -> None:
    """tools/update_helpers.py writes the table anew."""
    features.forget()
    release = release_of(os.uname().release)
    wrong = []
    by_key = {kind.key: kind for kind in KINDS}
    numbers = {row.name: row.number for row in table().rows.values()}
    for name, answers in Prober().answers():
        for key, answer in answers.items():
            said = table().allowed(numbers[name], by_key[key], release)
            if said is not None and said != answer:
                wrong.append((name, key, answer))
    assert wrong == []


def test_the_table_of_renamed_fields_is_what_this_kernel_has() -> None:
    btf = System().btf
    assert btf is not None
    release = release_of(os.uname().release)
    wrong = []
    for row in renamed_fields():
        struct = btf.find(row.struct, Struct)
        assert struct is not None
        old, new = (find_member(btf, struct, n) for n in (row.old, first_field(row.new)))
        if release >= release_of(row.since):
            right = old is None and new is not None
        else:  # a way may begin with a field that was there before
            right = new is None or row.new != first_field(row.new)
        if not right:
            wrong.append(row)
    assert wrong == []


def test_the_case_is_refused_before_loading_with_both_places_underlined() -> None:
    with pytest.raises(ScriptError) as caught:
        check(CASE, name="case.bt")
    found = [d for d in caught.value.diagnostics if d.code == "helper-not-allowed"]
    assert len(found) == 1
    diagnostic = found[0]
    assert diagnostic.span is not None
    assert diagnostic.span.text == 'skboutput("receive.pcap", $skb, $skb->len, 0)'
    assert diagnostic.label == "skboutput() needs the BPF helper bpf_skb_output"
    assert [(label.span.text, label.text) for label in diagnostic.labels] == [
        (
            "kprobe:napi_gro_receive",
            "a kprobe is loaded as BPF_PROG_TYPE_KPROBE, which may not call it",
        )
    ]
    assert diagnostic.help[0] == "fentry, fexit and rawtracepoint can call it"


def test_the_answer_that_it_announces_is_the_kernels(kernel: str) -> None:
    from kcap.diagnose.helpercheck import HelperRules
    from kcap.kernel import asm, uapi
    from kcap.kernel.errors import VerifierError
    from kcap.kernel.helpers import Helper
    from kcap.kernel.programs import Program
    from kcap.kernel.spec import ProgramSpec

    code = asm.call(Helper.skb_output) + asm.exit_()
    with pytest.raises(VerifierError) as caught:
        Program.load(ProgramSpec("refused", uapi.BPF_PROG_TYPE_KPROBE, code), {})
    assert caught.value.summary == HelperRules(os.uname().release).answer(Helper.skb_output)


def test_the_case_is_repaired_for_this_kernel() -> None:
    source = Source("case.bt", CASE)
    found = fix(parse(source), source, System(), all_functions())
    assert found.text == repaired()
    assert found.refusals == ()


def test_the_repaired_case_passes_the_check() -> None:
    checked = check(repaired(), name="case.bt")
    assert [p.context.provider for p in checked.script.programs] == ["fentry"]


def test_kcap_fix_prints_it(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path_factory.mktemp("fix") / "case.bt"
    path.write_text(CASE)
    assert command.main([str(path)]) == 0
    assert capsys.readouterr().out == repaired()
    assert command.main(["-i", str(path)]) == 0
    assert path.read_text() == repaired()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            'kprobe:icmp_rcv, kprobe:icmpv6_rcv { skboutput("a", (struct sk_buff *)arg0, 64, 0); }',
            'fentry:icmp_rcv, fentry:icmpv6_rcv { skboutput("a", args.skb, 64, 0); }',
        ),
        (
            'tracepoint:net:netif_receive_skb { $s = (struct sk_buff *)args.skbaddr; '
            'skboutput("a", $s, $s->len, 0); }',
            'rawtracepoint:netif_receive_skb { skboutput("a", args.skb, args.skb.len, 0); }',
        ),
        (
            'kretprobe:__alloc_skb { skboutput("a", (struct sk_buff *)retval, 64, 0); }',
            'fexit:__alloc_skb { skboutput("a", retval, 64, 0); }',
        ),
    ],
)  # fmt: skip
def test_other_repairs_pass_the_check(script: str, expected: str) -> None:
    source = Source("case.bt", script)
    found = fix(parse(source), source, System(), all_functions())
    assert found.text == expected
    check(found.text)


def test_the_doctor_finds_that_packets_can_be_captured_here(kernel: str) -> None:
    features.forget()
    points = Doctor(System(), features).points()
    assert capture_works(points) is True, [point for point in points if not point.ok]
    found = {point.name: point.ok for point in points}
    assert found["kprobe_multi"] is (kernel in ("6.12", "7.2"))
    assert found["bpf_loop"] is (kernel != "5.10")
