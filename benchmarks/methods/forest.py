"""Random forest on multi-scale color and texture features, as QuPath's pixel classifier has them.

QuPath gives its classifier, for each channel and scale, the Gaussian, gradient magnitude,
Laplacian, Hessian and structure tensor of a pixel. Here their means and standard deviations over
the patch describe it, because labels are of patches. Channels are red, green, blue, and
hematoxylin and eosin by color deconvolution (Ruifrok & Johnston 2001).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2hed
from sklearn.ensemble import RandomForestClassifier

from methods.interface import Images, Labels, MethodOptions, Scores
from methods.per_image import Features, PerImageFeatures

#: Standard deviation of the Gaussian, and the edge of the pixels it is computed on: coarse scales
#: need no fine pixels. In pixels of the patch the scales are 1, 2, 4 and 8.
_SCALES = ((1.0, 1), (2.0, 1), (2.0, 2), (2.0, 4))
_TREES = 500

Planes = NDArray[np.float32]


class Forest:
    """A balanced random forest; its score is the share of trees (and leaves) that say tumor."""

    def __init__(self, options: MethodOptions) -> None:
        self._features = texture_features()
        self._threads = options.threads
        self._forest = RandomForestClassifier()

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
        self._forest = RandomForestClassifier(
            _TREES, class_weight="balanced_subsample", random_state=seed, n_jobs=self._threads
        )
        self._forest.fit(self._features(train_images), train_tumor)

    def score(self, images: Images) -> Scores:
        """Probability of tumor, not calibrated."""
        return self._forest.predict_proba(self._features(images))[:, 1]


@cache
def texture_features() -> PerImageFeatures:
    """Features of patches, remembered."""

    def compute(images: Images) -> Features:
        return np.stack([describe(image) for image in images])

    return PerImageFeatures(compute)


def describe(image: Images) -> Features:
    """Means and standard deviations over a patch (3, P, P) of all features: (280,)."""
    rgb = image.astype(np.float32) / 255
    stains = rgb2hed(rgb, channel_axis=0)[:2].astype(np.float32)
    channels = np.concatenate([rgb, stains])
    scales = [_planes(_reduced(channels, factor), sigma) for sigma, factor in _SCALES]
    summaries = [(planes.mean((1, 2)), planes.std((1, 2))) for planes in scales]
    return np.concatenate([summary for pair in summaries for summary in pair])


def _reduced(channels: Planes, factor: int) -> Planes:
    """Means of squares of ``factor`` pixels."""
    count, height, width = channels.shape
    squares = channels.reshape(count, height // factor, factor, width // factor, factor)
    return squares.mean((2, 4))


def _planes(channels: Planes, sigma: float) -> Planes:
    """Seven features of each channel at a scale, derivatives normalized by it: (7 C, P, P)."""

    def derivative(rows: int, columns: int) -> Planes:
        smoothed = gaussian_filter(channels, (0, sigma, sigma), order=(0, rows, columns))
        return smoothed * sigma ** (rows + columns)

    along_y, along_x = derivative(1, 0), derivative(0, 1)
    yy, xx, yx = derivative(2, 0), derivative(0, 2), derivative(1, 1)
    tensor = [
        gaussian_filter(product, (0, sigma, sigma))
        for product in (along_y**2, along_x**2, along_y * along_x)
    ]
    return np.concatenate(
        [
            derivative(0, 0),
            np.hypot(along_y, along_x),
            yy + xx,
            *_eigenvalues(yy, xx, yx),
            *_eigenvalues(*tensor),
        ]
    )


def _eigenvalues(a: Planes, b: Planes, c: Planes) -> tuple[Planes, Planes]:
    """Eigenvalues of the matrices ((a, c), (c, b)), the larger ones first."""
    middle, radius = (a + b) / np.float32(2), np.hypot((a - b) / np.float32(2), c)
    return middle + radius, middle - radius
