# SPDX-License-Identifier: Apache-2.0
"""Writing an initial RAM file system: cpio archives in the ``newc`` format.

Format: kernel Documentation/driver-api/early-userspace/buffer-format.rst. Archives may follow one
another in one file; each entry starts at a multiple of four bytes.
"""

from __future__ import annotations

_REGULAR = 0o100000
_DIRECTORY = 0o040000


class Archive:
    """A cpio archive that is filled entry by entry, parent directories added on their own."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0
        self._directories: set[str] = set()

    def directory(self, path: str) -> None:
        """Add the directory ``path`` (no leading slash) and those above it."""
        parent, _, name = path.rpartition("/")
        if parent:
            self.directory(parent)
        if name and path not in self._directories:
            self._directories.add(path)
            self._entry(path, _DIRECTORY | 0o755, b"")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file with content ``data``."""
        parent = path.rpartition("/")[0]
        if parent:
            self.directory(parent)
        self._entry(path, _REGULAR | mode, data)

    def finish(self) -> bytes:
        """Return the archive with its trailer, padded to 512 bytes."""
        self._entry("TRAILER!!!", 0, b"")
        data = b"".join(self._parts)
        return data + bytes(-len(data) % 512)

    def _entry(self, name: str, mode: int, data: bytes) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._parts += (
            header,
            encoded,
            bytes(-(len(header) + len(encoded)) % 4),
            data,
            bytes(-len(data) % 4),
        )
