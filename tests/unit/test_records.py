# SPDX-License-Identifier: Apache-2.0
"""kcap's records behave as dataclasses do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcap import records


def classes(module: Any) -> dict[str, Any]:
    """The same classes, made by :mod:`dataclasses` or by :mod:`kcap.records`."""
    dataclass, field = module.dataclass, module.field

    @dataclass(frozen=True, slots=True)
    class Point:
        """A point."""

        KIND: ClassVar[int] = 7
        x: int
        y: int = 2
        note: str = field(default="", compare=False)
        hidden: Any = field(default=None, compare=False, hash=False, repr=False)

        @property
        def total(self) -> int:
            return self.x + self.y

    @dataclass(frozen=True, slots=True)
    class Deep(Point):
        z: int = 3

    @dataclass(slots=True)
    class Box:
        items: list[int] = field(default_factory=list)
        name: str = "box"

    @dataclass(slots=True, eq=False)
    class Thing:
        value: int

    @dataclass(slots=True)
    class Empty:
        pass

    return {"Point": Point, "Deep": Deep, "Box": Box, "Thing": Thing, "Empty": Empty}


THEIRS, OURS = classes(dataclasses), classes(records)


@given(st.integers(), st.integers(), st.text(max_size=3))
def test_values_comparison_and_text_are_alike(x: int, y: int, note: str) -> None:
    for name in ("Point", "Deep"):
        theirs, ours = THEIRS[name](x, y=y, note=note), OURS[name](x, y=y, note=note)
        assert (ours.x, ours.y, ours.note) == (theirs.x, theirs.y, theirs.note)
        assert repr(ours) == repr(theirs)
        assert (ours == OURS[name](1)) == (theirs == THEIRS[name](1))
        assert ours == OURS[name](x, y, "other")
        assert hash(ours) == hash(OURS[name](x, y, "other"))


@pytest.mark.parametrize("name", list(OURS))
def test_constructors_take_the_same_arguments(name: str) -> None:
    ours, theirs = OURS[name], THEIRS[name]
    needed = {"Point": (1,), "Deep": (1,), "Thing": (1,)}.get(name, ())
    ours(*needed)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    assert ours.__match_args__ == theirs.__match_args__
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        ours(nothing=1)
    assert not hasattr(ours(*needed), "__dict__")


def test_objects_of_different_classes_are_unequal() -> None:
    assert OURS["Point"](1) != OURS["Deep"](1)
    assert OURS["Point"](1) != 1


def test_a_frozen_record_can_not_be_changed() -> None:
    point = OURS["Point"](1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2
    with pytest.raises(AttributeError):
        del point.x
    assert copy.copy(point) == point
    assert copy.deepcopy(point) == point


def test_hashes_are_there_where_dataclasses_have_them() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(OURS["Box"]())
    thing = OURS["Thing"](1)
    assert hash(thing) == object.__hash__(thing)
    assert thing != OURS["Thing"](1)


def test_every_object_gets_a_default_of_its_own_from_a_factory() -> None:
    first, second = OURS["Box"](), OURS["Box"]()
    first.items.append(1)
    assert second.items == []
    assert OURS["Box"]([5]).items == [5]


def test_class_variables_properties_and_docstrings_stay() -> None:
    assert OURS["Deep"].KIND == 7
    assert OURS["Point"](1).total == 3
    assert OURS["Point"].__doc__ == "A point."


@pytest.mark.parametrize("replace", [dataclasses.replace, records.replace])
def test_replace_makes_a_changed_copy(replace: Any) -> None:
    changed = replace(OURS["Deep"](1, note="n"), y=9)
    assert (changed.x, changed.y, changed.note, changed.z) == (1, 9, "n", 3)


def test_fields_are_those_of_dataclasses() -> None:
    ours = [(f.name, f.compare, f.repr) for f in records.fields(OURS["Point"])]
    assert ours == [(f.name, f.compare, f.repr) for f in dataclasses.fields(THEIRS["Point"])]
    assert [f.name for f in dataclasses.fields(OURS["Deep"])] == ["x", "y", "note", "hidden", "z"]
    assert dataclasses.is_dataclass(OURS["Point"])


def test_a_record_that_holds_itself_can_be_shown() -> None:
    box = OURS["Box"]()
    box.items.append(box)
    assert repr(box).endswith("Box(items=[...], name='box')")
