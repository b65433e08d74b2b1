"""Logistic regression on the frozen teacher's average-pooled maps."""

from __future__ import annotations

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from methods.interface import Images, Labels, MethodOptions, Scores
from methods.teachers import pooled_features


class LinearProbe:
    """Standardized features, L2-regularized (C = 1), both labels weighing the same."""

    def __init__(self, options: MethodOptions) -> None:
        self._features = pooled_features(options.teacher, options.teacher_weights, options.device)
        self._probe = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=5000, class_weight="balanced")
        )

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
