"""Classes by their names: which mean what, and which cannot."""

from __future__ import annotations

from unicodedata import normalize

import pytest

from qprd.errors import QprdError
from qprd.sampling.classes import Classes, check_classes, is_derived, is_ignored_class


@pytest.mark.parametrize(
    ("name", "bases", "expected"),
    [
        ("Tumor", ["Tumor"], True),
        ("Tumor: invasive", ["Tumor"], True),
        ("Tumor:invasive: deep", ["Tumor: invasive"], True),
        ("Tumor", ["Tumor: invasive"], False),
        ("tumor", ["Tumor"], False),
        ("Tumorous", ["Tumor"], False),
        ("Stroma: Tumor", ["Tumor"], False),
        (normalize("NFD", "Gewächs: tief"), [normalize("NFC", "Gewächs")], True),
        (normalize("NFC", "Gewächs"), [normalize("NFD", "Gewächs")], True),
        (None, ["Tumor"], False),
    ],
)
def test_classes_are_compared_component_by_component(
    name: str | None, bases: list[str], expected: bool
) -> None:
    assert is_derived(name, bases) is expected


def test_a_class_is_ignored_by_the_last_component_of_its_name() -> None:
    assert is_ignored_class("Ignore*")
    assert is_ignored_class("Tumor: Necrosis*")
    assert not is_ignored_class("Ignore*: sub")
    assert not is_ignored_class("Tumor")
    assert not is_ignored_class(None)


def test_missing_class_says_what_exists_and_what_is_close() -> None:
    with pytest.raises(QprdError) as caught:
        check_classes(["Tumor"], {"tumor": 3, "Normal": 1, "Stroma": 0})
    assert "Normal (1), tumor (3)" in caught.value.problem
    assert "Stroma" not in caught.value.problem
    assert "Did you mean 'tumor'" in (caught.value.fix or "")


@pytest.mark.parametrize("existing", [{}, {"Tumor: qprd": 12}, {"Tumor: x*": 2}])
def test_predicted_and_ignored_classes_are_no_tumor_class(existing: dict[str, int]) -> None:
    with pytest.raises(QprdError, match="no annotation of class 'Tumor'"):
        check_classes(["Tumor"], existing)


def test_an_ignored_class_cannot_be_wanted() -> None:
    with pytest.raises(QprdError, match="QuPath ignores"):
        check_classes(["Region*"], {"Region*": 1})


def test_a_derived_class_is_enough() -> None:
    check_classes(["Tumor", "Carcinoma"], {"Tumor: in situ": 1})


@pytest.mark.parametrize(
    "names",
    [
        (["Tumor"], ["Tumor: sub"]),
        (["Tumor: a"], ["Normal"], ["Tumor"]),
        (["Tumor"], ["Normal"], ["Normal"]),
    ],
)
def test_a_class_has_one_meaning(names: tuple[list[str], ...]) -> None:
    with pytest.raises(QprdError, match="cannot be both"):
        Classes(*names)
