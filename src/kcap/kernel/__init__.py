# SPDX-License-Identifier: Apache-2.0
"""bpf(2), maps, programs, links, perf events, rings, feature probes.

Usable alone, as cilium/ebpf is in Go: nothing here knows the script language. Import the module
that has the subject: this package imports nothing by itself, for start-up's sake.
"""
