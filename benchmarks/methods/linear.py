"""Logistic regression on the frozen teacher's average-pooled maps."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from methods.best import VIEWS
from methods.interface import Images, Labels, MethodOptions, Scores
from methods.per_image import Features
from methods.teachers import pooled_features
from qprd.sampling.dataset import SYMMETRIES, symmetric


class LinearProbe:
    """Standardized features, L2-regularized (C = 1), both labels weighing the same."""

    def __init__(self, options: MethodOptions) -> None:
        self._features = pooled_features(options.teacher, options.teacher_weights, options.device)
        self._probe = _pipeline(1.0)

    def fit(
        self,
        train_images: Images,
        train_tumor: Labels,
        val_images: Images,  # noqa: ARG002
        val_tumor: Labels,  # noqa: ARG002
        *,
        seed: int,  # noqa: ARG002
    ) -> None:
        """See `methods.interface.Method`; validation patches and seed have no effect."""
        self._probe.fit(self._features(train_images), train_tumor)

    def score(self, images: Images) -> Scores:
        """Log-odds of tumor."""
        return self._probe.decision_function(self._features(images))


#: Inverse strengths of the penalty that cross-validation chooses from.
_PENALTIES = tuple(10.0**n for n in range(-4, 2))
#: Folds; fewer where there are fewer tumor patches.
_FOLDS = 5


class TunedLinearProbe:
    """The same with all eight symmetries in training, two at test, and C by cross-validation.

    Folds keep the symmetries of a patch together. The mean AUROC of the folds chooses C.
    """

    def __init__(self, options: MethodOptions) -> None:
        self._features = pooled_features(options.teacher, options.teacher_weights, options.device)
        self._probe = _pipeline(_PENALTIES[0])

    def fit(
        self,
        train_images: Images,
        train_tumor: Labels,
        val_images: Images,  # noqa: ARG002
        val_tumor: Labels,  # noqa: ARG002
        *,
        seed: int,
    ) -> None:
        """See `methods.interface.Method`; validation patches have no effect."""
        features = np.concatenate([self._view(train_images, s) for s in range(SYMMETRIES)])
        y_true, patch = np.tile(train_tumor, SYMMETRIES), np.arange(len(train_tumor))
        folds = StratifiedGroupKFold(
            min(_FOLDS, int(train_tumor.sum())), shuffle=True, random_state=seed
        )
        groups = np.tile(patch, SYMMETRIES)
        search = GridSearchCV(
            _pipeline(_PENALTIES[0]),
            {"logisticregression__C": [c / SYMMETRIES for c in _PENALTIES]},
            scoring="roc_auc",
            cv=folds,
        )
        self._probe = search.fit(features, y_true, groups=groups).best_estimator_

    def score(self, images: Images) -> Scores:
        """Log-odds of tumor, mean over the image and the transposed image."""
        views = [self._probe.decision_function(self._view(images, s)) for s in VIEWS]
        return np.asarray(np.mean(views, axis=0), np.float64)

    def _view(self, images: Images, symmetry: int) -> Features:
        return self._features(np.ascontiguousarray(symmetric(images, symmetry)))


def _pipeline(penalty_c: float) -> Pipeline:
    return make_pipeline(
        StandardScaler(),
        LogisticRegression(C=penalty_c, max_iter=5000, class_weight="balanced"),
    )
