# SPDX-License-Identifier: Apache-2.0
"""The version of kcap, and the version of the bpftrace language that it implements."""

__version__ = "0.1.0"

#: The release of bpftrace whose documented behaviour is the reference.
BPFTRACE_VERSION = "0.27.0"
