# SPDX-License-Identifier: Apache-2.0
"""What went wrong between a script and a running probe, and how to mend it."""
