# SPDX-License-Identifier: Apache-2.0
"""What capturing packets costs, and what is lost: kcap, tcpdump and bpftrace."""
