# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: each module says what it measures; docs/performance.md has what they found."""
