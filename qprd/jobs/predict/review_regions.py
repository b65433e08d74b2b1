"""Review regions, ``qprd predict --uncertain N``: the tissue whose review would help most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import shapely
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.given_settings import stored_train_config
from qprd.predictions import MEAN_PROBABILITY, REVIEW_RANK, ReviewRegion, object_id, review_name
from qprd.progress import Progress
from qprd.qupath.entry_slides import open_slide
from qprd.qupath.project import Annotation, Entry, Project
from qprd.results.contours import contour_measurements
from qprd.results.folder import load_score_map, save_review
from qprd.review.uncertainty import UncertainSquare, in_order_of_review, uncertain_regions
from qprd.sampling.regions import label_regions
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from qprd.bundle.records import BundleInfo


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
    where = ", ".join(f"{count} in {image}" for image, count in list(per_image.items())[:5])
    first = marked[0]
    return (
        f"Marked {len(marked)} regions to review ({where}{', ...' if len(per_image) > 5 else ''}); "
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
    limit: int,
    *,
    tissue_class: Sequence[str] = (),
    assume_mpp: float | None = None,
    progress: Progress,
) -> tuple[tuple[RegionReport, ...], list[str]]:
    """Choose regions from the score maps of these entries and put them into their results.

    Tissue that is labeled already, by drawing or by an earlier review, is left out.

    Args:
        project: The project; it is only read.
        entries: The entries that were scored.
        info: The bundle that scored them.
        threshold: Raw score at and above which tissue is called tumor.
        limit: Largest number of regions in total.
        tissue_class: Classes that outline tissue; what is inside is not labeled by that.
        assume_mpp: Resolution of slides that do not state theirs.
        progress: Shows steps that take long.

    Returns:
        The regions in the order of review, and a line for each entry that has none because its
        annotations, its results or its slide cannot be read.

    Raises:
        QprdError: The results cannot be written.
    """
    layout = ProjectLayout(project.path)
    trained = stored_train_config(info.training.config, where=info.name)
    rules = trained.model_copy(update={"tissue_class": tuple(tissue_class)})
    probability_of = info.scoring.probability_of
    found: dict[str, list[UncertainSquare]] = {}
    problems: list[str] = []
    with progress.task("uncertain regions", len(entries)) as task:
        for entry in entries:
            task.advance()
            try:
                score_map = load_score_map(layout.result(entry.id))
                with open_slide(entry, assume_mpp=assume_mpp) as slide:
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
            regions.append(
                ReviewRegion(
                    object_id(info.name, entry.id, "review", rank),
                    uncertain.polygon,
                    review_name(rank),
                    {**measured, REVIEW_RANK: float(rank)},
                )
            )
            left, top, right, bottom = uncertain.polygon.bounds
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
    return tuple(sorted(marked, key=lambda region: region.rank)), problems


def _labeled(
    annotations: Sequence[Annotation], width: int, height: int, mpp: float, rules: TrainConfig
) -> BaseGeometry:
    """The region that a person has labeled or told qprd to ignore."""
    drawn = label_regions(annotations, width, height, mpp=mpp, config=rules)
    return shapely.union_all(
        [drawn.tumor_region, drawn.normal_region, drawn.rejected, drawn.ignored]
    )
