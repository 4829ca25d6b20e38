# SPDX-License-Identifier: Apache-2.0
"""Kernel types: reading BTF, asking it questions, writing it as C, and writing BTF.

Usable alone; nothing here knows the script language.
"""

from __future__ import annotations

from kcap.btf.btf import Btf
from kcap.btf.errors import BtfError, BtfNotFoundError
from kcap.btf.layout import (
    FoundMember,
    find_member,
    member_names,
    resolve,
    size_of,
    strip_modifiers,
    tracepoint_prototype,
    type_tags,
)
from kcap.btf.types import (
    Array,
    Composite,
    Const,
    Datasec,
    DeclTag,
    Enum,
    Enum64,
    Float,
    Func,
    FuncProto,
    Fwd,
    Int,
    Member,
    Param,
    Ptr,
    Restrict,
    Struct,
    Type,
    Typedef,
    TypeTag,
    Union,
    Var,
    Void,
    Volatile,
)

__all__ = [
    "Array",
    "Btf",
    "BtfError",
    "BtfNotFoundError",
    "Composite",
    "Const",
    "Datasec",
    "DeclTag",
    "Enum",
    "Enum64",
    "Float",
    "FoundMember",
    "Func",
    "FuncProto",
    "Fwd",
    "Int",
    "Member",
    "Param",
    "Ptr",
    "Restrict",
    "Struct",
    "Type",
    "TypeTag",
    "Typedef",
    "Union",
    "Var",
    "Void",
    "Volatile",
    "find_member",
    "member_names",
    "resolve",
    "size_of",
    "strip_modifiers",
    "tracepoint_prototype",
    "type_tags",
]
