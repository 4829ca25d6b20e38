# SPDX-License-Identifier: Apache-2.0
"""Programs and libraries inside of ZIP archives, which are mapped from there (Android does that).

Their paths are written ``archive.apk!/lib/libfoo.so``. Only what is stored as it is can be mapped;
the format is that of PKWARE's APPNOTE.TXT, 4.3.
"""

from __future__ import annotations

import io
import os
from struct import error as struct_error
from struct import unpack_from
from typing import TYPE_CHECKING

from kcap.errors import FileError
from kcap.symbols.nearest import nearest

if TYPE_CHECKING:
    from typing import BinaryIO

_SEPARATOR = "!/"
_LOCAL_HEADER = 30


def split(path: str) -> tuple[str, str]:
    """The file that a path is in, and what it is called there: '' if the path is the file's own."""
    file, separator, member = path.partition(_SEPARATOR)
    return (file, member) if separator and not os.path.lexists(path) else (path, "")


def placed(file: str, member: str) -> tuple[int, int]:
    """Where in an archive a file is: offset and size in bytes.

    :raises FileError: it is not there, compressed or encrypted, or the archive can't be read.
    """
    from zipfile import ZIP_STORED, BadZipFile, ZipFile

    path = f"{file}{_SEPARATOR}{member}"
    try:
        with open(file, "rb") as raw, ZipFile(raw) as archive:
            if member not in archive.namelist():
                near = nearest(member, archive.namelist())
                also = f", but {' and '.join(near)}" if near else ""
                raise FileError(f"the archive {file} has no {member}{also}", path)
            found = archive.getinfo(member)
            if found.compress_type != ZIP_STORED or found.flag_bits & 1:
                how = "encrypted" if found.flag_bits & 1 else "compressed"
                raise FileError(f"{member} is {how} in {file}: it can't be mapped", path)
            raw.seek(found.header_offset)
            name, extra = unpack_from("<HH", raw.read(_LOCAL_HEADER), 26)
            return found.header_offset + _LOCAL_HEADER + name + extra, found.file_size
    except (BadZipFile, NotImplementedError, ValueError, struct_error) as error:
        raise FileError(f"{file} is no ZIP archive, or a damaged one: {error}", path) from error


def open_binary(path: str) -> BinaryIO:
    """Open a file, or one in an archive, to be read.

    :raises OSError: it can't be read.
    :raises FileError: as :func:`placed`.
    """
    file, member = split(path)
    if not member:
        return open(path, "rb")
    start, size = placed(file, member)
    with open(file, "rb") as archive:
        archive.seek(start)
        return io.BytesIO(archive.read(size))
