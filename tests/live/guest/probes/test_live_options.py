# SPDX-License-Identifier: Apache-2.0
"""Options of the command line that concern probes, on real kernels."""

from __future__ import annotations

import contextlib
import io
import json
import re
import time

import pytest

from kcap.cli.script import main
from kcap.errors import UsageError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """The table of ``--info`` as a dict."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["--info"]) == 0
    rows = (line for line in printed.getvalue().splitlines() if line.startswith("  "))
    return {name: answer for name, _, answer in (row.strip().partition(": ") for row in rows)}


@pytest.mark.parametrize(
    "name",
    [
        "btf", "fentry", "iter", "kprobe", "tracepoint", "perf_event", "ringbuf", "hash",
        "probe_read_kernel", "send_signal", "skboutput", "dpath", "jiffies64", "uprobe refcount",
        "libdw (DWARF support)", "dwunwind (DWARF stack unwinding)",
    ],
)  # fmt: skip
def test_info_says_what_every_supported_kernel_has(answers: dict[str, str], name: str) -> None:
    assert answers[name] == "yes"


@pytest.mark.parametrize(
    ("name", "since"),
    [
        ("Loop support", (5, 17)),
        ("for_each_map_elem", (5, 13)),
        ("get_func_ip", (5, 15)),
        ("lookup_percpu_elem", (5, 19)),
        ("uprobe_multi", (6, 6)),
        ("perf event links", (5, 15)),
        ("tracing_multi", (7, 2)),
    ],
)
def test_info_says_what_newer_kernels_have(
    answers: dict[str, str], live_kernel: str, name: str, since: tuple[int, int]
) -> None:
    there = tuple(map(int, live_kernel.split("."))) >= since
    assert answers[name] == ("yes" if there else "no")


def test_kprobe_session_comes_with_kprobe_multi_from_6_10_on(
    answers: dict[str, str], live_kernel: str
) -> None:
    new = tuple(map(int, live_kernel.split("."))) >= (6, 10)
    assert answers["kprobe_session"] == (answers["kprobe_multi"] if new else "no")


def test_tests_pass_or_fail_and_only_failing_ones_show_their_output(capfd: Capture) -> None:
    script = """
        test:okay { printf("not shown\\n"); }
        test:failure { printf("shown\\n"); return 3; }
        test:message { errorf("wrong\\n"); }
        test:leaves { exit(0); }
        test:gives_up { exit(7); }
        bench:ignored { printf("never\\n"); }
    """
    assert main(["--test", "-e", script]) == 1
    out, err = capfd.readouterr()
    assert re.sub(r"\x1b\[\d+m|\(\d+ .s\)", "", out).splitlines() == [
        "[==========] Running 5 tests.",
        "[ RUN      ] okay",
        "[       OK ] okay ",
        "[ RUN      ] failure",
        "shown",
        "[  FAILED  ] failure ",
        "[ RUN      ] message",
        "[  FAILED  ] message ",
        "[ RUN      ] leaves",
        "[       OK ] leaves ",
        "[ RUN      ] gives_up",
        "[  FAILED  ] gives_up ",
        "[==========] 5 tests ran.",
        "[  PASSED  ] 2 tests.",
        "[  FAILED  ] 3 tests, listed below:",
        "[  FAILED  ] failure",
        "[  FAILED  ] message",
        "[  FAILED  ] gives_up",
        "",
        "",
    ]
    reasons = ["failure: returned 3", "message: 1 error", "gives_up: exit(7)"]
    assert [line for line in err.splitlines() if line.partition(":")[0] in script] == reasons


def test_passing_tests_end_with_status_0(capfd: Capture) -> None:
    assert (
        main(["--mode", "test", "-q", "-e", "test:a { @ = 1; } test:b { } end { clear(@); }"]) == 0
    )
    assert "[  PASSED  ]\x1b[0m 2 tests.\n" in capfd.readouterr().out


def test_results_of_tests_as_json(capfd: Capture) -> None:
    assert main(["--test", "-f", "json", "-e", 'test:a { printf("x\\n"); }']) == 0
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["type"] == "test_result"
    assert found["data"]["a"].pop("duration") > 0
    assert found["data"]["a"] == {"passed": True, "output": "x\n"}


def test_benchmarks_are_timed_one_after_another(capfd: Capture) -> None:
    script = 'begin { printf("begin\\n"); } bench:a { @a = count(); } bench:b { print(1); }'
    began = time.monotonic_ns()
    assert main(["--bench", "-e", script + " end { clear(@a); }"]) == 0
    took = time.monotonic_ns() - began
    lines = capfd.readouterr().out.splitlines()
    assert lines[:3] == [
        "begin",
        "Benchmark                                Time(ns)       Iterations",
        "-" * 66,
    ]
    rows = [line.split() for line in lines[3:5]]
    assert [row[0] for row in rows] == ["a", "b"]
    assert all(int(row[1]) > 0 and int(row[2]) >= 256 for row in rows)
    assert sum(int(row[1]) * int(row[2]) for row in rows) < took
    assert lines[5:] == ["", ""]


def test_benchmarks_as_json(capfd: Capture) -> None:
    assert main(["-q", "-f", "json", "--bench", "-e", "bench:a { $x = 1; }"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["type"] == "benchmark_result"
    assert list(found["data"]["a"]) == ["average", "iters"]


def test_outside_of_their_mode_tests_and_benchmarks_are_ignored(capfd: Capture) -> None:
    assert main(["-e", 'begin { printf("hi\\n"); exit(); } test:a { print(1); } bench:b { }']) == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == ["hi", "", ""]
    assert err == "Attached 1 probe\n"


def test_the_probe_filter_leaves_begin_and_end(capfd: Capture) -> None:
    script = (
        'begin { printf("begin\\n"); } interval:ms:100 { printf("bad\\n"); } '
        'interval:ms:200 { printf("hit\\n"); exit(); } end { printf("end\\n"); }'
    )
    assert main(["--probe-filter", ":200", "-e", script]) == 0
    out, err = capfd.readouterr()
    assert out.split() == ["begin", "hit", "end"]
    assert err == "Attached 3 probes\n"


def test_the_probe_filter_chooses_among_the_targets_of_a_wildcard(capfd: Capture) -> None:
    for probe in ("kprobe:vfs_*", "fentry:vfs_*", "tracepoint:sched:*"):
        name = "sched_switch" if probe.startswith("tr") else "vfs_read"
        script = f"{probe} {{ @[func] = 1; }}" if name == "vfs_read" else f"{probe} {{ @ = 1; }}"
        assert main(["--dry-run", "--probe-filter", f":{name}$", "-e", script]) == 0
    capfd.readouterr()


def test_a_probe_filter_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"^No probes to attach$"):
        main(["--probe-filter", "nonexistent_probe_xyz", "-e", "kprobe:vfs_read { exit(); }"])


def test_a_probe_filter_must_be_a_regular_expression() -> None:
    with pytest.raises(UsageError, match=r"^Invalid --probe-filter regex"):
        main(["--probe-filter", "[invalid", "-e", "kprobe:vfs_read { exit(); }"])


def test_features_can_be_switched_off(capfd: Capture) -> None:
    script = 'kprobe:vfs_rea*,kprobe:vfs_writ* { printf("%s\\n", "here"); exit(); }'
    off = "kprobe_multi,uprobe_multi,kprobe_session"
    # It reads and prints nothing: by copy_file_range(2), which takes no lock on the offset, another
    # program can overwrite what kcap prints into the same file.
    command = "/bin/grep -q root /etc/passwd"
    assert main(["-q", "--no-feature", off, "-e", script, "-c", command]) == 0
    assert "here" in capfd.readouterr().out.split()


def test_unknown_features_are_refused() -> None:
    with pytest.raises(UsageError, match="--no-feature warp: not one of uprobe_multi"):
        main(["--no-feature", "warp", "-e", "begin { }"])


def test_what_is_loaded_and_the_verifiers_log_are_printed_before_the_trace(capfd: Capture) -> None:
    script = "begin { @x[pid] = 1; exit(); }"
    assert main(["-q", "-d", "libbpf,verifier", "-e", script]) == 0
    out = capfd.readouterr().out
    before, _, after = out.partition("begin:\n")
    assert re.search(
        r"^map AT_x: HASH, 4096 entries, keys of \d+ bytes, values of \d+$", before, re.M
    )
    assert re.search(r"^program begin: \w+, \d+ instructions$", before, re.M)
    assert re.search(r"^processed \d+ insns", after, re.M)
    assert out.endswith("]: 1\n")
