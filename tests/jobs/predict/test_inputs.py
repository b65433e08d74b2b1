"""Which results are up to date, and why others are not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shapely

from qprd.bundle.reading import newest_bundle, read_bundle_info
from qprd.files.layout import ProjectLayout
from qprd.jobs.predict.inputs import Inputs
from qprd.qupath.entry_slides import open_slide
from qprd.qupath.exchange import ExchangeProject
from qprd.results.folder import OVERVIEW, SLIDE, load_slide_result
from qprd.results.freshness import Freshness, digest
from tests.helpers.drawn_project import (
    NAMES,
    TUMOR,
    annotate,
    copied,
    drawn,
    edit,
    predict,
    prediction,
    result,
    turn,
)


@pytest.fixture(scope="module")
def _predicted(_trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first slide predicted, what is drawn as Tissue being its tissue."""
    project = copied(_trained, tmp_path_factory.mktemp("predicted") / "project")
    annotate(project, 1, drawn(("Tissue", TUMOR)))
    predict(project, images=NAMES[:1], tissue_class=("Tissue",))
    return project


@pytest.fixture
def predicted(_predicted: Path, tmp_path: Path) -> Path:
    return copied(_predicted, tmp_path / "predicted")


def freshness(project: Path, **flags: Any) -> Freshness:
    bundle = newest_bundle(ProjectLayout(project).bundles)
    settings = prediction(**{"tissue_class": ("Tissue",), **flags})
    inputs = Inputs(bundle, read_bundle_info(bundle), settings)
    with ExchangeProject(project) as opened:
        return inputs.freshness(opened, opened.entries()[0])


def calibrated(project: Path) -> None:
    file = newest_bundle(ProjectLayout(project).bundles) / "bundle.json"
    info = json.loads(file.read_text())
    info["scoring"]["calibration"] = {"method": "platt", "slope": 2.0, "intercept": -1.0}
    file.write_text(json.dumps(info))


def turned(project: Path) -> None:
    turn(project, 1)


def of_earlier_qprd(project: Path) -> None:
    file = result(project, 1) / SLIDE
    record = json.loads(file.read_text())
    del record["made_from"]
    file.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (calibrated, "another bundle"),
        (turned, "frame"),
        (lambda project: annotate(project, 1, drawn(("Tissue", TUMOR.buffer(9)))), "tissue"),
        (of_earlier_qprd, "another version"),
    ],
)
def test_a_result_is_stale_once_what_it_was_made_from_changes(
    predicted: Path, change: Callable[[Path], None], reason: str
) -> None:
    assert freshness(predicted) == Freshness("fresh")
    change(predicted)
    found = freshness(predicted)
    assert found.state == "stale"
    assert reason in found.reason


@pytest.mark.parametrize(
    ("settings", "state"),
    [
        ({"stride": 64}, "stale"),
        ({"threshold": 3.5}, "stale, but for its scores"),
        ({"slide_score": "mean", "min_area_um2": 9.0}, "stale, but for its scores"),
        ({"threshold": 3.5, "stride": 64}, "stale"),
        ({"min_tissue": 0.9}, "stale"),
        ({"precision": "bf16"}, "stale"),
        ({"tissue_class": ("Other",)}, "stale"),
        # These choose slides or machines.
        ({"batch_size": 3, "images": NAMES[1:], "uncertain": 4, "device": "cpu"}, "fresh"),
        # The bundle's own settings may be named.
        ({"operating_point": "accuracy"}, "fresh"),
    ],
)
def test_only_settings_that_influence_the_result_count(
    predicted: Path, settings: dict[str, Any], state: str
) -> None:
    found = freshness(predicted, **settings)
    assert found.state + (", but for its scores" if found.keeps_scores else "") == state


def test_scores_are_not_kept_once_the_slide_or_its_tissue_changed(predicted: Path) -> None:
    annotate(predicted, 1, drawn(("Tissue", TUMOR.buffer(9))))
    assert not freshness(predicted, threshold=3.5).keeps_scores


def test_drawn_tissue_counts_with_whatever_settings_it_was_predicted(predicted: Path) -> None:
    def with_any_settings() -> Freshness:
        bundle = newest_bundle(ProjectLayout(predicted).bundles)
        inputs = Inputs(bundle, read_bundle_info(bundle), prediction())
        with ExchangeProject(predicted) as opened:
            return inputs.freshness(opened, opened.entries()[0], any_settings=True)

    assert with_any_settings().is_fresh
    annotate(predicted, 1, drawn(("Tissue", TUMOR.buffer(9))))
    assert with_any_settings().state == "stale"


def test_one_outline_of_tissue_has_the_digest_of_a_polygon(predicted: Path) -> None:
    """As in results that earlier versions made: another digest would score all of them again."""
    made_from = load_slide_result(result(predicted, 1)).made_from
    assert made_from is not None
    assert made_from.tissue == digest(shapely.to_wkb(shapely.normalize(TUMOR), hex=True))


def test_without_all_of_its_files_a_result_is_missing(predicted: Path) -> None:
    (result(predicted, 1) / OVERVIEW).unlink()
    assert freshness(predicted) == Freshness("missing")
    shutil.rmtree(result(predicted, 1))
    assert freshness(predicted) == Freshness("missing")


def test_a_slide_counts_by_its_pixels_and_is_opened_only_if_its_file_changed(
    predicted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(entry: Any, **options: Any) -> Any:
        opened.append(entry.name)
        return open_slide(entry, **options)

    monkeypatch.setattr("qprd.jobs.predict.inputs.open_slide", counted)
    with ExchangeProject(predicted) as project:
        source, other = (entry.source.path for entry in project.entries()[:2])
    assert source is not None
    assert other is not None
    own = tmp_path / NAMES[0]
    shutil.copy2(source, own)

    def moved(root: Any) -> None:
        root["images"][0]["serverBuilder"]["uri"] = own.as_uri()

    edit(predicted, moved)
    assert freshness(predicted).state == "fresh"
    assert opened == []
    os.utime(own, (1, 1))
    assert freshness(predicted).state == "fresh"
    assert opened == [NAMES[0]]
    shutil.copy(other, own)
    assert "slide" in freshness(predicted).reason
    own.unlink()
    assert freshness(predicted).state == "stale"
