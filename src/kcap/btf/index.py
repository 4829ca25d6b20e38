# SPDX-License-Identifier: Apache-2.0
"""Where each type's record begins, kept from one start to the next.

Finding that out takes 20 ms for a kernel's BTF, more than anything else at start-up, and it only
changes with the kernel: the index is kept under the kernel's build id.
"""

from __future__ import annotations

from array import array
from struct import Struct
from typing import NamedTuple

from kcap import cachedir, elfnotes

NOTES = "/sys/kernel/notes"

# magic and version, enum_signs, number of words of the type section, number of types
_HEADER = Struct("<8sIII")
_MAGIC = b"kcapbtf\1"
_DIRECTORY = "btf"


class Index(NamedTuple):
    """What walking over the records finds out.

    :ivar starts: the first word of each type's record, from the first id on.
    :ivar enum_signs: whether enums say whether they are signed.
    """

    starts: array[int]
    enum_signs: bool


def build_id(path: str = NOTES) -> str:
    """The running kernel's build id in hexadecimal; empty if it has none."""
    try:
        with open(path, "rb", buffering=0) as file:
            return elfnotes.build_id(file.read())
    except OSError:  # no sysfs, or a kernel without notes: nothing is kept then
        return ""


def load(name: str, words: int) -> Index | None:
    """The index kept under a name, or None.

    :param name: the build id; nothing is kept under an empty one.
    :param words: words of the type section; an index of another length is not taken.
    """
    data = cachedir.read(_DIRECTORY, name) if name else None
    if data is None or len(data) < _HEADER.size:
        return None
    magic, signs, of_words, count = _HEADER.unpack_from(data)
    if magic != _MAGIC or of_words != words or len(data) != _HEADER.size + 4 * count:
        return None
    starts = array("I")
    starts.frombytes(memoryview(data)[_HEADER.size :])
    if not count or starts[0] or starts[-1] >= words:
        return None
    return Index(starts, bool(signs))


def store(name: str, words: int, index: Index) -> None:
    """Keep an index under a name, if possible."""
    if name:
        header = _HEADER.pack(_MAGIC, index.enum_signs, words, len(index.starts))
        cachedir.write(_DIRECTORY, name, header + index.starts.tobytes())
