# SPDX-License-Identifier: Apache-2.0
"""Semantic analysis: from the syntax tree to the typed tree, or to diagnostics."""
