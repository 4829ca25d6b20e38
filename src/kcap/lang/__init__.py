# SPDX-License-Identifier: Apache-2.0
"""The front end of the bpftrace language: text → tokens → syntax tree, diagnostics, formatter."""
