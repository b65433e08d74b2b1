"""Review regions, ``qprd predict --uncertain N``: the tissue whose review would help most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import shapely
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.given_settings import stored_train_config
from qprd.names import counted
from qprd.predictions import MEAN_PROBABILITY, REVIEW_RANK, ReviewRegion, object_id, review_name
from qprd.progress import Progress
from qprd.qupath.entry_slides import name_list, open_slide
from qprd.qupath.project import Annotation, Entry, Project
from qprd.results.arrays import load_score_map
from qprd.results.contours import contour_measurements
from qprd.results.folder import load_slide_result, save_review
from qprd.review.uncertainty import UncertainSquare, in_order_of_review, uncertain_regions
from qprd.sampling.regions import label_regions
from qprd.sampling.split_metadata import metadata_split
from qprd.settings import PredictConfig, TrainConfig

if TYPE_CHECKING:
    from qprd.bundle.records import BundleInfo

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class RegionReport:
    """A review region as it is reported.

    Attributes:
        rank: Place in the order of review over all slides, from 1.
        image: Name of the image.
        entry_id: Id of the image's entry.
        x: Left edge in level-0 pixels.
        y: Top edge in level-0 pixels.
        width: Width in level-0 pixels.
        height: Height in level-0 pixels.
        probability: Mean probability of its cells; None without a calibration.
        distance: Mean distance of its cells from the threshold.
    """

    rank: int
    image: str
    entry_id: str
    x: float
    y: float
    width: float
    height: float
    probability: float | None
    distance: float


def describe_regions(marked: Sequence[RegionReport]) -> str:
    """Say in one line how many regions are marked, and where."""
    per_image = Counter(region.image for region in marked)
    shown = [f"{count} in {image}" for image, count in per_image.items()][:_NAMES_SHOWN]
    where = ", ".join([*shown, "..."] if len(per_image) > _NAMES_SHOWN else shown)
    first = marked[0]
    return (
        f"Marked {counted(len(marked), 'region to review')} ({where}); "
        f"the first is in {first.image} at ({first.x:.0f}, {first.y:.0f})."
    )


def require_threshold(uncertain: int, threshold: float | None) -> None:
    """Check before long work that there is a threshold for regions to be close to.

    Raises:
        QprdError: Regions are asked for, and there is none.
    """
    if uncertain and threshold is None:
        raise QprdError(
            "The bundle has no threshold, and uncertain regions are those close to it.",
            where="--uncertain",
            fix="Give --threshold, or train with validation slides that hold both classes.",
        )


def mark_uncertain(
    project: Project,
    entries: Sequence[Entry],
    info: BundleInfo,
    threshold: float,
    config: PredictConfig,
    *,
    tissue_class: Sequence[str] = (),
    progress: Progress,
) -> tuple[tuple[RegionReport, ...], list[str], list[str]]:
    """Choose regions from the score maps of these entries and put them into their results.

    Tissue that is labeled already, by drawing or by an earlier review, is left out, and so are
    slides whose labels the next training would not learn from, unless ``config`` wants them.

    Args:
        project: The project; it is only read.
        entries: The entries that were scored.
        info: The bundle that scored them.
        threshold: Raw score at and above which tissue is called tumor.
        config: How many regions at most, where, and the resolution of slides that do not state
            theirs.
        tissue_class: Classes that outline tissue; what is inside is not labeled by that.
        progress: Shows steps that take long.

    Returns:
        The regions in the order of review; a line for each entry that has none because its
        annotations, its results or its slide cannot be read; and notes on why there are fewer
        than wanted.

    Raises:
        QprdError: The results cannot be written.
    """
    layout, limit = ProjectLayout(project.path), config.uncertain
    trained = stored_train_config(info.training.config, where=info.name)
    rules = trained.model_copy(update={"tissue_class": tuple(tissue_class)})
    probability_of = info.scoring.probability_of
    found: dict[str, list[UncertainSquare]] = {}
    problems: list[str] = []
    passed_over: list[Entry] = []
    with progress.task("uncertain regions", len(entries)) as task:
        for entry in entries:
            task.advance()
            folder = layout.result(entry.id)
            try:
                if config.uncertain_on == "train" and _split(entry, info, folder) in (
                    "val",
                    "test",
                ):
                    passed_over.append(entry)
                    continue
                score_map = load_score_map(folder)
                with open_slide(entry, assume_mpp=config.assume_mpp) as slide:
                    width, height = slide.width, slide.height
                annotations = project.annotations(entry)
            except QprdError as error:
                problems.append(error.line_about(f"{entry.name}, regions to review"))
                continue
            found[entry.id] = uncertain_regions(
                score_map,
                threshold,
                patch_px=info.network.patch_px * info.network.mpp / score_map.mpp,
                width=width,
                height=height,
                limit=limit,
                probability_of=probability_of,
                known=_labeled(annotations, width, height, score_map.mpp, rules),
            )
    notes = []
    if passed_over:
        notes.append(
            f"no regions to review are marked in {name_list(passed_over, _NAMES_SHOWN)}: the next "
            "training does not learn from validation and test slides (--uncertain-on all marks "
            "some there too)"
        )
    entries = [entry for entry in entries if entry.id in found]
    ranked: dict[str, list[tuple[int, UncertainSquare]]] = {entry.id: [] for entry in entries}
    for rank, (entry_id, region) in enumerate(in_order_of_review(found, limit), start=1):
        ranked[entry_id].append((rank, region))
    marked: list[RegionReport] = []
    for entry in entries:
        folder = layout.result(entry.id)
        # One map at a time: a large one has hundreds of MiB.
        regions = []
        if ranked[entry.id]:
            score_map = load_score_map(folder)
        for rank, uncertain in ranked[entry.id]:
            measured = contour_measurements(score_map, uncertain.polygon, probability_of)
            left, top, right, bottom = uncertain.polygon.bounds
            # By its place, for ranks change, and a region that was judged is not marked again.
            row, column = (
                round((edge - start) / score_map.cell_px)
                for edge, start in ((top, score_map.y), (left, score_map.x))
            )
            place = row * score_map.scores.shape[1] + column
            regions.append(
                ReviewRegion(
                    object_id(info.name, entry.id, "review", place),
                    uncertain.polygon,
                    review_name(rank),
                    {**measured, REVIEW_RANK: float(rank)},
                )
            )
            marked.append(
                RegionReport(
                    rank=rank,
                    image=entry.name,
                    entry_id=entry.id,
                    x=left,
                    y=top,
                    width=right - left,
                    height=bottom - top,
                    probability=measured.get(MEAN_PROBABILITY),
                    distance=uncertain.distance,
                )
            )
        save_review(folder, regions)
    if found and len(marked) < limit:
        notes.append(
            f"only {len(marked)} of {counted(limit, 'region to review')} can be had: the rest of "
            "the tissue is labeled, or too close to them"
        )
    return tuple(sorted(marked, key=lambda region: region.rank)), problems, notes


def _split(entry: Entry, info: BundleInfo, results: Path) -> str | None:
    """The split of a slide: its metadata, or else what the bundle used it for; None without one."""
    return metadata_split(entry.metadata, entry.name) or info.training.use_of(
        load_slide_result(results).slide
    )


def _labeled(
    annotations: Sequence[Annotation], width: int, height: int, mpp: float, rules: TrainConfig
) -> BaseGeometry:
    """The region that a person has labeled or told qprd to ignore."""
    drawn = label_regions(annotations, width, height, mpp=mpp, config=rules)
    return shapely.union_all(
        [drawn.tumor_region, drawn.normal_region, drawn.rejected, drawn.ignored]
    )
