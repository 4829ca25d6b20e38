# SPDX-License-Identifier: Apache-2.0
"""Names and addresses: the kernel's symbols, and suggestions for mistyped names."""
