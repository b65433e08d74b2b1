"""``--recipe best`` of qprd, its features computed once an image however many seeds use it.

A test compares it with the library's own training. Without tumor patches it is that training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from methods.frd import ReverseDistillation
from methods.interface import Images, Labels, MethodOptions, Scores
from methods.teachers import moment_features
from qprd.model.fisher import EXPONENT, SHRINKAGE, ClassStatistics, LinearClassifier
from qprd.sampling.dataset import SYMMETRIES, symmetric
from qprd.sampling.stain import restained

#: The symmetries that a score is the mean of: the image, and the transposed image.
VIEWS = (0, 7)


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
        views = [train_images]
        if self._options.augment:
            views = [restained(symmetric(train_images, n)) for n in range(SYMMETRIES)]
        self._classifier = fit_discriminant([self._of(view) for view in views], train_tumor)

    def score(self, images: Images) -> Scores:
        """About 0 for normal patches and 1 for tumor patches; of a student 0..6."""
        if self._student is not None:
            return self._student.score(images)
        assert self._classifier is not None
        views = [self._classifier(self._of(symmetric(images, symmetry))) for symmetry in VIEWS]
        return np.asarray(np.mean(views, axis=0), np.float64)

    def _of(self, images: Images) -> NDArray[np.float64]:
        return self._features(np.ascontiguousarray(images)).astype(np.float64)


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
