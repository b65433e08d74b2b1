from __future__ import annotations

import pytest

from qprd.errors import QprdError
from qprd.sampling.split_metadata import metadata_split

QUPATHS_KEY = "Train/Validation/Test type"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, None),
        ({"split": ""}, None),
        ({"split": "Train"}, "train"),
        ({"SPLIT": " validation "}, "val"),
        ({QUPATHS_KEY: "Train"}, "train"),
        ({QUPATHS_KEY: "Validation"}, "val"),
        ({QUPATHS_KEY: "Test"}, "test"),
        ({QUPATHS_KEY: "None"}, None),
        ({"split": "test", QUPATHS_KEY: "None"}, "test"),
        ({"split": "val", QUPATHS_KEY: "Validation"}, "val"),
        ({"stain": "train"}, None),
    ],
)
def test_the_metadata_that_qupath_or_a_person_writes_are_read(
    metadata: dict[str, str], expected: str | None
) -> None:
    assert metadata_split(metadata, "1.svs") == expected


def test_an_unknown_split_names_the_slide() -> None:
    with pytest.raises(QprdError, match="'holdout'") as caught:
        metadata_split({"split": "holdout"}, "1.svs")
    assert caught.value.where == "1.svs"


def test_metadata_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(QprdError, match="contradict") as caught:
        metadata_split({"split": "train", QUPATHS_KEY: "Test"}, "1.svs")
    assert caught.value.where == "1.svs"
