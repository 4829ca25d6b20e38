# SPDX-License-Identifier: Apache-2.0
"""The bpftrace language in Python, with packet capture at any kernel function."""
