"""A trained model as Python code holds it: a bundle that scores slides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qprd.errors import QprdError
from qprd.given_settings import predict_config
from qprd.jobs.predict.predictor import Predictor
from qprd.jobs.predict.slide_scores import SlideScores
from qprd.progress import Progress, progress_bars
from qprd.settings import Precision
from qprd.slides.slide import Slide

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from qprd.bundle.records import BundleInfo
    from qprd.jobs.train.summary import TrainSummary
    from qprd.model.network import Network

#: Settings that belong to a project.
_OF_A_PROJECT = {
    "images",
    "image",
    "exclude",
    "uncertain",
    "uncertain_on",
    "assume_mpp",
    "tissue_class",
    "devices",
}


class Model:
    """A trained model; get one from `train` or `load_model`.

    Args:
        bundle: The folder that the training wrote.
        weights: Teacher weights on disk; None takes the published ones.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto`` (bf16 on devices that have it, else 32 bits), ``32``, ``bf16``, ``16``.
        training: What the training did, if it was just now.

    Raises:
        QprdError: there is no bundle, or its description is damaged.

    Examples:
        >>> model
        Model('...', teacher='efficientnet_lite0', mpp=0.5, threshold=...)
        >>> model.figures["val_auroc"] > 0.5
        True
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        training: TrainSummary | None = None,
    ) -> None:
        from qprd.bundle.reading import read_bundle_info

        self.bundle = Path(bundle)
        self.info: BundleInfo = read_bundle_info(self.bundle)
        self.training = training
        self._weights = None if weights is None else Path(weights)
        self._device = device
        self._precision: Precision = precision

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the bundle again."""
        again = partial(
            Model,
            self.bundle,
            weights=self._weights,
            device=self._device,
            precision=self._precision,
        )
        return again, ()

    def __repr__(self) -> str:
        return (
            f"Model({str(self.bundle)!r}, teacher={self.teacher!r}, mpp={self.mpp:g}, "
            f"threshold={self.threshold})"
        )

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.info.name

    @property
    def precision(self) -> Precision:
        """Of the computations: ``auto``, ``32``, ``bf16`` or ``16``."""
        return self._precision

    @property
    def teacher(self) -> str:
        """Name of the frozen network."""
        return self.info.network.teacher.name

    @property
    def mpp(self) -> float:
        """Resolution at which the model sees slides, micrometers per pixel."""
        return self.info.network.mpp

    @property
    def threshold(self) -> float | None:
        """Raw score from which tissue counts as tumor; None without validation slides."""
        return self.info.scoring.threshold

    @property
    def figures(self) -> Mapping[str, Any]:
        """What the validation measured, such as ``val_auroc``."""
        return self.info.training.metrics

    @cached_property
    def fabric(self) -> Fabric:
        """Where the model computes.

        Raises:
            QprdError: the device is not there.
        """
        from qprd.device import make_fabric

        return make_fabric(self._device, self._precision)

    @cached_property
    def network(self) -> Network:
        """The network, ready for inference; loaded when it is first asked for.

        Raises:
            QprdError: the bundle is damaged, or the teacher is another one.
        """
        from qprd.bundle.reading import load_bundle
        from qprd.model.inference import for_inference

        model, _ = load_bundle(self.bundle, weights=self._weights, device=self.fabric.device)
        # The plain network is let go of: its weights may be most of the memory.
        return for_inference(model)

    def refuse_other(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings that the model got when it was loaded, if they are others.

        Raises:
            QprdError: one is.
        """
        own = {"device": self._device, "precision": self._precision, "weights": self._weights}
        others = [name for name in own if _text(settings.get(name, own[name])) != _text(own[name])]
        if others:
            raise QprdError(
                f"The model was loaded with other settings: {', '.join(others)}.",
                fix="Give them to load_model.",
            )

    def score(
        self,
        slide: str | Path,
        *,
        mpp: float | None = None,
        progress: bool | Progress = True,
        **settings: Any,
    ) -> SlideScores:
        """Score a slide; no project is needed.

        Args:
            slide: A file that OpenSlide reads, or a plain RGB image.
            mpp: Micrometers per pixel of the slide, where the file does not say or is wrong.
            progress: False shows no bar.
            settings: Options of ``qprd predict``: ``stride``, ``threshold``, ``operating_point``,
                ``slide_score``, ``min_tissue``, ``min_area_um2``, ``tolerance_um`` and others.

        Raises:
            QprdError: the slide cannot be read or has no resolution, or a setting is unknown or
                out of range.

        Examples:
            >>> found = model.score("demo/slides/demo_4.tif", stride=128)
            >>> found.scores.shape
            (8, 7)
        """
        config = predict_config(settings)
        if of_a_project := sorted(_OF_A_PROJECT & settings.keys()):
            raise QprdError(
                f"These settings are for projects: {', '.join(of_a_project)}.",
                fix="Leave them out; mpp says the resolution of a slide.",
            )
        self.refuse_other(settings)
        predictor = Predictor(self, config, progress_bars(progress))
        path = Path(slide)
        with Slide(path, mpp=mpp) as opened:
            return predictor.score(opened, path.name)


def _text(value: object) -> str:
    """A setting as it is compared; a path may be given in several ways."""
    return str(Path(str(value)))


def bundle_of(model: Model | str | Path) -> Path:
    """The folder of a model's bundle."""
    return model.bundle if isinstance(model, Model) else Path(model)
