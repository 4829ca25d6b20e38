# SPDX-License-Identifier: Apache-2.0
"""Numbers of the kernel's user-space interface that loading and attaching need.

Names and values are those of include/uapi/linux/bpf.h and include/uapi/linux/perf_event.h.
Plain integers rather than enums: importing them costs next to nothing.
"""

from __future__ import annotations

from typing import Final

# enum bpf_cmd
BPF_MAP_CREATE: Final = 0
BPF_MAP_LOOKUP_ELEM: Final = 1
BPF_MAP_UPDATE_ELEM: Final = 2
BPF_MAP_DELETE_ELEM: Final = 3
BPF_MAP_GET_NEXT_KEY: Final = 4
BPF_PROG_LOAD: Final = 5
BPF_PROG_TEST_RUN: Final = 10
BPF_OBJ_GET_INFO_BY_FD: Final = 15
BPF_RAW_TRACEPOINT_OPEN: Final = 17
BPF_BTF_LOAD: Final = 18
BPF_BTF_GET_FD_BY_ID: Final = 19
BPF_MAP_LOOKUP_AND_DELETE_ELEM: Final = 21
BPF_MAP_FREEZE: Final = 22
BPF_BTF_GET_NEXT_ID: Final = 23
BPF_MAP_LOOKUP_BATCH: Final = 24
BPF_MAP_LOOKUP_AND_DELETE_BATCH: Final = 25
BPF_MAP_UPDATE_BATCH: Final = 26
BPF_MAP_DELETE_BATCH: Final = 27
BPF_LINK_CREATE: Final = 28
BPF_ENABLE_STATS: Final = 32
BPF_ITER_CREATE: Final = 33
BPF_OBJ_PIN: Final = 6
BPF_PROG_GET_NEXT_ID: Final = 11
BPF_PROG_GET_FD_BY_ID: Final = 13

# enum bpf_map_type
BPF_MAP_TYPE_HASH: Final = 1
BPF_MAP_TYPE_ARRAY: Final = 2
BPF_MAP_TYPE_PROG_ARRAY: Final = 3
BPF_MAP_TYPE_PERF_EVENT_ARRAY: Final = 4
BPF_MAP_TYPE_PERCPU_HASH: Final = 5
BPF_MAP_TYPE_PERCPU_ARRAY: Final = 6
BPF_MAP_TYPE_STACK_TRACE: Final = 7
BPF_MAP_TYPE_CGROUP_ARRAY: Final = 8
BPF_MAP_TYPE_LRU_HASH: Final = 9
BPF_MAP_TYPE_LRU_PERCPU_HASH: Final = 10
BPF_MAP_TYPE_CGROUP_STORAGE: Final = 19
BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE: Final = 21
BPF_MAP_TYPE_QUEUE: Final = 22
BPF_MAP_TYPE_STACK: Final = 23
BPF_MAP_TYPE_RINGBUF: Final = 27
BPF_MAP_TYPE_TASK_STORAGE: Final = 29
BPF_MAP_TYPE_BLOOM_FILTER: Final = 30

PER_CPU_MAP_TYPES: Final = frozenset(
    (
        BPF_MAP_TYPE_PERCPU_HASH,
        BPF_MAP_TYPE_PERCPU_ARRAY,
        BPF_MAP_TYPE_LRU_PERCPU_HASH,
        BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
    )
)

# BPF_MAP_CREATE flags
BPF_F_NO_PREALLOC: Final = 1 << 0
BPF_F_NO_COMMON_LRU: Final = 1 << 1
BPF_F_RDONLY_PROG: Final = 1 << 7

# BPF_MAP_UPDATE_ELEM flags
BPF_ANY: Final = 0
BPF_NOEXIST: Final = 1
BPF_EXIST: Final = 2

