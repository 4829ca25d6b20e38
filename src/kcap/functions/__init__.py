# SPDX-License-Identifier: Apache-2.0
"""Builtins and functions of the language: one class each, with all that kcap knows of it."""
