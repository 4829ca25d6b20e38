# SPDX-License-Identifier: Apache-2.0
"""The script that users bring: a kprobe that calls skboutput, refused, explained, repaired, run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kcap.cli.main import main
from kcap.probes.system import System
from live.guest.packets import packet_traffic as traffic
from support.bpf_objects import bpf_objects, left_behind
from support.net import Network
from support.taps import read_capture
from support.tracing import Running, without_preempted

SCRIPT = """\
kprobe:{function} {{
  $skb = ((struct sk_buff *)arg1);
  $ret = skboutput("receive.pcap", $skb, $skb->len, 0);
}}
"""
REPAIRED = """\
fentry:{function} {{
  $ret = skboutput("receive.pcap", args.skb, args.skb.len, 0);
}}
"""


@pytest.fixture(scope="module")
def function() -> str:
    """Return the function that receives packets for GRO."""
    functions = System().functions
    assert functions is not None
    return "napi_gro_receive" if "napi_gro_receive" in functions else "gro_receive_skb"


@pytest.fixture(scope="module")
def device(network: Network) -> Iterator[traffic.TapDevice]:
    device = traffic.TapDevice(network.b)
    yield device
    device.close()


def test_it_is_refused_before_anything_is_loaded(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    function: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "receive.bt"
    script.write_text(SCRIPT.format(function=function))
    before = bpf_objects()
    assert main([str(script)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["receive.bt"]
    assert left_behind(before) == set()

    assert "helper-not-allowed" in err
    lines = err.splitlines()
    for place, underlined in (
        (f"kprobe:{function} {{", f"kprobe:{function}"),
        ('$ret = skboutput("receive.pcap", $skb', 'skboutput("receive.pcap", $skb, $skb->len, 0)'),
    ):
        at = next(index for index, line in enumerate(lines) if place in line)
        column = lines[at].index(underlined)
        mark = lines[at + 1][column : column + len(underlined)]
        assert set(mark) in ({"^"}, {"-"}, {"~"}), err
    for piece in (
        "bpf_skb_output",
        "BPF_PROG_TYPE_KPROBE",
        "fentry, fexit and rawtracepoint can call it",
    ):
        assert piece in err
    # What to write instead stands in the message, too.
    assert f"fentry:{function}" in err
    assert "args.skb, args.skb.len" in err


def test_kcap_fix_prints_the_repaired_script(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, function: str
) -> None:
    script = tmp_path / "receive.bt"
    script.write_text(SCRIPT.format(function=function))
    assert main(["fix", str(script)]) == 0
    assert capfd.readouterr().out == REPAIRED.format(function=function)


def test_where_the_function_is_gone_its_successor_is_named(
    capfd: pytest.CaptureFixture[str], kernel: str, tmp_path: Path, function: str
) -> None:
    gone = "gro_receive_skb" if function == "napi_gro_receive" else "napi_gro_receive"
    assert (function == "gro_receive_skb") == (kernel == "7.2")
    assert main(["-e", f"fentry:{gone} {{ @ = count(); }}"]) == 1
    err = capfd.readouterr().err
    assert f"did you mean {function}?" in err
    assert "stdin:1:8" in err


def test_the_users_own_script_says_so_too_where_its_function_is_gone(
    capfd: pytest.CaptureFixture[str], kernel: str, tmp_path: Path
) -> None:
    script = tmp_path / "receive.bt"
    script.write_text(SCRIPT.format(function="napi_gro_receive"))
    assert main([str(script)]) == 1
    err = capfd.readouterr().err
    assert "bpf_skb_output" in err
    assert ("gro_receive_skb" in err) == (kernel == "7.2")


def test_the_repaired_script_captures_what_is_received(
    device: traffic.TapDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sent = device.packets(1)
    with Running(REPAIRED.format(function=function)) as running:
        for frame in sent:
            device.write(frame)
        device.wait(len(sent))
        running.stop()
    assert without_preempted(running.messages) == []
    capture = read_capture(tmp_path / "receive.pcap")
    found = [one.data for one in capture.packets if traffic.number_of(one.data) is not None]
    assert found == sent
    assert capture.link_type == 1


def test_kcap_with_fix_runs_the_repaired_script_and_says_so(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    function: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "receive.bt"
    script.write_text(SCRIPT.format(function=function) + "interval:ms:200 { exit(5); }\n")
    assert main(["--fix", str(script)]) == 5
    err = capfd.readouterr().err
    assert "Attached 2 probes" in err
    assert f"-kprobe:{function} {{" in err
    assert f"+fentry:{function} {{" in err
    assert read_capture(tmp_path / "receive.pcap").link_type == 1
    assert script.read_text().startswith("kprobe:"), "the file itself stays as it was"
