# SPDX-License-Identifier: Apache-2.0
"""Features probed on kernels whose answers are known."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kcap.btf import Btf, Composite, Struct, find_member, strip_modifiers
from kcap.kernel import features, uapi
from kcap.kernel.helpers import Helper
from kcap.kernel.tracefs import Tracefs, kprobe_blacklist
from kcap.symbols.kallsyms import Kallsyms
from support.introduced import FEATURES, missing

TRACING = uapi.BPF_PROG_TYPE_TRACING


@pytest.fixture(scope="module")
def btf() -> Btf:
    return Btf.kernel()


@pytest.mark.parametrize(
    "attach_type", [uapi.BPF_TRACE_FENTRY, uapi.BPF_TRACE_FEXIT, uapi.BPF_TRACE_RAW_TP]
)
def test_skb_output_is_for_tracing_programs(btf: Btf, attach_type: int) -> None:
    assert features.helper(Helper.skb_output, TRACING, attach_type, btf) is True


@pytest.mark.parametrize(
    "kind",
    [
        uapi.BPF_PROG_TYPE_KPROBE,
        uapi.BPF_PROG_TYPE_TRACEPOINT,
        uapi.BPF_PROG_TYPE_RAW_TRACEPOINT,
        uapi.BPF_PROG_TYPE_PERF_EVENT,
    ],
)
def test_skb_output_is_for_no_others(kind: int) -> None:
    assert features.helper(Helper.skb_output, kind) is False
    assert features.helper(Helper.perf_event_output, kind) is True


#: What the kernel tells of programs and links, by the members that tell it.
COUNTS = {
    "recursion_misses": ("bpf_prog_info", "recursion_misses"),
    "link_missed": ("bpf_link_info", "kprobe_multi", "missed"),
}


def has_member(btf: Btf, struct: str, *path: str) -> bool:
    """Whether a structure has a member, which may be a member of a member."""
    composite: object = btf.find(struct, Struct)
    for name in path:
        assert isinstance(composite, Composite)
        found = find_member(btf, composite, name)
        if found is None:
            return False
        composite = strip_modifiers(btf, found.member.type_id)
    return True


def probe(feature: str, btf: Btf) -> bool | None:
    """What the running kernel answers."""
    if feature == "module_btf":
        return len(os.listdir("/sys/kernel/btf")) > 1
    if feature == "event_probes":
        return "e[:[<group>/]" in Path(Tracefs.find().path, "README").read_text()
    if feature == "bloom_filter":
        return features.map_type(uapi.BPF_MAP_TYPE_BLOOM_FILTER)
    if feature in COUNTS:
        return has_member(btf, *COUNTS[feature])
    if feature == "tracing_cookie":
        return features.tracing_cookie(btf)
    if hasattr(Helper, feature):
        return features.helper(getattr(Helper, feature), uapi.BPF_PROG_TYPE_KPROBE)
    answer: bool | None = getattr(features, feature)()
    return answer


@pytest.mark.parametrize("feature", FEATURES)
def test_features_are_there_from_their_kernel_on(kernel: str, btf: Btf, feature: str) -> None:
    assert probe(feature, btf) is not bool(missing(feature, kernel))


def test_what_all_kernels_have_and_what_none_has() -> None:
    assert features.helper(Helper.ringbuf_output, uapi.BPF_PROG_TYPE_KPROBE) is True
    assert features.helper(9999, uapi.BPF_PROG_TYPE_KPROBE) is False
    assert features.ring_buffer() is True
    assert features.map_type(uapi.BPF_MAP_TYPE_STACK_TRACE) is True
    assert features.map_type(9999) is False


def test_program_types(btf: Btf) -> None:
    assert features.program_type(TRACING, uapi.BPF_TRACE_FENTRY, btf) is True
    assert features.program_type(9999) is False


def test_tracefs_lists_functions_and_events() -> None:
    tracefs = Tracefs.find()
    assert "ip_rcv" in tracefs.traceable
    assert ("ip_rcv", "") in set(tracefs.traceable_functions())
    assert ("skb", "kfree_skb") in tracefs.events()


def test_every_event_format_parses() -> None:
    tracefs = Tracefs.find()
    for category, name in tracefs.events():
        if category == "ftrace":
            continue
        event = tracefs.event_format(category, name)
        assert event.id == tracefs.event_id(category, name)
        assert all(field.name and field.type for field in event.fields), (category, name)


def test_kfree_skb_carries_the_skb() -> None:
    event = Tracefs.find().event_format("skb", "kfree_skb")
    field = event.field("skbaddr")
    assert field is not None
    assert (field.type, field.offset, field.size, field.signed) == ("void *", 8, 8, False)
    assert event.arguments[0] is field


def test_the_blacklist_is_read_where_debugfs_is_mounted() -> None:
    assert isinstance(kprobe_blacklist(), frozenset)


def test_kallsyms_gives_back_names_of_addresses() -> None:
    symbols = Kallsyms.kernel()
    address = symbols.address("ip_rcv")
    assert address is not None
    assert str(symbols.find(address)) == "ip_rcv"
    assert str(symbols.find(address + 5)) == "ip_rcv+5"
