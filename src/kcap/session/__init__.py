# SPDX-License-Identifier: Apache-2.0
"""From a script's text to a running trace: the only place that sees every layer."""
