# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced whole."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress


def replace_file(path: str, data: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Give a file new contents at once: it has the old ones or the new ones, also after a crash.
    What stands at the path is replaced; a link there is not followed.

    :param mode: its permissions.
    :param owner: user and group; by default who writes it.
    :raises OSError: it can't be written; then nothing is left beside it.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=".kcap-", dir=os.path.dirname(path))
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            made = os.fstat(descriptor)
            if owner is not None and owner != (made.st_uid, made.st_gid):
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:
        with suppress(FileNotFoundError):  # it took the other's place already
            os.unlink(temporary)
        raise
