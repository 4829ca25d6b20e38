# SPDX-License-Identifier: Apache-2.0
"""``python -m kcap``."""

import sys

from kcap.cli.main import main

sys.exit(main())
