# SPDX-License-Identifier: Apache-2.0
"""Names as the kernel takes them."""

from __future__ import annotations

from kcap.kernel import uapi

_ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.")
_KSYM_NAME_LEN = 128


def identifier(name: str) -> str:
    """A name with everything but letters, digits, ``_`` and ``.`` replaced by ``_``.

    The kernel wants that of names of objects (bpf_obj_name_cpy) and of functions in BTF
    (btf_name_valid_identifier), where the first character may be no digit either.
    """
    text = "".join(c if c in _ALLOWED else "_" for c in name)[: _KSYM_NAME_LEN - 1]
    return f"_{text}" if not text or text[0].isdigit() else text


def kernel_name(name: str) -> bytes:
    """The first 15 characters of a name, for a map or program."""
    return identifier(name)[: uapi.BPF_OBJ_NAME_LEN - 1].encode()
