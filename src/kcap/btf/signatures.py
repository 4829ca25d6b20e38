# SPDX-License-Identifier: Apache-2.0
"""The arguments of many functions as text.

A kernel has 60,000 functions with BTF: no object is made of each and its parameters, and the names
of types, of which there are far fewer, are made once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kcap.btf import render
from kcap.btf import types as t

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kcap.btf.btf import Btf

T = TypeVar("T")

#: What stands before the name of a type, by its kind.
_KEYWORDS = {
    t.Int.KIND: "", t.Typedef.KIND: "", t.Float.KIND: "", t.Struct.KIND: "struct ",
    t.Union.KIND: "union ", t.Enum.KIND: "enum ", t.Enum64.KIND: "enum ",
}  # fmt: skip


class Signatures:
    """Arguments and returned values as ``bpftrace -lv`` prints them.

    :param btf: of the functions.
    """

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._types = _Made(self._type)
        self._names = _Made(btf.string)
        # More than half of all functions have a prototype that another one has, too.
        self._entries = _Made(self._of_entry)
        self._returns = _Made(self._of_return)

    def parameters(self, function: int, *, returned: bool = False) -> Sequence[str]:
        """``struct sock * sk`` and so on, with the returned value (``int retval``) last.

        :param function: its id.
        :param returned: list that, too, unless it is void.
        :raises BtfError: the id is not that of a function with a prototype.
        """
        made = self._returns if returned else self._entries
        return made[self._btf.prototype_id(function)]

    def _of_entry(self, prototype: int) -> Sequence[str]:
        words, _ = self._btf.prototype_words(prototype)
        types, names, each = self._types, self._names, iter(words)
        pairs = zip(each, each, strict=True)
        return tuple([f"{types[of]} {names[name]}" if name else types[of] for name, of in pairs])

    def _of_return(self, prototype: int) -> Sequence[str]:
        _, result = self._btf.prototype_words(prototype)
        lines = self._entries[prototype]
        return (*lines, f"{self._types[result]} retval") if result else lines

    def _type(self, type_id: int) -> str:
        """What :func:`~kcap.btf.render.type_name` says; without making objects of what most
        arguments are: something with a name, const or not, and pointers to it."""
        kind, name, target = self._btf.head(type_id)
        if kind in _KEYWORDS and name:
            return _KEYWORDS[kind] + self._names[name]
        if kind == t.Ptr.KIND:
            pointed = self._types[target]
            if pointed[-1] not in ")]" and self._btf.kind(target) != t.TypeTag.KIND:
                return f"{pointed}*" if pointed[-1] == "*" else f"{pointed} *"
        elif kind == t.Const.KIND and self._btf.kind(target) != t.Ptr.KIND:
            return f"const {self._types[target]}"
        return render.type_name(self._btf, type_id)


class _Made(dict[int, T]):
    """What is made of a number when it is first asked for."""

    def __init__(self, make: Callable[[int], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, number: int) -> T:
        found = self[number] = self._make(number)
        return found
