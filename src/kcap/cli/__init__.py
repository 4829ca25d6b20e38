# SPDX-License-Identifier: Apache-2.0
"""The command line: one module a subcommand, and ``script`` for running scripts."""
