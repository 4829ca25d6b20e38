# SPDX-License-Identifier: Apache-2.0
"""Numbers of the BPF helper functions, and their names.

The constants are those of ``enum bpf_func_id`` (include/uapi/linux/bpf.h), under the kernel's
names. The list is closed: since 6.7 the kernel adds kfuncs, not helpers.
"""

from __future__ import annotations

from typing import Final

BPF_FUNC_map_lookup_elem: Final = 1
BPF_FUNC_map_update_elem: Final = 2
BPF_FUNC_map_delete_elem: Final = 3
BPF_FUNC_probe_read: Final = 4
BPF_FUNC_ktime_get_ns: Final = 5
BPF_FUNC_trace_printk: Final = 6
BPF_FUNC_get_prandom_u32: Final = 7
BPF_FUNC_get_smp_processor_id: Final = 8
BPF_FUNC_skb_store_bytes: Final = 9
BPF_FUNC_l3_csum_replace: Final = 10
BPF_FUNC_l4_csum_replace: Final = 11
BPF_FUNC_tail_call: Final = 12
BPF_FUNC_clone_redirect: Final = 13
BPF_FUNC_get_current_pid_tgid: Final = 14
BPF_FUNC_get_current_uid_gid: Final = 15
BPF_FUNC_get_current_comm: Final = 16
BPF_FUNC_get_cgroup_classid: Final = 17
BPF_FUNC_skb_vlan_push: Final = 18
BPF_FUNC_skb_vlan_pop: Final = 19
BPF_FUNC_skb_get_tunnel_key: Final = 20
BPF_FUNC_skb_set_tunnel_key: Final = 21
BPF_FUNC_perf_event_read: Final = 22
BPF_FUNC_redirect: Final = 23
BPF_FUNC_get_route_realm: Final = 24
BPF_FUNC_perf_event_output: Final = 25
BPF_FUNC_skb_load_bytes: Final = 26
BPF_FUNC_get_stackid: Final = 27
BPF_FUNC_csum_diff: Final = 28
BPF_FUNC_skb_get_tunnel_opt: Final = 29
BPF_FUNC_skb_set_tunnel_opt: Final = 30
BPF_FUNC_skb_change_proto: Final = 31
BPF_FUNC_skb_change_type: Final = 32
BPF_FUNC_skb_under_cgroup: Final = 33
BPF_FUNC_get_hash_recalc: Final = 34
BPF_FUNC_get_current_task: Final = 35
BPF_FUNC_probe_write_user: Final = 36
BPF_FUNC_current_task_under_cgroup: Final = 37
BPF_FUNC_skb_change_tail: Final = 38
BPF_FUNC_skb_pull_data: Final = 39
BPF_FUNC_csum_update: Final = 40
BPF_FUNC_set_hash_invalid: Final = 41
BPF_FUNC_get_numa_node_id: Final = 42
BPF_FUNC_skb_change_head: Final = 43
BPF_FUNC_xdp_adjust_head: Final = 44
BPF_FUNC_probe_read_str: Final = 45
BPF_FUNC_get_socket_cookie: Final = 46
BPF_FUNC_get_socket_uid: Final = 47
BPF_FUNC_set_hash: Final = 48
BPF_FUNC_setsockopt: Final = 49
BPF_FUNC_skb_adjust_room: Final = 50
BPF_FUNC_redirect_map: Final = 51
BPF_FUNC_sk_redirect_map: Final = 52
BPF_FUNC_sock_map_update: Final = 53
BPF_FUNC_xdp_adjust_meta: Final = 54
BPF_FUNC_perf_event_read_value: Final = 55
BPF_FUNC_perf_prog_read_value: Final = 56
BPF_FUNC_getsockopt: Final = 57
BPF_FUNC_override_return: Final = 58
BPF_FUNC_sock_ops_cb_flags_set: Final = 59
BPF_FUNC_msg_redirect_map: Final = 60
BPF_FUNC_msg_apply_bytes: Final = 61
BPF_FUNC_msg_cork_bytes: Final = 62
BPF_FUNC_msg_pull_data: Final = 63
BPF_FUNC_bind: Final = 64
BPF_FUNC_xdp_adjust_tail: Final = 65
BPF_FUNC_skb_get_xfrm_state: Final = 66
BPF_FUNC_get_stack: Final = 67
BPF_FUNC_skb_load_bytes_relative: Final = 68
BPF_FUNC_fib_lookup: Final = 69
BPF_FUNC_sock_hash_update: Final = 70
BPF_FUNC_msg_redirect_hash: Final = 71
BPF_FUNC_sk_redirect_hash: Final = 72
BPF_FUNC_lwt_push_encap: Final = 73
BPF_FUNC_lwt_seg6_store_bytes: Final = 74
BPF_FUNC_lwt_seg6_adjust_srh: Final = 75
BPF_FUNC_lwt_seg6_action: Final = 76
BPF_FUNC_rc_repeat: Final = 77
BPF_FUNC_rc_keydown: Final = 78
BPF_FUNC_skb_cgroup_id: Final = 79
BPF_FUNC_get_current_cgroup_id: Final = 80
BPF_FUNC_get_local_storage: Final = 81
BPF_FUNC_sk_select_reuseport: Final = 82
BPF_FUNC_skb_ancestor_cgroup_id: Final = 83
BPF_FUNC_sk_lookup_tcp: Final = 84
BPF_FUNC_sk_lookup_udp: Final = 85
BPF_FUNC_sk_release: Final = 86
BPF_FUNC_map_push_elem: Final = 87
BPF_FUNC_map_pop_elem: Final = 88
BPF_FUNC_map_peek_elem: Final = 89
BPF_FUNC_msg_push_data: Final = 90
BPF_FUNC_msg_pop_data: Final = 91
BPF_FUNC_rc_pointer_rel: Final = 92
BPF_FUNC_spin_lock: Final = 93
BPF_FUNC_spin_unlock: Final = 94
BPF_FUNC_sk_fullsock: Final = 95
BPF_FUNC_tcp_sock: Final = 96
BPF_FUNC_skb_ecn_set_ce: Final = 97
BPF_FUNC_get_listener_sock: Final = 98
BPF_FUNC_skc_lookup_tcp: Final = 99
BPF_FUNC_tcp_check_syncookie: Final = 100
BPF_FUNC_sysctl_get_name: Final = 101
BPF_FUNC_sysctl_get_current_value: Final = 102
BPF_FUNC_sysctl_get_new_value: Final = 103
BPF_FUNC_sysctl_set_new_value: Final = 104
BPF_FUNC_strtol: Final = 105
BPF_FUNC_strtoul: Final = 106
BPF_FUNC_sk_storage_get: Final = 107
BPF_FUNC_sk_storage_delete: Final = 108
BPF_FUNC_send_signal: Final = 109
BPF_FUNC_tcp_gen_syncookie: Final = 110
BPF_FUNC_skb_output: Final = 111
BPF_FUNC_probe_read_user: Final = 112
BPF_FUNC_probe_read_kernel: Final = 113
BPF_FUNC_probe_read_user_str: Final = 114
BPF_FUNC_probe_read_kernel_str: Final = 115
BPF_FUNC_tcp_send_ack: Final = 116
BPF_FUNC_send_signal_thread: Final = 117
BPF_FUNC_jiffies64: Final = 118
BPF_FUNC_read_branch_records: Final = 119
BPF_FUNC_get_ns_current_pid_tgid: Final = 120
BPF_FUNC_xdp_output: Final = 121
BPF_FUNC_get_netns_cookie: Final = 122
BPF_FUNC_get_current_ancestor_cgroup_id: Final = 123
BPF_FUNC_sk_assign: Final = 124
BPF_FUNC_ktime_get_boot_ns: Final = 125
BPF_FUNC_seq_printf: Final = 126
BPF_FUNC_seq_write: Final = 127
BPF_FUNC_sk_cgroup_id: Final = 128
BPF_FUNC_sk_ancestor_cgroup_id: Final = 129
BPF_FUNC_ringbuf_output: Final = 130
BPF_FUNC_ringbuf_reserve: Final = 131
BPF_FUNC_ringbuf_submit: Final = 132
BPF_FUNC_ringbuf_discard: Final = 133
BPF_FUNC_ringbuf_query: Final = 134
BPF_FUNC_csum_level: Final = 135
BPF_FUNC_skc_to_tcp6_sock: Final = 136
BPF_FUNC_skc_to_tcp_sock: Final = 137
BPF_FUNC_skc_to_tcp_timewait_sock: Final = 138
BPF_FUNC_skc_to_tcp_request_sock: Final = 139
BPF_FUNC_skc_to_udp6_sock: Final = 140
BPF_FUNC_get_task_stack: Final = 141
BPF_FUNC_load_hdr_opt: Final = 142
BPF_FUNC_store_hdr_opt: Final = 143
BPF_FUNC_reserve_hdr_opt: Final = 144
BPF_FUNC_inode_storage_get: Final = 145
BPF_FUNC_inode_storage_delete: Final = 146
BPF_FUNC_d_path: Final = 147
BPF_FUNC_copy_from_user: Final = 148
BPF_FUNC_snprintf_btf: Final = 149
BPF_FUNC_seq_printf_btf: Final = 150
BPF_FUNC_skb_cgroup_classid: Final = 151
BPF_FUNC_redirect_neigh: Final = 152
BPF_FUNC_per_cpu_ptr: Final = 153
BPF_FUNC_this_cpu_ptr: Final = 154
BPF_FUNC_redirect_peer: Final = 155
BPF_FUNC_task_storage_get: Final = 156
BPF_FUNC_task_storage_delete: Final = 157
BPF_FUNC_get_current_task_btf: Final = 158
BPF_FUNC_bprm_opts_set: Final = 159
BPF_FUNC_ktime_get_coarse_ns: Final = 160
BPF_FUNC_ima_inode_hash: Final = 161
BPF_FUNC_sock_from_file: Final = 162
BPF_FUNC_check_mtu: Final = 163
BPF_FUNC_for_each_map_elem: Final = 164
BPF_FUNC_snprintf: Final = 165
BPF_FUNC_sys_bpf: Final = 166
BPF_FUNC_btf_find_by_name_kind: Final = 167
BPF_FUNC_sys_close: Final = 168
BPF_FUNC_timer_init: Final = 169
BPF_FUNC_timer_set_callback: Final = 170
BPF_FUNC_timer_start: Final = 171
BPF_FUNC_timer_cancel: Final = 172
BPF_FUNC_get_func_ip: Final = 173
BPF_FUNC_get_attach_cookie: Final = 174
BPF_FUNC_task_pt_regs: Final = 175
BPF_FUNC_get_branch_snapshot: Final = 176
BPF_FUNC_trace_vprintk: Final = 177
BPF_FUNC_skc_to_unix_sock: Final = 178
BPF_FUNC_kallsyms_lookup_name: Final = 179
BPF_FUNC_find_vma: Final = 180
BPF_FUNC_loop: Final = 181
BPF_FUNC_strncmp: Final = 182
BPF_FUNC_get_func_arg: Final = 183
BPF_FUNC_get_func_ret: Final = 184
BPF_FUNC_get_func_arg_cnt: Final = 185
BPF_FUNC_get_retval: Final = 186
BPF_FUNC_set_retval: Final = 187
BPF_FUNC_xdp_get_buff_len: Final = 188
BPF_FUNC_xdp_load_bytes: Final = 189
BPF_FUNC_xdp_store_bytes: Final = 190
BPF_FUNC_copy_from_user_task: Final = 191
BPF_FUNC_skb_set_tstamp: Final = 192
BPF_FUNC_ima_file_hash: Final = 193
BPF_FUNC_kptr_xchg: Final = 194
BPF_FUNC_map_lookup_percpu_elem: Final = 195
BPF_FUNC_skc_to_mptcp_sock: Final = 196
BPF_FUNC_dynptr_from_mem: Final = 197
BPF_FUNC_ringbuf_reserve_dynptr: Final = 198
BPF_FUNC_ringbuf_submit_dynptr: Final = 199
BPF_FUNC_ringbuf_discard_dynptr: Final = 200
BPF_FUNC_dynptr_read: Final = 201
BPF_FUNC_dynptr_write: Final = 202
BPF_FUNC_dynptr_data: Final = 203
BPF_FUNC_tcp_raw_gen_syncookie_ipv4: Final = 204
BPF_FUNC_tcp_raw_gen_syncookie_ipv6: Final = 205
BPF_FUNC_tcp_raw_check_syncookie_ipv4: Final = 206
BPF_FUNC_tcp_raw_check_syncookie_ipv6: Final = 207
BPF_FUNC_ktime_get_tai_ns: Final = 208
BPF_FUNC_user_ringbuf_drain: Final = 209
BPF_FUNC_cgrp_storage_get: Final = 210
BPF_FUNC_cgrp_storage_delete: Final = 211

NAMES: Final[dict[int, str]] = {
    value: name.removeprefix("BPF_FUNC_")
    for name, value in tuple(globals().items())
    if name.startswith("BPF_FUNC_")
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
