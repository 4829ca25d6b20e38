# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong is said once, with its place, and nothing is attached or left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kcap.cli.main import main
from support.bpf_objects import bpf_objects, left_behind
from support.tracing import KCAP


def errors(text: str) -> list[str]:
    """Return the first lines of the errors in what kcap wrote to standard error."""
    return [line for line in text.splitlines() if line.lower().startswith("error")]


@pytest.mark.parametrize(
    ("script", "pieces"),
    [
        ('begin { printf("x" }', ["stdin:1:20"]),
        ("begin { print($nope); }", ["stdin:1:15", "$nope"]),
        ("fentry:icmp_rcv { print(args.skb.nope); }", ["stdin:1:34", "nope", "sk_buff"]),
        ("fentry:icmp_rcv { print(args.skv.len); }", ["stdin:1:30", "skv", "skb"]),
        ("begin { nope(1); }", ["stdin:1:9", "nope"]),
        ("nope:icmp_rcv { }", ["stdin:1:1", "nope"]),
        ("fentry:icmp_rcvv { }", ["stdin:1:8", "did you mean icmp_rcv"]),
        ("tracepoint:net:nope { }", ["stdin:1:1", "nope"]),
        ("begin { print(((struct nope_t *)0)->x); }", ["stdin:1:", "nope_t"]),
        ('begin { $x = 1; $x = "text"; }', ["stdin:1:22", "$x became 'int8' here"]),
        ('begin { @x = 1; @x = "text"; }', ["stdin:1:22", "@x became 'int8' here"]),
        ("begin { exit(1, 2); }", ["stdin:1:9", "exit"]),
    ],
)
def test_a_wrong_script_gets_one_error_with_its_place(
    capfd: pytest.CaptureFixture[str], script: str, pieces: list[str]
) -> None:
    assert main(["-e", script]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert len(errors(err)) == 1, err
    assert "Traceback" not in err
    for piece in pieces:
        assert piece in err
    assert "^" in err or "~" in err, err


CAPTURE = (
    'begin {{ printf("begun\\n"); }} fentry:icmp_rcv {{ skboutput("{path}", args.skb, 64, 0); }}'
)


def test_a_file_that_cannot_be_written_is_named_before_anything_is_attached(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = bpf_objects()
    path = tmp_path / "absent" / "c.pcap"
    assert main(["-e", CAPTURE.format(path=path)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert len(errors(err)) == 1, err
    assert str(path) in err
    assert "create the directory first" in err
    assert left_behind(before) == set()
    assert list(tmp_path.iterdir()) == []


def test_of_two_files_neither_is_left_when_one_cannot_be_written(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = CAPTURE.format(path=tmp_path / "good.pcap") + CAPTURE.format(
        path=tmp_path / "absent" / "bad.pcap"
    )
    assert main(["-e", script]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "bad.pcap" in err
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_in_tmp_is_refused(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("as it was")
    link = Path("/tmp/kcap-test-link.pcap")
    link.symlink_to(target)
    try:
        assert main(["-e", CAPTURE.format(path=link)]) == 1
    finally:
        link.unlink()
    err = capfd.readouterr().err
    assert "symbolic link" in err
    assert str(link) in err
    assert target.read_text() == "as it was"


def test_without_privileges_it_says_so() -> None:
    # Root without capabilities: another user may not even be let at this Python's files.
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *KCAP, "-e", "fentry:icmp_rcv { }"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(errors(done.stderr)) == 1, done.stderr
    assert "root" in done.stderr or "CAP_BPF" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_without_btf_it_says_so(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    command = " ".join(
        [
            f"mount --bind {empty} /sys/kernel/btf &&",
            KCAP[0],
            "-m kcap -e 'fentry:icmp_rcv { print(args.skb.len); }'",
        ]
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert len(errors(done.stderr)) == 1, done.stderr
    assert "BTF" in done.stderr
    assert "Traceback" not in done.stderr
