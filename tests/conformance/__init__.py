# SPDX-License-Identifier: Apache-2.0
"""Runs bpftrace's own runtime tests with kcap in bpftrace's place.

``python -m conformance DIR`` from ``tests/`` (see :mod:`conformance.__main__`). The tests are
bpftrace's and no part of this project: DIR is the ``tests`` folder of a checkout of it.
"""
