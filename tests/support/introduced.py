# SPDX-License-Identifier: Apache-2.0
"""Since which kernel there is what: tests are skipped on kernels that came before, and must pass on
all others."""

from __future__ import annotations

from typing import NamedTuple


class Introduced(NamedTuple):
    """A feature of the kernel.

    :ivar version: the first with it.
    :ivar what: what it is, for the reason of a skipped test.
    :ivar without: series of guests that lack it though they are newer, with the reason.
    """

    version: str
    what: str
    without: dict[str, str]


_NO_FPROBE = {"6.1": "Debian's cloud kernel 6.1 is built without CONFIG_FPROBE"}

FEATURES = {
    "module_btf": Introduced("5.11", "BTF of modules", {}),
    "recursion_misses": Introduced("5.12", "counts of programs not run", {}),
    "for_each_map_elem": Introduced("5.13", "bpf_for_each_map_elem", {}),
    "get_func_ip": Introduced("5.15", "bpf_get_func_ip in kprobes", {}),
    "get_attach_cookie": Introduced("5.15", "bpf_get_attach_cookie", {}),
    "event_probes": Introduced("5.15", "probes on events, in dynamic_events", {}),
    "perf_link": Introduced("5.15", "links of perf events", {}),
    "bloom_filter": Introduced("5.16", "bloom filter maps", {}),
    "loop": Introduced("5.17", "bpf_loop", {}),
    "find_vma": Introduced("5.17", "bpf_find_vma", {}),
    "kprobe_multi": Introduced("5.18", "kprobe_multi links", _NO_FPROBE),
    "map_lookup_percpu_elem": Introduced("5.19", "bpf_map_lookup_percpu_elem", {}),
    "tracing_cookie": Introduced("5.19", "cookies of fentry and fexit", {}),
    "uprobe_multi": Introduced("6.6", "uprobe_multi links", {}),
    "link_missed": Introduced("6.7", "counts of missed kprobes by link", {}),
    "kprobe_session": Introduced("6.10", "kprobe_session links", {}),
}


def number(series: str) -> tuple[int, ...]:
    """A kernel series as numbers, to be compared."""
    return tuple(int(part) for part in series.split("."))


def missing(feature: str, kernel: str) -> str:
    """Why a kernel does not have a feature; '' if it must have it.

    :param kernel: the series, such as ``6.12``.
    """
    known = FEATURES[feature]
    if kernel in known.without:
        return known.without[kernel]
    if number(kernel) < number(known.version):
        return f"needs kernel {known.version}: {known.what}"
    return ""
