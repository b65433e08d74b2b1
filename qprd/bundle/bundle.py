"""A trained model on disk: a folder with ``model.safetensors`` and ``bundle.json``.

The folder holds bottleneck, student and everything needed to use them, but not the teacher, whose
hash it records. Reading one runs no code: safetensors and JSON only, of bounded size, with every
name, type, shape and value checked. So a bundle may come from a stranger. What it says of itself is
read without torch.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AwareDatetime, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError, safe_open

from qprd.bundle.ancestry import MAX_ANCESTORS, Ancestor, ReviewCounts, SeenSlide
from qprd.checked import STRICT, PatchPx, Positive, RawScore, Sha256, Text
from qprd.errors import QprdError
from qprd.evaluation.calibration import Calibration
from qprd.evaluation.operating_point import ValidationScores
from qprd.files.atomic import replacing_folder, write_errors
from qprd.settings import PatchScore, Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qprd.model.frd import FRD
    from qprd.model.teacher import Teacher

#: 1 had one kind of calibration, which it did not name; 2 did not say where a bundle comes from,
#: nor had it anything for scores from fields. Both are still read.
FORMAT: Final = 3
MODEL_FILE = "model.safetensors"
INFO_FILE = "bundle.json"

#: Largest ``bundle.json`` that is read.
MAX_INFO_BYTES = 8 * 2**20
#: Room for the safetensors header beside the tensors.
_MAX_HEADER_BYTES = 2**20

#: A bundle's name goes into file names, object ids and QuPath metadata.
_Name = Annotated[str, Field(pattern=r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,199}$")]


@dataclass(frozen=True, config=STRICT)
class TeacherInfo:
    """Which teacher a bundle was trained with.

    Attributes:
        name: As `qprd.model.teacher.build_teacher` takes it.
        sha256: Hash of its weights.
        source: Where they came from, in words.
        mean: Subtracted from RGB in 0..1.
        std: Divided by after that.
        pretrained: False for random weights (tests).
    """

    name: Annotated[str, Field(max_length=200)]
    sha256: Sha256
    source: Text
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    pretrained: bool = True

    @classmethod
    def of(cls, teacher: Teacher) -> TeacherInfo:
        """The description of a teacher."""
        return cls(
            name=teacher.name,
            sha256=teacher.weights_sha256,
            source=teacher.weights_source,
            mean=teacher.mean,
            std=teacher.std,
            pretrained=teacher.pretrained,
        )


def installed_versions() -> dict[str, str]:
    """Versions of what has a say in the numbers, as installed."""
    versions = {}
    for package in ("qprd", "torch", "torchvision", "timm", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


@dataclass(frozen=True, config=STRICT)
class Fitted:
    """What was fitted to one kind of scores; see the attributes of the same name of `BundleInfo`.

    Attributes:
        threshold: None without validation.
        calibration: Likewise.
        validation: Likewise.
    """

    threshold: RawScore | None
    calibration: Calibration | None
    validation: ValidationScores | None


@dataclass(frozen=True, config=STRICT)
class BundleInfo:
    """Everything in a bundle but the weights; checked when made and when read.

    Threshold, calibration and validation scores are for scores patch by patch, unless `scored`
    says otherwise.

    Attributes:
        name: Bundle name, usable as a file name.
        teacher: The teacher.
        mpp: Resolution of the patches, micrometres per pixel.
        patch_px: Edge of a patch in pixels at ``mpp``.
        threshold: Raw score from which a patch counts as tumor; None without validation.
        recipe: How the model is built, see `qprd.training.recipes`.
        patch_score: How a score map becomes a patch score.
        classes: QuPath classes the labels came from, such as ``{"tumor": ("Tumor",)}``.
        calibration: Turns a score into a probability, with its figures; None without one.
        validation: The validation scores, from which another threshold can be chosen; None without
            validation and in bundles of format 1.
        config: The resolved training configuration.
        metrics: What validation measured.
        patches: How many patches of which kind trained and validated.
        training_slides: Names of the slides trained on, by this bundle or its ancestors.
        validation_slides: Names of the slides that best epoch, threshold and calibration come from,
            and likewise those of its ancestors.
        versions: Software the bundle was made with.
        created: When, with time zone.
        format: Version of this layout.
        ancestors: The bundles that it goes on from, the nearest first.
        annotations: What it saw of training and validation slides.
        review: How much of that came from reviewed predictions.
        dense: What was fitted to scores from large fields; None if slides are not to be scored so.
    """

    name: _Name
    teacher: TeacherInfo
    mpp: Positive
    patch_px: PatchPx
    threshold: RawScore | None
    recipe: Recipe = "paper"
    patch_score: PatchScore = "mean"
    classes: Mapping[str, tuple[Text, ...]] = Field(default_factory=dict)
    calibration: Calibration | None = None
    config: Mapping[str, JsonValue] = Field(default_factory=dict)
    metrics: Mapping[str, JsonValue] = Field(default_factory=dict)
    patches: Mapping[str, int] = Field(default_factory=dict)
    training_slides: tuple[Text, ...] = ()
    validation_slides: tuple[Text, ...] = ()
    versions: Mapping[str, Text] = Field(default_factory=installed_versions)
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(timezone.utc))
    format: Literal[1, 2, 3] = FORMAT
    validation: ValidationScores | None = None
    ancestors: Annotated[tuple[Ancestor, ...], Field(max_length=MAX_ANCESTORS)] = ()
    annotations: tuple[SeenSlide, ...] = ()
    review: ReviewCounts = ReviewCounts()
    dense: Fitted | None = None

    def scored(self, *, exact: bool) -> BundleInfo:
        """The same with threshold, calibration and validation scores for one kind of scores.

        Args:
            exact: Patch by patch. From fields otherwise, where that has been fitted.
        """
        if exact or self.dense is None:
            return self
        return replace(
            self,
            threshold=self.dense.threshold,
            calibration=self.dense.calibration,
            validation=self.dense.validation,
        )

    def to_json(self) -> str:
        """As ``bundle.json`` holds it.

        Raises:
            ValueError: a number in it is not finite, which JSON cannot hold.
        """
        return (
            json.dumps(
                _ADAPTER.dump_python(self, mode="json"),
                indent=2,
                ensure_ascii=False,
                allow_nan=False,
            )
            + "\n"
        )

    @classmethod
    def from_json(cls, text: str, where: str) -> BundleInfo:
        """Read and check the text of a ``bundle.json``.

        Args:
            text: The JSON.
            where: Where it comes from, for the message.

        Raises:
            QprdError: it is not valid, or of a newer format.
        """
        try:
            document = json.loads(text, parse_constant=_reject_constant)
        except (ValueError, RecursionError) as error:
            raise QprdError(f"Not valid JSON: {error}.", where=where) from error
        found = document.get("format") if isinstance(document, dict) else None
        if not isinstance(found, int) or isinstance(found, bool):
            raise QprdError("Not a bundle: it states no format.", where=where)
        if found > FORMAT:
            raise QprdError(
                f"This bundle was written by a newer qprd (format {found}; "
                f"this one reads up to {FORMAT}).",
                where=where,
                fix="Upgrade: pip install --upgrade qprd",
            )
        try:
            return _ADAPTER.validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])[:100]
            raise QprdError(
                f"The bundle is damaged: {field!r}: {first['msg'].lower()}.", where=where
            ) from error


_ADAPTER: TypeAdapter[BundleInfo] = TypeAdapter(BundleInfo)


def _reject_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not a JSON number")


def save_bundle(folder: Path, model: FRD, info: BundleInfo) -> None:
    """Write a bundle, all or nothing.

    An earlier bundle in ``folder`` is replaced, other files in it (such as a training history) are
    kept.

    Args:
        folder: The bundle's folder; its parents are made if need be.
        model: Bottleneck and student are saved, the teacher is not.
        info: Must describe the model's teacher.

    Raises:
        QprdError: it cannot be written, a weight is not finite, or ``folder`` holds other things.
            ``folder`` is then as it was.
    """
    from safetensors.torch import save_file

    if info.teacher.sha256 != model.teacher.weights_sha256:
        raise ValueError("info describes another teacher than the model's")
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.trainable_state().items()
    }
    _check_finite(state, where=str(folder), fix="Training diverged: try a lower --lr.")
    text = info.to_json()
    if folder.exists() and not _is_replaceable(folder):
        raise QprdError(
            "The folder exists and is not a bundle.", where=str(folder), fix="Name another one."
        )
    with write_errors("The bundle", folder), replacing_folder(folder) as partial:
        if folder.exists():
            others = shutil.ignore_patterns(MODEL_FILE, INFO_FILE)
            shutil.copytree(folder, partial, symlinks=True, ignore=others, dirs_exist_ok=True)
        try:
            save_file(state, partial / MODEL_FILE)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        (partial / INFO_FILE).write_text(text, encoding="utf-8")


def read_bundle_info(folder: Path) -> BundleInfo:
    """Read a bundle's ``bundle.json``.

    Raises:
        QprdError: it is missing, too large, damaged, or of a newer format.
    """
    path = folder / INFO_FILE
    if not path.is_file():
        raise QprdError(
            f"There is no bundle here: {INFO_FILE} is missing.",
            where=str(folder),
            fix="Give the folder that qprd train wrote: --bundle DIR",
        )
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_INFO_BYTES + 1)
        if len(raw) > MAX_INFO_BYTES:
            raise QprdError(f"{INFO_FILE} is over {MAX_INFO_BYTES} bytes.", where=str(path))
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise QprdError("Not valid JSON: it is not UTF-8.", where=str(path)) from error
    except OSError as error:
        raise QprdError(f"The bundle cannot be read: {error.strerror}.", where=str(path)) from error
    return BundleInfo.from_json(text, str(path))


def load_bundle(
    folder: Path, *, weights: Path | None = None, device: torch.device | str = "cpu"
) -> tuple[FRD, BundleInfo]:
    """Load a bundle, with its teacher, in evaluation mode. No code in it can run.

    Args:
        folder: The bundle.
        weights: Teacher weights on disk; None takes the published ones.
        device: Where the model goes.

    Raises:
        QprdError: the bundle is damaged or newer, or the teacher is not the one it was trained
            with.
    """
    import torch

    from qprd.model.frd import assemble_frd
    from qprd.model.teacher import build_teacher

    info = read_bundle_info(folder)
    teacher = build_teacher(info.teacher.name, weights=weights, pretrained=info.teacher.pretrained)
    _check_teacher(teacher, info.teacher, where=str(folder))
    with torch.device("meta"):
        model = assemble_frd(teacher, info.recipe)
    state = _read_weights(folder / MODEL_FILE, model.trainable_state())
    for part in model.trained:
        getattr(model, part).to_empty(device="cpu")
    model.load_trainable_state(state)
    return model.eval().to(device), info


def newest_bundle(folder: Path) -> Path:
    """The most recently created bundle among a folder's subfolders.

    A damaged one is passed over with a warning.

    Raises:
        QprdError: there is none.
    """
    dated: list[tuple[datetime, str]] = []
    candidates = sorted(folder.iterdir()) if folder.is_dir() else []
    for candidate in candidates:
        if candidate.name.startswith(".") or not (candidate / INFO_FILE).is_file():
            continue
        try:
            dated.append((read_bundle_info(candidate).created, candidate.name))
        except QprdError as error:
            warnings.warn(f"Bundle {candidate.name} is passed over: {error.problem}", stacklevel=2)
    if not dated:
        raise QprdError(
            "There is no bundle yet.",
            where=str(folder),
            fix="Train one with qprd train, or give one: --bundle DIR",
        )
    return folder / max(dated)[1]


def _check_teacher(teacher: Teacher, expected: TeacherInfo, where: str) -> None:
    if teacher.weights_sha256 != expected.sha256:
        raise QprdError(
            f"The bundle was trained with other weights of the teacher {expected.name}: "
            f"{expected.sha256}, not {teacher.weights_sha256}.",
            where=where,
            fix=f"Give the weights it was trained with ({expected.source}): --weights FILE",
        )
    if (teacher.mean, teacher.std) != (expected.mean, expected.std):
        raise QprdError(
            f"The bundle was trained with another input normalization: mean {expected.mean} and "
            f"std {expected.std}, not {teacher.mean} and {teacher.std}.",
            where=where,
            fix="Use the qprd and timm versions in its bundle.json.",
        )


def _read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read exactly the expected tensors; what they are is checked before any is allocated.

    Args:
        path: A safetensors file, possibly hostile.
        expected: Names, shapes and types; may be on the meta device.
    """
    if not path.is_file():
        raise QprdError(f"The bundle is damaged: {path.name} is missing.", where=str(path))
    size = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    try:
        if path.stat().st_size > size + _MAX_HEADER_BYTES:
            raise QprdError(f"The bundle is damaged: {path.name} is too large.", where=str(path))
        with safe_open(path, framework="pt", device="cpu") as file:
            _check_names(set(file.keys()), set(expected), where=str(path))
            for name, tensor in expected.items():
                found = tuple(file.get_slice(name).get_shape())
                if found != tuple(tensor.shape):
                    raise QprdError(
                        f"The bundle is damaged: {name} has shape {found}, "
                        f"not {tuple(tensor.shape)}.",
                        where=str(path),
                    )
            # Clones: the originals are views of the mapped file, which may change later.
            state = {name: file.get_tensor(name).clone() for name in expected}
    except (OSError, SafetensorError) as error:
        raise QprdError(
            f"The bundle is damaged: {path.name} is not a safetensors file.", where=str(path)
        ) from error
    for name, tensor in expected.items():
        if state[name].dtype != tensor.dtype:
            raise QprdError(
                f"The bundle is damaged: {name} is {state[name].dtype}, not {tensor.dtype}.",
                where=str(path),
            )
    _check_finite(state, where=str(path), fix="Train again.")
    return state


def _check_names(found: set[str], expected: set[str], where: str) -> None:
    if found != expected:
        missing, extra = sorted(expected - found), sorted(found - expected)
        raise QprdError(
            f"The bundle is damaged: {len(missing)} tensors are missing and {len(extra)} are "
            f"unknown, such as {(missing + extra)[0][:100]!r}.",
            where=where,
        )


def _check_finite(state: Mapping[str, Tensor], where: str, fix: str) -> None:
    import torch

    for name, tensor in state.items():
        if not math.isfinite(float(tensor.sum(dtype=torch.float64))):
            raise QprdError(f"The weights {name} are not finite.", where=where, fix=fix)


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / INFO_FILE).is_file() or not any(folder.iterdir()))
