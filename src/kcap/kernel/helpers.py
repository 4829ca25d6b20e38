# SPDX-License-Identifier: Apache-2.0
"""Numbers of the BPF helper functions, and their names.

The list is ``enum bpf_func_id`` (include/uapi/linux/bpf.h), without its prefix. It is closed: since
6.7 the kernel adds kfuncs, not helpers.
"""

from __future__ import annotations

from typing import Final


class Helper:
    """The number of each helper: ``Helper.skb_output`` is 111."""

    map_lookup_elem: Final = 1
    map_update_elem: Final = 2
    map_delete_elem: Final = 3
    probe_read: Final = 4
    ktime_get_ns: Final = 5
    trace_printk: Final = 6
    get_prandom_u32: Final = 7
    get_smp_processor_id: Final = 8
    skb_store_bytes: Final = 9
    l3_csum_replace: Final = 10
    l4_csum_replace: Final = 11
    tail_call: Final = 12
    clone_redirect: Final = 13
    get_current_pid_tgid: Final = 14
    get_current_uid_gid: Final = 15
    get_current_comm: Final = 16
    get_cgroup_classid: Final = 17
    skb_vlan_push: Final = 18
    skb_vlan_pop: Final = 19
    skb_get_tunnel_key: Final = 20
    skb_set_tunnel_key: Final = 21
    perf_event_read: Final = 22
    redirect: Final = 23
    get_route_realm: Final = 24
    perf_event_output: Final = 25
    skb_load_bytes: Final = 26
    get_stackid: Final = 27
    csum_diff: Final = 28
    skb_get_tunnel_opt: Final = 29
    skb_set_tunnel_opt: Final = 30
    skb_change_proto: Final = 31
    skb_change_type: Final = 32
    skb_under_cgroup: Final = 33
    get_hash_recalc: Final = 34
    get_current_task: Final = 35
    probe_write_user: Final = 36
    current_task_under_cgroup: Final = 37
    skb_change_tail: Final = 38
    skb_pull_data: Final = 39
    csum_update: Final = 40
    set_hash_invalid: Final = 41
    get_numa_node_id: Final = 42
    skb_change_head: Final = 43
    xdp_adjust_head: Final = 44
    probe_read_str: Final = 45
    get_socket_cookie: Final = 46
    get_socket_uid: Final = 47
    set_hash: Final = 48
    setsockopt: Final = 49
    skb_adjust_room: Final = 50
    redirect_map: Final = 51
    sk_redirect_map: Final = 52
    sock_map_update: Final = 53
    xdp_adjust_meta: Final = 54
    perf_event_read_value: Final = 55
    perf_prog_read_value: Final = 56
    getsockopt: Final = 57
    override_return: Final = 58
    sock_ops_cb_flags_set: Final = 59
    msg_redirect_map: Final = 60
    msg_apply_bytes: Final = 61
    msg_cork_bytes: Final = 62
    msg_pull_data: Final = 63
    bind: Final = 64
    xdp_adjust_tail: Final = 65
    skb_get_xfrm_state: Final = 66
    get_stack: Final = 67
    skb_load_bytes_relative: Final = 68
    fib_lookup: Final = 69
    sock_hash_update: Final = 70
    msg_redirect_hash: Final = 71
    sk_redirect_hash: Final = 72
    lwt_push_encap: Final = 73
    lwt_seg6_store_bytes: Final = 74
    lwt_seg6_adjust_srh: Final = 75
    lwt_seg6_action: Final = 76
    rc_repeat: Final = 77
    rc_keydown: Final = 78
    skb_cgroup_id: Final = 79
    get_current_cgroup_id: Final = 80
    get_local_storage: Final = 81
    sk_select_reuseport: Final = 82
    skb_ancestor_cgroup_id: Final = 83
    sk_lookup_tcp: Final = 84
    sk_lookup_udp: Final = 85
    sk_release: Final = 86
    map_push_elem: Final = 87
    map_pop_elem: Final = 88
    map_peek_elem: Final = 89
    msg_push_data: Final = 90
    msg_pop_data: Final = 91
    rc_pointer_rel: Final = 92
    spin_lock: Final = 93
    spin_unlock: Final = 94
    sk_fullsock: Final = 95
    tcp_sock: Final = 96
    skb_ecn_set_ce: Final = 97
    get_listener_sock: Final = 98
    skc_lookup_tcp: Final = 99
    tcp_check_syncookie: Final = 100
    sysctl_get_name: Final = 101
    sysctl_get_current_value: Final = 102
    sysctl_get_new_value: Final = 103
    sysctl_set_new_value: Final = 104
    strtol: Final = 105
    strtoul: Final = 106
    sk_storage_get: Final = 107
    sk_storage_delete: Final = 108
    send_signal: Final = 109
    tcp_gen_syncookie: Final = 110
    skb_output: Final = 111
    probe_read_user: Final = 112
    probe_read_kernel: Final = 113
    probe_read_user_str: Final = 114
    probe_read_kernel_str: Final = 115
    tcp_send_ack: Final = 116
    send_signal_thread: Final = 117
    jiffies64: Final = 118
    read_branch_records: Final = 119
    get_ns_current_pid_tgid: Final = 120
    xdp_output: Final = 121
    get_netns_cookie: Final = 122
    get_current_ancestor_cgroup_id: Final = 123
    sk_assign: Final = 124
    ktime_get_boot_ns: Final = 125
    seq_printf: Final = 126
    seq_write: Final = 127
    sk_cgroup_id: Final = 128
    sk_ancestor_cgroup_id: Final = 129
    ringbuf_output: Final = 130
    ringbuf_reserve: Final = 131
    ringbuf_submit: Final = 132
    ringbuf_discard: Final = 133
    ringbuf_query: Final = 134
    csum_level: Final = 135
    skc_to_tcp6_sock: Final = 136
    skc_to_tcp_sock: Final = 137
    skc_to_tcp_timewait_sock: Final = 138
    skc_to_tcp_request_sock: Final = 139
    skc_to_udp6_sock: Final = 140
    get_task_stack: Final = 141
    load_hdr_opt: Final = 142
    store_hdr_opt: Final = 143
    reserve_hdr_opt: Final = 144
    inode_storage_get: Final = 145
    inode_storage_delete: Final = 146
    d_path: Final = 147
    copy_from_user: Final = 148
    snprintf_btf: Final = 149
    seq_printf_btf: Final = 150
    skb_cgroup_classid: Final = 151
    redirect_neigh: Final = 152
    per_cpu_ptr: Final = 153
    this_cpu_ptr: Final = 154
    redirect_peer: Final = 155
    task_storage_get: Final = 156
    task_storage_delete: Final = 157
    get_current_task_btf: Final = 158
    bprm_opts_set: Final = 159
    ktime_get_coarse_ns: Final = 160
    ima_inode_hash: Final = 161
    sock_from_file: Final = 162
    check_mtu: Final = 163
    for_each_map_elem: Final = 164
    snprintf: Final = 165
    sys_bpf: Final = 166
    btf_find_by_name_kind: Final = 167
    sys_close: Final = 168
    timer_init: Final = 169
    timer_set_callback: Final = 170
    timer_start: Final = 171
    timer_cancel: Final = 172
    get_func_ip: Final = 173
    get_attach_cookie: Final = 174
    task_pt_regs: Final = 175
    get_branch_snapshot: Final = 176
    trace_vprintk: Final = 177
    skc_to_unix_sock: Final = 178
    kallsyms_lookup_name: Final = 179
    find_vma: Final = 180
    loop: Final = 181
    strncmp: Final = 182
    get_func_arg: Final = 183
    get_func_ret: Final = 184
    get_func_arg_cnt: Final = 185
    get_retval: Final = 186
    set_retval: Final = 187
    xdp_get_buff_len: Final = 188
    xdp_load_bytes: Final = 189
    xdp_store_bytes: Final = 190
    copy_from_user_task: Final = 191
    skb_set_tstamp: Final = 192
    ima_file_hash: Final = 193
    kptr_xchg: Final = 194
    map_lookup_percpu_elem: Final = 195
    skc_to_mptcp_sock: Final = 196
    dynptr_from_mem: Final = 197
    ringbuf_reserve_dynptr: Final = 198
    ringbuf_submit_dynptr: Final = 199
    ringbuf_discard_dynptr: Final = 200
    dynptr_read: Final = 201
    dynptr_write: Final = 202
    dynptr_data: Final = 203
    tcp_raw_gen_syncookie_ipv4: Final = 204
    tcp_raw_gen_syncookie_ipv6: Final = 205
    tcp_raw_check_syncookie_ipv4: Final = 206
    tcp_raw_check_syncookie_ipv6: Final = 207
    ktime_get_tai_ns: Final = 208
    user_ringbuf_drain: Final = 209
    cgrp_storage_get: Final = 210
    cgrp_storage_delete: Final = 211


NAMES: Final[dict[int, str]] = {
    value: name for name, value in vars(Helper).items() if not name.startswith("_")
}
"""Names without prefix by number: 111 is ``skb_output``."""

NUMBERS: Final[dict[str, int]] = {name: number for number, name in NAMES.items()}
"""Numbers by name without prefix."""


def number(name: str) -> int:
    """The number of a helper.

    :param name: with or without ``bpf_``: ``skb_output``, ``bpf_skb_output``.
    :raises KeyError: no such helper.
    """
    return NUMBERS[name.removeprefix("bpf_")]


def name(number: int) -> str:
    """The full name of a helper, as C programs call it: ``bpf_skb_output`` for 111.

    :return: ``helper#N`` if the number is unknown.
    """
    found = NAMES.get(number)
    return f"bpf_{found}" if found else f"helper#{number}"