# enum bpf_prog_type
BPF_PROG_TYPE_SOCKET_FILTER: Final = 1
BPF_PROG_TYPE_KPROBE: Final = 2
BPF_PROG_TYPE_SCHED_CLS: Final = 3
BPF_PROG_TYPE_TRACEPOINT: Final = 5
BPF_PROG_TYPE_XDP: Final = 6
BPF_PROG_TYPE_PERF_EVENT: Final = 7
BPF_PROG_TYPE_RAW_TRACEPOINT: Final = 17
BPF_PROG_TYPE_TRACING: Final = 26
BPF_PROG_TYPE_SYSCALL: Final = 31

# enum bpf_attach_type
BPF_TRACE_RAW_TP: Final = 23
BPF_TRACE_FENTRY: Final = 24
BPF_TRACE_FEXIT: Final = 25
BPF_MODIFY_RETURN: Final = 26
BPF_TRACE_ITER: Final = 28
BPF_PERF_EVENT: Final = 41
BPF_TRACE_KPROBE_MULTI: Final = 42
BPF_TRACE_UPROBE_MULTI: Final = 48
BPF_TRACE_KPROBE_SESSION: Final = 56
BPF_TRACE_UPROBE_SESSION: Final = 57
BPF_TRACE_FENTRY_MULTI: Final = 59
BPF_TRACE_FEXIT_MULTI: Final = 60

# BPF_LINK_CREATE flags
BPF_F_KPROBE_MULTI_RETURN: Final = 1 << 0
BPF_F_UPROBE_MULTI_RETURN: Final = 1 << 0

# BPF_PROG_LOAD flags
BPF_F_SLEEPABLE: Final = 1 << 4
BPF_F_XDP_HAS_FRAGS: Final = 1 << 5

# Pseudo source registers of 64-bit immediate loads and calls
BPF_PSEUDO_MAP_FD: Final = 1
BPF_PSEUDO_MAP_VALUE: Final = 2
BPF_PSEUDO_BTF_ID: Final = 3
BPF_PSEUDO_FUNC: Final = 4
BPF_PSEUDO_CALL: Final = 1
BPF_PSEUDO_KFUNC_CALL: Final = 2

BPF_OBJ_NAME_LEN: Final = 16
"""Bytes of a map's or program's name, the final NUL included."""

# enum perf_type_id
PERF_TYPE_HARDWARE: Final = 0
PERF_TYPE_SOFTWARE: Final = 1
PERF_TYPE_TRACEPOINT: Final = 2
PERF_TYPE_HW_CACHE: Final = 3
PERF_TYPE_RAW: Final = 4
PERF_TYPE_BREAKPOINT: Final = 5

# enum perf_sw_ids
PERF_COUNT_SW_CPU_CLOCK: Final = 0
PERF_COUNT_SW_TASK_CLOCK: Final = 1
PERF_COUNT_SW_PAGE_FAULTS: Final = 2
PERF_COUNT_SW_CONTEXT_SWITCHES: Final = 3
PERF_COUNT_SW_CPU_MIGRATIONS: Final = 4
PERF_COUNT_SW_PAGE_FAULTS_MIN: Final = 5
PERF_COUNT_SW_PAGE_FAULTS_MAJ: Final = 6
PERF_COUNT_SW_ALIGNMENT_FAULTS: Final = 7
PERF_COUNT_SW_EMULATION_FAULTS: Final = 8
PERF_COUNT_SW_DUMMY: Final = 9
PERF_COUNT_SW_BPF_OUTPUT: Final = 10

PERF_SAMPLE_TIME: Final = 1 << 2
PERF_SAMPLE_RAW: Final = 1 << 10

PERF_FLAG_FD_CLOEXEC: Final = 1 << 3

# perf ioctls: _IO('$', n), _IOW('$', n, __u32)
PERF_EVENT_IOC_ENABLE: Final = 0x2400
PERF_EVENT_IOC_DISABLE: Final = 0x2401
PERF_EVENT_IOC_SET_BPF: Final = 0x40042408

# enum perf_event_type
PERF_RECORD_LOST: Final = 2
PERF_RECORD_SAMPLE: Final = 9

# enum bp_type (include/uapi/linux/hw_breakpoint.h)
HW_BREAKPOINT_R: Final = 1
HW_BREAKPOINT_W: Final = 2
HW_BREAKPOINT_X: Final = 4
