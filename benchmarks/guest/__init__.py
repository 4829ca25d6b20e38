# SPDX-License-Identifier: Apache-2.0
"""kcap and its peers in turn on the same work in a guest: ``python -m benchmarks.guest``."""
