"""``qprd train --from BUNDLE``: the earlier bundle that a training continues from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.bundle.ancestry import (
    MAX_ANCESTORS,
    Ancestor,
    AnnotationChanges,
    SlideAnnotations,
    annotation_changes,
)
from qprd.bundle.names import MODEL_FILE
from qprd.bundle.reading import load_bundle, read_bundle_info
from qprd.bundle.records import BundleInfo, by_name_note
from qprd.errors import ExitCode, QprdError
from qprd.files.filestate import sha256_of
from qprd.given_settings import stored_train_config
from qprd.sampling.splits import Split
from qprd.sampling.table import PatchTable
from qprd.settings import TrainConfig
from qprd.slides.fingerprint import KnownSlides, SlideIdentity

if TYPE_CHECKING:
    from qprd.model.network import Network
    from qprd.model.teacher import Teacher


@dataclass(frozen=True)
class StartingPoint:
    """What a training starts from: a teacher, and an earlier bundle, if it continues from one.

    Attributes:
        teacher: The frozen network.
        trained: The model of the earlier bundle, if its weights are the start.
        parent: Description of the earlier bundle; None without one.
        ancestors: The earlier bundle and those before it, the nearest first.
    """

    teacher: Teacher
    trained: Network | None = None
    parent: BundleInfo | None = None
    ancestors: tuple[Ancestor, ...] = ()

    def model(self, config: TrainConfig, n_tumor: int) -> Network:
        """Return the model to train on so many tumor patches: a new one, or the trained one."""
        from qprd.model.assembly import build_network
        from qprd.training.recipes import model_of

        if self.trained is not None:
            return self.trained
        return build_network(model_of(config.recipe, n_tumor), self.teacher, config.seed)

    def use_of(self, slide: SlideIdentity) -> Split | None:
        """What the earlier bundle used a slide for; None if it did not, or without one.

        It is the slide's split where its metadata name none. An only slide that was cut in two
        counts as trained on: the weights know a part of it.
        """
        return None if self.parent is None else self.parent.training.use_of(slide)

    def refuse_leak(self, slides: Mapping[str, SlideIdentity], table: PatchTable) -> None:
        """Refuse to validate on slides that the weights were trained on.

        An only slide is cut in two each time, which has its own warning. ``slides`` are given by
        entry id.

        Raises:
            QprdError: that would happen.
        """
        if self.parent is None or len({patch.slide for patch in table.patches}) < 2:
            return
        for entry_id in dict.fromkeys(patch.slide for patch in table.subset("val").patches):
            if self.use_of(slides[entry_id]) == "train":
                raise QprdError(
                    f"{slides[entry_id].name} is to validate, but {self.parent.name} was trained "
                    "on it: threshold and probability would be too optimistic.",
                    where="--from",
                    fix="Set its metadata 'split' to train, or train without --from.",
                )

    def with_earlier(
        self, training: Sequence[SlideIdentity], validation: Sequence[SlideIdentity]
    ) -> tuple[tuple[SlideIdentity, ...], tuple[SlideIdentity, ...]]:
        """Add the slides of all ancestors to those of training and validation.

        A slide that validated an ancestor and is trained on now counts as trained on.
        """
        if self.parent is None:
            return tuple(training), tuple(validation)
        earlier = self.parent.training
        trained = _with_others(training, earlier.slides)
        now_trained = KnownSlides(trained)
        validated = (slide for slide in earlier.validation_slides if slide not in now_trained)
        return trained, _with_others(validation, validated)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the earlier bundle."""
        return () if self.parent is None else by_name_note(self.parent)

    def changes(self, seen: Sequence[SlideAnnotations]) -> AnnotationChanges | None:
        """Compare annotations with those of the earlier bundle; None where that is not known."""
        if self.parent is None or not self.parent.training.annotations:
            return None
        return annotation_changes(self.parent.training.annotations, seen)


def _with_others(
    slides: Sequence[SlideIdentity], others: Iterable[SlideIdentity]
) -> tuple[SlideIdentity, ...]:
    known = KnownSlides(slides)
    return (*slides, *(slide for slide in others if slide not in known))


def parent_settings(folder: Path) -> TrainConfig:
    """Read the settings that a bundle was trained with.

    Raises:
        QprdError: it is no bundle, or damaged.
    """
    return stored_train_config(read_bundle_info(folder).training.config, where=str(folder))


def starting_point(config: TrainConfig, parent: Path | None) -> StartingPoint:
    """Load the teacher, and under the recipe ``paper`` the model of the bundle to continue from.

    Raises:
        QprdError: the bundle is of another kind than the settings ask for, or it is damaged, has
            no weights, or another teacher.
    """
    from qprd.model.teacher import build_teacher

    weights = None if config.weights is None else Path(config.weights)
    if parent is None:
        teacher = build_teacher(config.teacher, weights=weights, layers=config.teacher_layers)
        return StartingPoint(teacher)
    info = read_bundle_info(parent)
    digest = sha256_of(parent / MODEL_FILE)
    if digest is None:
        raise QprdError(
            f"The bundle is damaged: {MODEL_FILE} is missing.",
            where=str(parent),
            fix="Check the folder given to --from.",
        )
    _require_same_kind(info, config, parent)
    trained = None
    if config.recipe == "paper":
        trained, _ = load_bundle(parent, weights=weights)
    teacher = (
        build_teacher(config.teacher, weights=weights, layers=config.teacher_layers, download=False)
        if trained is None
        else trained.teacher
    )
    ancestors = (Ancestor(info.name, digest, info.created), *info.training.ancestors)
    return StartingPoint(teacher, trained, info, ancestors[:MAX_ANCESTORS])


def _require_same_kind(info: BundleInfo, config: TrainConfig, folder: Path) -> None:
    compared: list[tuple[str, object, object]] = [("recipe", config.recipe, info.network.recipe)]
    if config.recipe == "paper":  # whose weights mean nothing for other maps
        compared += [
            ("teacher", config.teacher, info.network.teacher.name),
            ("mpp", config.mpp, info.network.mpp),
            ("patch-px", config.patch_px, info.network.patch_px),
        ]
        if config.teacher_layers:
            compared.append(("teacher-layers", config.teacher_layers, info.network.teacher.layers))
    for option, asked, has in compared:
        if asked != has:
            raise QprdError(
                f"The bundle was trained with {option} {has}, and a training that continues from "
                f"it cannot have {asked}.",
                where=str(folder),
                fix=f"Leave out --{option} (and its line in the --config file), or train without "
                "--from.",
                exit_code=ExitCode.USAGE,
            )
