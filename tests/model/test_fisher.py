from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from qprd.model.fisher import ClassStatistics, LinearClassifier


def fit_discriminant(
    views: list[np.ndarray], y_true: np.ndarray, *, batch: int = 10_000, **options: float
) -> LinearClassifier:
    statistics = ClassStatistics()
    for view in views:
        for start in range(0, len(view), batch):
            statistics.add(view[start : start + batch], y_true[start : start + batch])
    return statistics.classifier(**options)


def patches(
    seed: int, n_normal: int = 60, n_tumor: int = 6, n_features: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(n_features, n_features))
    y_true = np.arange(n_normal + n_tumor) >= n_normal
    features = random.normal(size=(len(y_true), n_features)) @ mixing + 3
    features[y_true] += random.normal(size=n_features) * 2
    return features, y_true


@given(seed=st.integers(0, 1000), exponent=st.floats(0, 1))
def test_normal_patches_average_0_and_tumor_patches_1(seed: int, exponent: float) -> None:
    features, y_true = patches(seed)
    decisions = fit_discriminant([features], y_true, exponent=exponent)(features)
    assert decisions[~y_true].mean() == pytest.approx(0, abs=1e-8)
    assert decisions[y_true].mean() == pytest.approx(1)


@given(seed=st.integers(0, 1000))
def test_without_regularization_it_is_fishers(seed: int) -> None:
    features, y_true = patches(seed)
    own = fit_discriminant([features], y_true, shrinkage=0, exponent=1).weights
    fisher = LinearDiscriminantAnalysis(solver="lsqr").fit(features, y_true).coef_[0]
    assert own / np.linalg.norm(own) == pytest.approx(fisher / np.linalg.norm(fisher), abs=1e-6)


@given(seed=st.integers(0, 1000), exponent=st.integers(-5, 6))
def test_the_unit_of_a_feature_does_not_matter(seed: int, exponent: int) -> None:
    features, y_true = patches(seed)
    other = features * np.array([10.0**exponent, 1, 1, 1, 1])
    assert fit_discriminant([other], y_true)(other) == pytest.approx(
        fit_discriminant([features], y_true)(features), abs=1e-6
    )


def test_views_count_as_more_patches_of_the_same_classes() -> None:
    features, y_true = patches(0)
    one = fit_discriminant([features], y_true)
    two = fit_discriminant([features, features], y_true)
    assert two.weights == pytest.approx(one.weights)
    turned = features[:, ::-1].copy()
    both = fit_discriminant([features, turned], y_true).weights
    assert both == pytest.approx(fit_discriminant([turned, features], y_true).weights)


def test_a_constant_feature_is_given_no_say() -> None:
    features, y_true = patches(0)
    with_constant = np.column_stack([features, np.full(len(features), 7.0)])
    weights = fit_discriminant([with_constant], y_true).weights
    assert weights[-1] == pytest.approx(0, abs=1e-9)


def test_few_tumor_patches_are_enough_among_many_features() -> None:
    random = np.random.default_rng(0)
    y_true = np.arange(303) >= 300
    features = random.normal(size=(303, 512))
    features[y_true, :20] += 2
    unseen = random.normal(size=(100, 512))
    unseen[50:, :20] += 2
    decisions = fit_discriminant([features], y_true)(unseen)
    assert (decisions[50:] > np.median(decisions)).mean() > 0.9


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_batches_do_not_matter(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, y_true = patches(0)
    whole = fit_discriminant([features, features * 1.1], y_true)
    monkeypatch.setattr("qprd.model.fisher._ROWS", 16)
    streamed = fit_discriminant([features, features * 1.1], y_true, batch=batch)
    assert streamed.weights == pytest.approx(whole.weights)
    assert streamed.intercept == pytest.approx(whole.intercept)


@pytest.mark.parametrize(("batch", "directions"), [(1000, 100), (7, 100), (40, 24)])
def test_more_features_than_a_matrix_may_have_give_the_same_discriminant(
    batch: int, directions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    y_true = np.arange(60) >= 50
    # Few patches vary in few directions, which others turn up in the noise beside.
    features = random.normal(size=(60, 10)) @ random.normal(size=(10, 300))
    features += 0.1 * random.normal(size=features.shape) + 3
    features[y_true] += random.normal(size=300)
    views = [features, features + 0.05 * random.normal(size=features.shape)]
    exact = fit_discriminant(views, y_true)
    monkeypatch.setattr("qprd.model.fisher._ROWS", 16)
    monkeypatch.setattr("qprd.model.fisher._MATRIX_FEATURES", 200)
    monkeypatch.setattr("qprd.model.fisher._DIRECTIONS", directions)
    found = fit_discriminant(views, y_true, batch=batch)
    lossless = 2 * directions > 2 * len(features)
    assert found(features) == pytest.approx(exact(features), abs=1e-8 if lossless else 0.02)


def test_memory_is_bounded_whatever_the_number_of_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qprd.model.fisher._ROWS", 32)
    monkeypatch.setattr("qprd.model.fisher._MATRIX_FEATURES", 100)
    monkeypatch.setattr("qprd.model.fisher._DIRECTIONS", 20)
    random = np.random.default_rng(0)
    features, y_true = random.normal(size=(32, 5000)), np.arange(32) > 28
    statistics = ClassStatistics()
    tracemalloc.start()
    for _ in range(20):
        statistics.add(features, y_true)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * features.nbytes


@pytest.mark.parametrize("label", [False, True])
def test_one_class_is_refused(label: bool) -> None:
    with pytest.raises(ValueError, match="both classes"):
        fit_discriminant([np.ones((3, 2))], np.full(3, label))


def test_classes_with_the_same_mean_are_refused() -> None:
    with pytest.raises(ValueError, match="equal"):
        fit_discriminant([np.ones((4, 2))], np.array([True, False, True, False]))
