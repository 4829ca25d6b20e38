# SPDX-License-Identifier: Apache-2.0
"""Typed events as text or JSON, byte for byte as bpftrace 0.27 prints them."""
