# SPDX-License-Identifier: Apache-2.0
"""The arguments of many functions as text.

A kernel has 60,000 functions with BTF: no object is made of each and its parameters, and the names
of types, of which there are far fewer, are made once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.btf import render

if TYPE_CHECKING:
    from kcap.btf.btf import Btf


class Signatures:
    """Arguments and returned values as ``bpftrace -lv`` prints them.

    :param btf: of the functions.
    """

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._types: dict[int, str] = {}
        self._names: dict[int, str] = {}

    def parameters(self, function: int, *, returned: bool = False) -> list[str]:
        """``struct sock * sk`` and so on, with the returned value (``int retval``) last.

        :param function: its id.
        :param returned: list that, too, unless it is void.
        :raises BtfError: the id is not that of a function with a prototype.
        """
        words, result = self._btf.prototype_words(function)
        lines = [
            f"{self._type(words[at + 1])} {self._name(words[at])}".rstrip()
            for at in range(0, len(words), 2)
        ]
        if returned and result:
            lines.append(f"{self._type(result)} retval")
        return lines

    def _type(self, type_id: int) -> str:
        found = self._types.get(type_id)
        if found is None:
            found = self._types[type_id] = render.type_name(self._btf, type_id)
        return found

    def _name(self, offset: int) -> str:
        found = self._names.get(offset)
        if found is None:
            found = self._names[offset] = self._btf.string(offset)
        return found
