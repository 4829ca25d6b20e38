# SPDX-License-Identifier: Apache-2.0
"""The table of renamed fields, read in both directions."""

from __future__ import annotations

from kcap.sema.renamedfields import other_name, renamed_fields


def test_a_field_of_an_older_kernel_is_called_by_its_name_here() -> None:
    found = other_name("task_struct", "state", ["pid", "__state"])
    assert found == ("__state", "since Linux 5.14 __state takes the place of state")


def test_a_field_of_a_newer_kernel_is_called_by_its_name_here() -> None:
    found = other_name("mm_struct", "mmap_lock", ["mmap_sem"])
    assert found == ("mmap_sem", "before Linux 5.8 mmap_lock was called mmap_sem")


def test_a_way_is_found_by_its_first_field() -> None:
    found = other_name("request", "rq_disk", ["q"])
    assert found is not None
    assert found[0] == "q.disk"
    assert other_name("request", "rq_disk", ["tag"]) is None


def test_other_structs_have_nothing_to_do_with_it() -> None:
    assert other_name("napi_struct", "state", ["__state"]) is None


def test_the_table_is_well_formed() -> None:
    for row in renamed_fields():
        major, _, minor = row.since.partition(".")
        assert major.isdigit()
        assert minor.isdigit()
        assert row.old != row.new
