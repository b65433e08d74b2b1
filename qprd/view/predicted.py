"""The results of a project as the viewer needs them: checked, and kept while nothing changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from qprd.bundle.reading import read_bundle_info
from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.given_settings import stored_train_config
from qprd.predictions import ScoreMap
from qprd.qupath.entry_slides import require_same_image
from qprd.qupath.project import Entry
from qprd.results.arrays import load_score_map
from qprd.results.contours import ProbabilityOf
from qprd.results.folder import SLIDE, SlideResult, load_slide_result
from qprd.settings import TrainConfig
from qprd.slides.fingerprint import file_state

if TYPE_CHECKING:
    from qprd.bundle.records import BundleInfo

_Value = TypeVar("_Value")


class NotFoundError(QprdError):
    """There is no such slide, tile, region or result."""


class Latest:
    """A value for each file, read again when the file has changed; the oldest are dropped."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[object, Any]] = {}

    def get(self, file: Path, read: Callable[[], _Value], also: object = None) -> _Value:
        """The value of a file, from `read` if the file or what ``also`` counts has changed."""
        changed = (file.stat().st_mtime_ns if file.exists() else 0, also)
        with self._lock:
            known = self._known.get(file)
        if known is not None and known[0] == changed:
            return known[1]  # type: ignore[no-any-return]
        value = read()
        with self._lock:
            self._known.pop(file, None)
            self._known[file] = changed, value
            while self._limit is not None and len(self._known) > self._limit:
                del self._known[next(iter(self._known))]
        return value


@dataclass(frozen=True)
class Predicted:
    """The result of an entry.

    Attributes:
        info: The bundle that predicted; None if that is not in the project any more.
    """

    folder: Path
    result: SlideResult
    info: BundleInfo | None

    @property
    def probability_of(self) -> ProbabilityOf | None:
        """Turns raw scores into probabilities; None without a calibration."""
        return None if self.info is None else self.info.scoring.probability_of

    def probability(self, score: float | None) -> float | None:
        """The probability of a raw score; None without one or without a calibration."""
        if score is None or self.probability_of is None:
            return None
        return float(self.probability_of(np.array([score]))[0])

    @property
    def trained(self) -> TrainConfig:
        """The settings of the training."""
        if self.info is None:
            return TrainConfig()
        return stored_train_config(self.info.training.config, where=self.info.name)


class Results:
    """The results of a project; may be used by several threads."""

    def __init__(self, layout: ProjectLayout) -> None:
        self.layout = layout
        self._bundles, self._loaded, self._checked = Latest(), Latest(), Latest()
        # A large map has hundreds of MiB.
        self._maps = Latest(limit=2)

    def load(self, entry: Entry, *, earlier: bool = False) -> Predicted:
        """The result of an entry, even if it is of another slide.

        With ``earlier`` it is what is kept of the result of the bundle before.

        Raises:
            QprdError: There is none, or it is damaged.
        """
        folder = self.layout.earlier(entry.id) if earlier else self.layout.result(entry.id)
        if not (folder / SLIDE).is_file():
            raise NotFoundError("This image is not predicted yet.", fix="Run qprd predict.")

        def read() -> Predicted:
            result = load_slide_result(folder)
            return Predicted(folder, result, self._bundle(result.bundle))

        return self._loaded.get(folder / SLIDE, read)

    def of(self, entry: Entry, *, earlier: bool = False) -> Predicted:
        """The result of an entry, which is of the slide as the entry shows it.

        The arguments are those of `load`.

        Raises:
            QprdError: There is none, it is damaged, or it is of another slide.
        """
        predicted = self.load(entry, earlier=earlier)

        def check() -> None:
            require_same_image(entry, predicted.result.slide, predicted.result.frame)

        path = entry.source.path
        state = None if path is None else file_state(path)
        self._checked.get(predicted.folder / SLIDE, check, state)
        return predicted

    def score_map(self, predicted: Predicted) -> ScoreMap:
        """The score map of a result.

        Raises:
            QprdError: There is none, or it is damaged.
        """
        folder = predicted.folder
        return self._maps.get(folder / SLIDE, lambda: load_score_map(folder))

    def _bundle(self, name: str) -> BundleInfo | None:
        """A bundle of the project by name; results may name one that is not there any more."""
        if Path(name).name != name:
            return None
        folder = self.layout.bundles / name

        def read() -> BundleInfo | None:
            try:
                return read_bundle_info(folder)
            except QprdError:
                return None

        return self._bundles.get(folder, read)
