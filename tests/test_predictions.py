from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprd.predictions import another_id, is_own_class, object_id, was_predicted


@pytest.mark.parametrize(
    "name", ["Tumor: qprd", "qprd", "Tumor:qprd", "Review: qprd", "A: qprd: b"]
)
def test_a_class_with_our_component_is_ours(name: str) -> None:
    assert is_own_class(name)


@pytest.mark.parametrize("name", [None, "", "Tumor", "Tumor: qprd2", "my qprd", "Tumor: QPRD"])
def test_other_classes_are_the_users(name: str | None) -> None:
    assert not is_own_class(name)


@given(st.text(), st.text(), st.sampled_from(["tile", "contour"]), st.integers(0, 10**6))
def test_ids_are_uuids_that_depend_on_all_of_their_parts(
    bundle: str, entry: str, kind: str, index: int
) -> None:
    own = object_id(bundle, entry, kind, index)
    assert str(uuid.UUID(own)) == own
    other = another_id(own, 1)
    assert str(uuid.UUID(other)) == other != own
    assert all(was_predicted(known, None, {}) for known in (own, other))
    assert own == object_id(bundle, entry, kind, index)
    assert own != object_id(bundle, entry, kind, index + 1)
    assert own != object_id(bundle + "x", entry, kind, index)
