"""The content of the pages, which knows nothing of the server."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.qupath.entry_slides import open_slide
from qprd.qupath.project import Entry, Project
from qprd.qupath.reviews import Verdict
from qprd.results.arrays import load_tissue
from qprd.results.evaluation import EVALUATION_PAGE
from qprd.results.folder import OVERVIEW, PREDICTIONS, SLIDE
from qprd.results.freshness import digest
from qprd.review.index_page import INDEX_NAME
from qprd.sampling.tissue import find_tissue_of
from qprd.scoring.unscored import find_unscored
from qprd.slides.fingerprint import file_state
from qprd.slides.slide import Slide
from qprd.view import overlays
from qprd.view.listing import slide_row, worst_mistakes
from qprd.view.predicted import NotFoundError, Predicted, Results
from qprd.view.review import Review
from qprd.view.tiles import THUMBNAIL_PX, TILE_PX, OpenSlides, as_jpeg, last_level, read_tile

#: Pages beside the results, and the files of a result that these show or link to.
PAGES = (INDEX_NAME, EVALUATION_PAGE)
LINKED_FILES = (OVERVIEW, PREDICTIONS, SLIDE)

_NOT_RECORDED = (
    "An earlier qprd made this result, which does not record how its contours were drawn and where "
    "tissue was found: contours at other thresholds have the default settings, and tissue is found "
    "by those of the training. qprd predict --force makes it anew."
)


class Content:
    """What the pages show of a project; may be used by several threads.

    The methods raise `NotFoundError` for what there is not, and another `QprdError` for what cannot
    be read or written.

    Args:
        project: The project; only judgments are written to it.
        assume_mpp: Resolution of slides that do not state theirs, micrometers per pixel.
    """

    def __init__(self, project: Project, *, assume_mpp: float | None = None) -> None:
        self._project = project
        self._entries = {entry.id: entry for entry in project.entries()}
        self._assume_mpp = assume_mpp
        self._results = Results(ProjectLayout(project.path))
        self._slides = OpenSlides()
        self._lock = threading.Lock()
        self._review = Review(project, self._lock)

    def close(self) -> None:
        """Close the slides."""
        self._slides.close()

    def project(self) -> dict[str, object]:
        """The project's name, its slides in its order, the worst mistakes, and other pages."""
        results = self._results.layout.results
        return {
            "name": self._project.path.parent.name,
            "slides": [slide_row(entry, self._results) for entry in self._entries.values()],
            "mistakes": worst_mistakes(self._entries, self._results),
            "pages": [name for name in PAGES if (results / name).is_file()],
        }

    def page(self, name: str) -> bytes:
        """A page beside the results, as HTML that says that it is served by the viewer."""
        if name not in PAGES:
            raise NotFoundError("There is no such page.")
        page = _bytes(self._results.layout.results / name)
        return page.replace(b"<html ", b"<html data-served ", 1)

    def linked_file(self, entry_id: str, name: str) -> bytes:
        """A file of a result that a page shows or links to."""
        if name not in LINKED_FILES:
            raise NotFoundError("There is no such file.")
        return _bytes(self._results.layout.result(self._entry(entry_id).id) / name)

    def slide(self, entry_id: str) -> dict[str, object]:
        """All that the page of a slide needs, but pixels."""
        entry = self._entry(entry_id)
        with self._open(entry) as slide:
            described: dict[str, object] = {
                "id": entry.id,
                "name": entry.name,
                "version": self._version(entry),
                "width": slide.width,
                "height": slide.height,
                "tileSize": TILE_PX,
                "lastLevel": last_level(slide.width, slide.height),
                "mpp": entry.source.mpp or self._assume_mpp,
            }
        problems = []
        try:
            described["annotations"] = self._review.drawn(entry)
        except QprdError as error:
            problems.append(error.line_about("Annotations"))
        try:
            predicted = self._results.of(entry)
            described |= self._figures(predicted)
            described["earlier"] = self._earlier(entry, predicted)
            described["regions"] = self._review.regions(entry, predicted)
        except QprdError as error:
            problems.append(error.line_about("Results"))
        return {**described, "problems": problems}

    def tile(self, entry_id: str, level: int, column: int, row: int) -> bytes:
        """A tile as JPEG."""
        with self._open(self._entry(entry_id)) as slide:
            pixels = read_tile(slide, level, column, row)
        if pixels is None:
            raise NotFoundError("There is no such tile.")
        return as_jpeg(pixels)

    def thumbnail(self, entry_id: str) -> bytes:
        """The slide as a small JPEG."""
        with self._open(self._entry(entry_id)) as slide:
            return as_jpeg(slide.thumbnail(THUMBNAIL_PX)[0])

    def heatmap(self, entry_id: str, *, earlier: bool = False) -> bytes:
        """The scores in colors as PNG."""
        predicted = self._results.of(self._entry(entry_id), earlier=earlier)
        return overlays.heatmap_png(predicted, self._results.score_map(predicted))

    def unscored(self, entry_id: str, *, earlier: bool = False) -> bytes:
        """What is neither glass nor scored, striped, as PNG of the whole slide."""
        entry = self._entry(entry_id)
        predicted = self._results.of(entry, earlier=earlier)
        tissue = load_tissue(predicted.folder)
        if tissue is None:
            trained = predicted.trained
            with self._lock:
                annotations = self._project.annotations(entry) if trained.tissue_class else ()
            with self._open(entry) as slide:
                tissue, _ = find_tissue_of(slide, annotations, trained)
        return overlays.stripes_png(find_unscored(tissue, self._results.score_map(predicted)).mask)

    def contours(
        self,
        entry_id: str,
        *,
        threshold: float | None,
        probability: float | None,
        earlier: bool = False,
    ) -> dict[str, object]:
        """Outline the tumor at another threshold (see `qprd.view.overlays.contours_at`)."""
        predicted = self._results.of(self._entry(entry_id), earlier=earlier)
        score_map = self._results.score_map(predicted)
        return overlays.contours_at(
            predicted, score_map, threshold=threshold, probability=probability
        )

    def judge(
        self, entry_id: str, region_id: str, verdict: Verdict, *, name: str, note: str
    ) -> list[dict[str, object]]:
        """Store a judgment (see `qprd.view.review.Review.judge`)."""
        entry = self._entry(entry_id)
        predicted = self._results.of(entry)
        return self._review.judge(entry, predicted, region_id, verdict, name=name, note=note)

    def _entry(self, entry_id: str) -> Entry:
        if entry_id not in self._entries:
            raise NotFoundError("The project has no such image.")
        return self._entries[entry_id]

    def _open(self, entry: Entry) -> AbstractContextManager[Slide]:
        # The resolution does not matter to who shows pixels.
        return self._slides.use(
            self._version(entry), lambda: open_slide(entry, assume_mpp=self._assume_mpp or 1.0)
        )

    def _version(self, entry: Entry) -> str:
        """Changes with the pixels of an entry, so that no browser keeps outdated ones."""
        path = entry.source.path
        state = None if path is None else file_state(path)
        return digest((entry.id, asdict(entry.source), state))

    def _figures(self, predicted: Predicted) -> dict[str, object]:
        """What the page shows of a result."""
        result, score_map = predicted.result, self._results.score_map(predicted)
        recorded = result.min_area_um2 is not None
        return {
            "mpp": result.mpp,
            "bundle": result.bundle,
            "created": result.created,
            "score": result.score_text,
            "threshold": result.threshold,
            "probability": predicted.probability(result.threshold),
            "calibrated": predicted.probability_of is not None,
            "range": overlays.value_range(predicted, score_map),
            "tumorMm2": result.tumor_um2 / 1e6,
            "notes": [*result.notes, *([] if recorded else [_NOT_RECORDED])],
            "heatmap": {
                "x": score_map.x,
                "y": score_map.y,
                "pixel": score_map.cell_px * overlays.heatmap_step(score_map.scores.shape),
            },
        }

    def _earlier(self, entry: Entry, predicted: Predicted) -> dict[str, object] | None:
        """Figures of the kept result of another bundle; None if there is none to show."""
        try:
            earlier = self._results.of(entry, earlier=True)
            if earlier.result.bundle == predicted.result.bundle:
                return None
            return self._figures(earlier)
        except QprdError:
            return None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"There is no such file: {error.strerror}.") from error
