# SPDX-License-Identifier: Apache-2.0
"""Reading tracefs, on copies of a few of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcap.errors import FileError
from kcap.kernel.errors import SyscallError
from kcap.kernel.tracefs import Field, ProbeEvent, Tracefs, kprobe_blacklist, parse_format

# Linux 6.12's sched:sched_process_exec, skb:kfree_skb and sock:inet_sock_set_state in parts
FORMAT = """name: made_up
ID: 1453
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;
\tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;
\tfield:const void * skaddr;\toffset:16;\tsize:8;\tsigned:0;
\tfield:char comm[16];\toffset:24;\tsize:16;\tsigned:0;
\tfield:__u8 saddr_v6[sizeof(struct in6_addr)];\toffset:40;\tsize:16;\tsigned:0;
\tfield:__rel_loc unsigned long[] stack;\toffset:56;\tsize:4;\tsigned:0;
\tfield:const char *const * argv;\toffset:64;\tsize:8;\tsigned:0;
\tfield:struct sk_buff *skbs[2];\toffset:72;\tsize:16;\tsigned:0;
\tfield:enum skb_drop_reason reason;\toffset:88;\tsize:4;\tsigned:0;

print fmt: "filename=%s; old: field:x;", __get_str(filename)
"""


def test_a_format_has_its_name_id_and_fields() -> None:
    event = parse_format(FORMAT)
    assert (event.name, event.id) == ("made_up", 1453)
    assert event.fields[0] == Field("common_type", "unsigned short", 0, 2, False)
    assert [f.name for f in event.arguments] == [
        "filename", "pid", "skaddr", "comm", "saddr_v6", "stack", "argv", "skbs", "reason",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "field",
    [
        Field("filename", "char", 8, 4, False, "data", None, True),
        Field("pid", "pid_t", 12, 4, True),
        Field("skaddr", "const void *", 16, 8, False),
        Field("comm", "char", 24, 16, False, "", 16, True),
        Field("saddr_v6", "__u8", 40, 16, False, "", 16, True),
        Field("stack", "unsigned long", 56, 4, False, "rel", None, True),
        Field("argv", "const char *const *", 64, 8, False),
        Field("skbs", "struct sk_buff *", 72, 16, False, "", 2, True),
        Field("reason", "enum skb_drop_reason", 88, 4, False),
    ],
    ids=lambda f: f.name,
)
def test_fields_keep_their_c_types(field: Field) -> None:
    assert parse_format(FORMAT).field(field.name) == field


def test_a_field_that_is_not_there_is_none() -> None:
    assert parse_format(FORMAT).field("nope") is None


def test_other_text_is_no_format() -> None:
    with pytest.raises(ValueError, match="no name or ID"):
        parse_format("something else\n")


@pytest.fixture
def tracefs(tmp_path: Path) -> Tracefs:
    (tmp_path / "events/skb/kfree_skb").mkdir(parents=True)
    (tmp_path / "events/skb/kfree_skb/id").write_text("1453\n")
    (tmp_path / "events/skb/kfree_skb/format").write_text(FORMAT)
    (tmp_path / "available_events").write_text("skb:kfree_skb\nnet:netif_rx\nbtrfs:a:b\n")
    (tmp_path / "available_filter_functions").write_text("vfs_read\nnft_do_chain [nf_tables]\n")
    return Tracefs.find((str(tmp_path / "absent"), str(tmp_path)))


def test_functions_come_with_their_modules(tracefs: Tracefs) -> None:
    assert list(tracefs.traceable_functions()) == [
        ("vfs_read", ""),
        ("nft_do_chain", "nf_tables"),
    ]
    assert tracefs.traceable == {"vfs_read", "nft_do_chain"}


def test_events_are_sorted(tracefs: Tracefs) -> None:
    assert tracefs.events() == [("btrfs", "a:b"), ("net", "netif_rx"), ("skb", "kfree_skb")]


def test_an_event_has_its_number_and_format(tracefs: Tracefs) -> None:
    assert tracefs.event_id("skb", "kfree_skb") == 1453
    assert tracefs.event_format("skb", "kfree_skb").id == 1453


def test_an_event_that_is_not_there_is_an_error_with_a_hint(tracefs: Tracefs) -> None:
    with pytest.raises(FileError, match="no tracepoint skb:nope") as caught:
        tracefs.event_id("skb", "nope")
    assert caught.value.hint is not None


def test_names_do_not_leave_the_directory(tracefs: Tracefs) -> None:
    with pytest.raises(FileError, match="no tracepoint"):
        tracefs.event_id("..", "../etc")


def test_no_tracefs_says_how_to_mount_it(tmp_path: Path) -> None:
    with pytest.raises(SyscallError, match="tracefs is not mounted") as caught:
        Tracefs.find((str(tmp_path),))
    assert caught.value.hint == "mount it: mount -t tracefs tracefs /sys/kernel/tracing"


def test_the_blacklist_names_functions(tmp_path: Path) -> None:
    path = tmp_path / "blacklist"
    path.write_text("0xffffffff81000000-0xffffffff81000010\tasm_exc_int3\n\n")
    assert kprobe_blacklist(str(path)) == {"asm_exc_int3"}
    assert kprobe_blacklist(str(tmp_path / "absent")) == frozenset()


def test_events_that_are_named_probes_are_told(tmp_path: Path) -> None:
    (tmp_path / "kprobe_events").write_text(
        "p:kprobes/reading vfs_read count=%dx\nr16:mine/read vfs_read\n"
    )
    (tmp_path / "uprobe_events").write_text("p:uprobes/main /bin/true:0x0000000000001040\n")
    assert Tracefs(str(tmp_path)).probe_events() == {
        ("kprobes", "reading"): ProbeEvent(user=False, is_return=False),
        ("mine", "read"): ProbeEvent(user=False, is_return=True),
        ("uprobes", "main"): ProbeEvent(user=True, is_return=False),
    }


def test_a_kernel_without_named_probes_has_none(tmp_path: Path) -> None:
    assert Tracefs(str(tmp_path)).probe_events() == {}
