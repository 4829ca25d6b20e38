# SPDX-License-Identifier: Apache-2.0
"""Probe types: one module each; ``base`` says what a probe type is, ``registry`` knows them all."""
