# SPDX-License-Identifier: Apache-2.0
"""Kernel symbols, on a few lines of /proc/kallsyms."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcap.errors import FileError
from kcap.symbols.kallsyms import Kallsyms, Symbol

TEXT = b"""ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81000100 T ip_rcv
ffffffff81000200 t ip_rcv_core
ffffffff81000300 t shared
ffffffff81000400 t shared
ffffffff82000000 D jiffies
ffffffffc0000000 t nft_do_chain\t[nf_tables]
ffffffffc0000080 t shared\t[nf_tables]
ffffffffc0001000 T other\t[bpf]
"""


@pytest.fixture
def symbols() -> Kallsyms:
    return Kallsyms(TEXT)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (0xFFFFFFFF81000000, Symbol("_text", 0, "")),
        (0xFFFFFFFF81000123, Symbol("ip_rcv", 0x23, "")),
        (0xFFFFFFFF810001FF, Symbol("ip_rcv", 0xFF, "")),
        (0xFFFFFFFFC0000001, Symbol("nft_do_chain", 1, "nf_tables")),
        (0xFFFFFFFFC0001001, Symbol("other", 1, "bpf")),
    ],
)
def test_an_address_lies_in_a_symbol(symbols: Kallsyms, address: int, expected: Symbol) -> None:
    assert symbols.find(address) == expected


def test_an_address_below_the_first_symbol_has_none(symbols: Kallsyms) -> None:
    assert symbols.find(0x400000) is None


def test_a_symbol_is_written_with_its_offset(symbols: Kallsyms) -> None:
    assert str(symbols.find(0xFFFFFFFF81000110)) == "ip_rcv+16"
    assert str(symbols.find(0xFFFFFFFF81000100)) == "ip_rcv"


def test_a_name_has_addresses_in_the_kernel_and_in_modules(symbols: Kallsyms) -> None:
    assert symbols.addresses("shared") == [
        (0xFFFFFFFF81000300, ""),
        (0xFFFFFFFF81000400, ""),
        (0xFFFFFFFFC0000080, "nf_tables"),
    ]
    assert symbols.address("shared") == 0xFFFFFFFF81000300
    assert symbols.address("shared", "nf_tables") == 0xFFFFFFFFC0000080
    assert symbols.address("_text") == 0xFFFFFFFF81000000


@pytest.mark.parametrize("name", ["ip", "rcv", "ip_rcv_cor", "nf_tables", "T", ""])
def test_parts_of_names_are_no_names(symbols: Kallsyms, name: str) -> None:
    assert symbols.address(name) is None


def test_symbols_need_not_be_sorted() -> None:
    symbols = Kallsyms(b"0000000000002000 T second\n0000000000001000 T first\n")
    assert str(symbols.find(0x1008)) == "first+8"
    assert str(symbols.find(0x2008)) == "second+8"


def test_hidden_addresses_are_an_error_with_a_hint() -> None:
    symbols = Kallsyms(b"0000000000000000 T _text\n0000000000000000 T _stext\n" * 2)
    with pytest.raises(FileError, match="hides the addresses") as caught:
        symbols.find(0xFFFFFFFF81000000)
    assert "kptr_restrict" in (caught.value.hint or "")


def test_no_kallsyms_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="can't read"):
        Kallsyms.kernel(str(tmp_path / "absent"))
