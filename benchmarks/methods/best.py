"""``--recipe best`` of qprd, its features computed once an image however many seeds use it.

A test compares it with the library's own training. Without tumor patches it is that training.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray
from skimage.color import hed2rgb, rgb2hed

from methods.frd import ReverseDistillation
from methods.interface import Images, Labels, MethodOptions, Scores
from methods.teachers import moment_features
from qprd.model.fisher import EXPONENT, SHRINKAGE, ClassStatistics, LinearClassifier
from qprd.sampling.dataset import SYMMETRIES, symmetric
from qprd.sampling.stain import restained

#: The symmetries that a score is the mean of: the image, and the transposed image.
VIEWS = (0, 7)

#: Largest share by which the amount of a stain is jittered.
_HED = 0.3
#: Largest share of its unit that is added to the amount of a stain.
_HED_OFFSET = 0.03
#: Quartiles of a normal distribution are so many standard deviations apart.
_QUARTILES = 1.349


class Best:
    """The discriminant of qprd; without tumor patches its student."""

    def __init__(self, options: MethodOptions) -> None:
        self._options = options
        self._features = moment_features(options.teacher, options.teacher_weights, options.device)
        self._classifier: LinearClassifier | None = None
        self._student: ReverseDistillation | None = None

    def fit(
        self,
        train_images: Images,
        train_tumor: Labels,
        val_images: Images,
        val_tumor: Labels,
        *,
        seed: int,
    ) -> None:
        """See `methods.interface.Method`; validation patches have no effect."""
        if not train_tumor.any():
            self._student = ReverseDistillation(self._options, "best", focal=True)
            self._student.fit(train_images, train_tumor, val_images, val_tumor, seed=seed)
            return
        symmetries = range(SYMMETRIES if self._options.augment else 1)
        views = [self._stained(symmetric(train_images, symmetry)) for symmetry in symmetries]
        origin, unit = self._reference(train_images)
        self._classifier = fit_discriminant(
            [(self._of(view) - origin) / unit for view in views], train_tumor
        )

    def score(self, images: Images) -> Scores:
        """About 0 for normal patches and 1 for tumor patches; of a student 0..6."""
        if self._student is not None:
            return self._student.score(images)
        assert self._classifier is not None
        origin, unit = self._reference(images)
        views = [self._of(symmetric(images, symmetry)) for symmetry in VIEWS]
        scores = [self._classifier((view - origin) / unit) for view in views]
        return np.asarray(np.mean(scores, axis=0), np.float64)

    def _of(self, images: Images) -> NDArray[np.float64]:
        return self._features(np.ascontiguousarray(images)).astype(np.float64)

    def _stained(self, images: Images) -> Images:
        if not self._options.augment or self._options.stains == "none":
            return images
        return restained(images) if self._options.stains == "qprd" else _with_jittered_hed(images)

    def _reference(
        self, images: Images
    ) -> tuple[NDArray[np.float64] | float, NDArray[np.float64] | float]:
        """What is subtracted from features, and what they are divided by."""
        if not self._options.standardized:
            return 0.0, 1.0
        lower, middle, upper = np.quantile(
            np.concatenate([self._of(symmetric(images, symmetry)) for symmetry in VIEWS]),
            (0.25, 0.5, 0.75),
            axis=0,
        )
        return middle, np.maximum((upper - lower) / _QUARTILES, 1e-6)


def fit_discriminant(
    views: list[NDArray[np.float64]],
    y_true: Labels,
    *,
    shrinkage: float = SHRINKAGE,
    exponent: float = EXPONENT,
) -> LinearClassifier:
    """Fit qprd's discriminant to features (n, F) of the same patches in several symmetries."""
    statistics = ClassStatistics()
    for view in views:
        statistics.add(view, y_true)
    return statistics.classifier(shrinkage=shrinkage, exponent=exponent)


def _with_jittered_hed(images: Images) -> Images:
    """Stain patches anew by other amounts of hematoxylin, eosin and DAB (Tellez et al. 2018)."""
    out = np.empty_like(images)
    for image, changed in zip(images, out, strict=True):
        rng = np.random.default_rng(zlib.crc32(image.tobytes()))
        amounts = rgb2hed(np.moveaxis(image, 0, -1)) * rng.uniform(1 - _HED, 1 + _HED, 3)
        rgb = hed2rgb(amounts + rng.uniform(-_HED_OFFSET, _HED_OFFSET, 3))
        changed[:] = np.moveaxis(np.rint(255 * rgb), -1, 0)
    return out
